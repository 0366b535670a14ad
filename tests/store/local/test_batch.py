"""A batch is one transaction; and a handle may be shared, and is of no use once it is closed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing

import pytest

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.errors import DaskpkiError, NotFoundError
from daskpki.inventory import Inventory
from daskpki.records import RESERVED, REVOKING, Draft
from daskpki.store.local.store import LocalStore
from daskpki.store.testing.backing import STAMP
from tests.support.local_places import LocalPlace
from tests.support.samples import SECRET, add_sample, read_sample

NOTE = Draft("note", {})


def test_nothing_of_a_batch_is_there_before_its_end(place: LocalPlace, store: LocalStore) -> None:
    with closing(place.factory()) as other:
        with store.batch():
            add_sample(store)
            assert read_sample(store)
            assert other.log("c").inventory().head.seq == 0
            with pytest.raises(NotFoundError):
                other.secrets.access(SECRET, 1)
        assert read_sample(other)


def test_an_error_undoes_the_whole_batch(store: LocalStore) -> None:
    with pytest.raises(ZeroDivisionError):
        broken_batch(store)
    assert store.log("c").inventory().head.seq == 0
    with pytest.raises(NotFoundError):
        store.secrets.describe(SECRET)
    add_sample(store)
    assert read_sample(store)


def test_a_note_of_another_thread_outlives_the_failure_of_the_batch(store: LocalStore) -> None:
    database, notes = store.secrets._database, list[str]()

    def note(thread: str) -> None:
        database.afterwards(lambda: notes.append(thread))

    def meanwhile() -> None:
        note("the batch's")
        noted.append(other.submit(note, "another"))
        assert not wait(noted, timeout=0.1).done, "it waits for the batch"

    noted = list[Future[None]]()
    with ThreadPoolExecutor(1) as other, pytest.raises(ZeroDivisionError):
        broken_batch(store, meanwhile)
    assert [done.result() for done in noted] == [None]
    assert notes == ["another"]


def broken_batch(store: LocalStore, meanwhile: Callable[[], None] = lambda: None) -> None:
    with store.batch():
        add_sample(store)
        meanwhile()
        raise ZeroDivisionError


def test_a_refused_step_undoes_itself_and_not_the_batch(store: LocalStore) -> None:
    def refuse(view: Inventory) -> list[Draft]:
        raise DaskpkiError(f"at {view.head.seq}")

    with store.batch():
        add_sample(store)
        with pytest.raises(DaskpkiError, match="at 2"):
            store.log("c").commit(refuse, STAMP)
        with pytest.raises(NotFoundError):
            store.secrets.add("daskpki_c_secret_missing", Confidential("x"))
        with store.batch():
            store.log("c").commit(lambda _: [NOTE], STAMP)
    assert store.log("c").inventory().head.seq == 3
    assert read_sample(store)


def test_a_batch_is_one_sync_however_much_is_in_it(place: LocalPlace, store: LocalStore) -> None:
    """Nothing reaches the WAL before the end: other handles see one change."""
    with closing(place.factory()) as other:

        def version() -> int:
            """Changes with each commit of another connection."""
            with other._database.read() as connection:
                return int(connection.execute("PRAGMA data_version").fetchone()[0])

        seen = set()
        with store.batch():
            for name in range(20):
                secret = secret_names.user_secret_id("c", f"s{name}")
                store.secrets.create(secret, labels=secret_names.labels("c", secret_names.SECRET, f"s{name}"))
                store.secrets.add(secret, Confidential("x"))
                seen.add(version())
        assert len(seen) == 1
        assert version() not in seen


def test_threads_share_a_handle(store: LocalStore) -> None:
    add_sample(store)

    def work(turn: int) -> tuple[int, int]:
        with store.batch():
            number = store.secrets.add(SECRET, Confidential(f"{turn}"))
            seq = store.log("c").commit(lambda _: [NOTE], STAMP)[0].seq
        assert store.secrets.access(SECRET, number).reveal() == f"{turn}".encode()
        assert store.log("c").inventory().head.seq >= seq
        return number, seq

    with ThreadPoolExecutor(8) as executor:
        numbers, seqs = zip(*executor.map(work, range(40)), strict=True)
    assert sorted(numbers) == list(range(2, 42))
    assert sorted(seqs) == list(range(3, 43))


def test_a_closed_handle_is_of_no_use(store: LocalStore) -> None:
    add_sample(store)
    view, stream = store.log("c").inventory(), store.log("c").records()
    next(stream)
    store.close()
    store.close()
    for call in (
        lambda: store.secrets.access(SECRET, 1),
        lambda: view.head,
        lambda: list(stream),
        lambda: store.log("c").inventory(),
        lambda: store.log("c").commit(lambda _: [NOTE], STAMP),
    ):
        with pytest.raises(DaskpkiError, match="closed"):
            call()


@pytest.mark.parametrize("question", ["certificate", "current", "fingerprint", "name", "statuses", "head"])
def test_no_question_scans_what_grows(store: LocalStore, question: str) -> None:
    """The cost is flat at 100,000 certificates, since every statement finds its rows by an index."""
    add_sample(store)
    view = store.log("c").inventory()
    statements: list[str] = []
    view._snapshot.connection.set_trace_callback(statements.append)
    ask: dict[str, Callable[[], object]] = {
        "certificate": lambda: view.certificate(0xA1),
        "current": lambda: view.current("worker", "w-0"),
        "fingerprint": lambda: view.by_fingerprint("f" * 64),
        "name": lambda: list(view.certificates(role="worker", name="w-0")),
        "statuses": lambda: list(view.certificates(statuses=[RESERVED, REVOKING])),
        "head": lambda: (view.head, view.published),
    }
    ask[question]()
    assert statements
    for statement in statements:
        plan = store._database._connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
        assert all("SCAN" not in step[3] for step in plan), plan


def test_a_commit_costs_the_same_however_long_the_log_is(store: LocalStore) -> None:
    """Counted in steps of SQLite's machine, which a busy computer does not change."""

    def reserve(serials: range) -> None:
        bodies = [
            {"serial": f"{n:x}", "role": "worker", "name": f"w{n}", "issuer": 1, "not_before": 1, "not_after": 9}
            for n in serials
        ]
        store.log("c").commit(lambda _: [Draft(RESERVED, body) for body in bodies], STAMP)

    def steps(serial: int) -> int:
        count = 0

        def tick() -> int:
            nonlocal count
            count += 1
            return 0

        store._database._connection.set_progress_handler(tick, 1)
        reserve(range(serial, serial + 1))
        store._database._connection.set_progress_handler(None, 0)
        return count

    reserve(range(1, 904))  # as far into a run of the table's seal as the number below
    few = steps(904)
    reserve(range(905, 5_000))
    assert steps(5_000) <= few * 1.2
