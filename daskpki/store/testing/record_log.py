"""Tests that every `RecordLog` passes: commits, inventories, and logs that are copied from another store.

A log chains records, appends all of a commit or none, and derives the inventory from them alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, closing

import pytest

from daskpki.errors import AccessDeniedError, ConflictError, CorruptError, NotTrustedError, UnavailableError
from daskpki.inventory import Inventory, ReplayedInventory
from daskpki.records import (
    ABANDONED,
    CA_ACTIVATED,
    CA_CREATED,
    CA_RESERVED,
    CA_RETIRED,
    CA_RETIRING,
    EMPTY,
    ISSUED,
    PUBLISHED,
    RELEASED,
    RESERVED,
    REVOKED,
    REVOKING,
    CommitSignature,
    Draft,
    Head,
    Record,
    Stamp,
    chain,
    commit_of,
    verify_chain,
)
from daskpki.store.port import RecordLog, Store
from daskpki.store.testing.backing import STAMP, Backing, OneStore, append_records, processes, run, threads

NOTE = Draft("note", {"text": "Ω\n", "list": [1, None, True, {"a": 0.5}]})


def reserved(serial: int, name: str = "w", *, role: str = "worker") -> Draft:
    """A reservation."""
    body = {"serial": f"{serial:x}", "role": role, "name": name, "issuer": 1, "not_before": 1, "not_after": 99}
    return Draft(RESERVED, body)


def issued(serial: int, version: int = 1) -> Draft:
    """The confirmation of a reservation."""
    return Draft(ISSUED, {"serial": f"{serial:x}", "fingerprint": f"{serial:064x}", "version": version})


def always(*drafts: Draft) -> Callable[[Inventory], Sequence[Draft]]:
    """Make a decision that appends these drafts in any state of the log."""
    return lambda _: drafts


def assert_same(view: Inventory, expected: Inventory) -> None:
    """Two inventories answer every question alike."""
    assert view.head == expected.head
    assert dict(view.published) == dict(expected.published)
    assert list(view.authorities()) == list(expected.authorities())
    entries = list(expected.certificates())
    assert list(view.certificates()) == entries
    for entry in entries:
        assert view.certificate(entry.serial) == entry
        assert view.current(entry.role, entry.name) == expected.current(entry.role, entry.name)
        if entry.fingerprint:
            assert view.by_fingerprint(entry.fingerprint) == entry
    for filters in ({"role": "worker"}, {"role": "client", "name": "alice"}, {"name": "w-0"}):
        assert list(view.certificates(**filters)) == list(expected.certificates(**filters))
    for statuses in ([RESERVED, REVOKING], [ISSUED], []):
        assert list(view.certificates(statuses=statuses)) == list(expected.certificates(statuses=statuses))


class RecordLogSuite(OneStore):
    """Subclass it, and provide the fixture `backing`."""

    @pytest.fixture
    def log(self, store: Store) -> RecordLog:
        """An empty log."""
        return store.log("c")

    def test_an_empty_log_is_read_without_making_it(self, store: Store, log: RecordLog) -> None:
        view = log.inventory()
        assert (view.head, view.published) == (EMPTY, {})
        assert (view.certificate(1), view.current("worker", "w"), view.by_fingerprint("0" * 64)) == (None, None, None)
        assert (list(view.certificates()), list(view.authorities()), list(log.records())) == ([], [], [])
        assert list(store.clusters()) == []

    def test_what_is_committed_is_chained_and_read_back(self, log: RecordLog, backing: Backing) -> None:
        odd = Stamp(2**33, "id-2", "jörg@büro", "daskpki issue --name 'a b'\n")
        first = log.commit(always(NOTE, reserved(1)), STAMP)
        second = log.commit(always(issued(1)), odd)
        expected = commit_of(EMPTY, [NOTE, reserved(1)], STAMP, lambda _: ())
        expected += commit_of(expected[-1].head, [issued(1)], odd, lambda _: ())
        assert [*first, *second] == expected
        assert list(log.records()) == expected
        assert list(verify_chain(EMPTY, log.records())) == expected
        with closing(backing.factory()) as other:
            assert list(other.log("c").records()) == expected
            assert other.log("c").inventory().head == expected[-1].head

    def test_a_commit_keeps_its_signatures(self, log: RecordLog, backing: Backing) -> None:
        made = (CommitSignature(1, b"\x00one", "ab"), CommitSignature(2, b"two"))
        asked = []

        def sign(view: Inventory, records: Sequence[Record], _place: str) -> tuple[CommitSignature, ...]:
            asked.append((view.head, [record.kind for record in records]))
            return made

        log.commit(always(NOTE, NOTE), STAMP, sign)
        assert asked == [(EMPTY, [NOTE.kind, NOTE.kind])]
        with closing(backing.factory()) as other:
            assert [record.signatures for record in other.log("c").records()] == [None, made]

    def test_a_log_counts_as_far_as_its_judge_decides(self, log: RecordLog, backing: Backing) -> None:
        records = log.commit(always(NOTE, NOTE), STAMP)
        asked = []

        def judge(head: Head, after: Callable[[int], Iterator[Record]]) -> Collection[str]:
            asked.append((head, list(after(1))))
            raise NotTrustedError("no")

        with closing(backing.factory()) as other:
            judged = other.log("c", judge)
            for call in (judged.inventory, lambda: judged.commit(always(NOTE), STAMP), judged.authenticate):
                with pytest.raises(NotTrustedError):
                    call()
        assert (records[-1].head, [records[1]]) in asked
        assert log.inventory().head.seq == 2

    def test_a_log_is_authenticated_from_its_first_record(self, store: Store, log: RecordLog) -> None:
        assert log.authenticate() == EMPTY
        records = log.commit(always(NOTE, reserved(1)), STAMP)
        assert store.log("c").authenticate() == records[-1].head

    def test_records_are_read_from_a_number_on(self, log: RecordLog) -> None:
        for _ in range(3):
            log.commit(always(NOTE, NOTE), STAMP)
        everything = list(log.records())
        for after in range(8):
            assert list(log.records(after=after)) == everything[after:]

    def test_an_empty_decision_appends_nothing(self, store: Store, log: RecordLog) -> None:
        assert list(log.commit(always(), STAMP)) == []
        assert list(store.clusters()) == []
        log.commit(always(NOTE), STAMP)
        assert list(log.commit(always(), STAMP)) == []
        assert log.inventory().head.seq == 1

    def test_what_a_decision_raises_is_passed_on_and_appends_nothing(self, log: RecordLog) -> None:
        log.commit(always(NOTE), STAMP)

        def refuse(view: Inventory) -> Sequence[Draft]:
            raise ConflictError(f"seen {view.head.seq}")

        with pytest.raises(ConflictError, match="seen 1"):
            log.commit(refuse, STAMP)
        assert [record.seq for record in log.records()] == [1]
        log.commit(always(NOTE), STAMP)
        assert log.inventory().head.seq == 2

    def test_a_decision_sees_what_it_is_appended_to(self, log: RecordLog, backing: Backing) -> None:
        def next_serial(view: Inventory) -> Sequence[Draft]:
            serial = sum(1 for _ in view.certificates()) + 1
            assert view.certificate(serial) is None
            return [reserved(serial, f"w-{serial}")]

        with closing(backing.factory()) as other:
            for turn in range(6):
                (log if turn % 2 else other.log("c")).commit(next_serial, STAMP)
        assert [entry.serial for entry in log.inventory().certificates()] == [1, 2, 3, 4, 5, 6]

    def test_clusters_are_kept_apart(self, store: Store) -> None:
        store.log("b").commit(always(reserved(1)), STAMP)
        store.log("a").commit(always(NOTE), STAMP)
        assert list(store.clusters()) == ["a", "b"]
        assert store.log("a").inventory().certificate(1) is None
        assert [record.kind for record in store.log("a").records()] == ["note"]

    def test_a_refused_write_is_reported_and_nothing_is_appended(self, log: RecordLog, backing: Backing) -> None:
        log.commit(always(NOTE), STAMP)
        for refusing, error in ((backing.unavailable, UnavailableError), (backing.denied, AccessDeniedError)):
            with refusing(), pytest.raises(error), closing(backing.factory()) as other:
                other.log("c").commit(always(NOTE), STAMP)
            assert log.inventory().head.seq == 1

    def test_a_batch_keeps_what_was_committed_in_it(self, store: Store, backing: Backing) -> None:
        with store.batch():
            store.log("c").commit(always(reserved(1)), STAMP)
            store.log("c").commit(always(issued(1)), STAMP)
        with closing(backing.factory()) as other:
            assert [record.kind for record in other.log("c").records()] == [RESERVED, ISSUED]

    @pytest.mark.parametrize("workers", [threads, processes], ids=["threads", "processes"])
    def test_many_writers_lose_and_double_nothing(
        self, log: RecordLog, backing: Backing, workers: Callable[[int], AbstractContextManager[Executor]]
    ) -> None:
        writers, each = 4, 4
        with workers(writers) as executor:
            numbers = run(executor, append_records, backing, writers, each)
        assert sorted(n for own in numbers for n in own) == list(range(1, writers * each + 1))
        previous = EMPTY
        for record in log.records():
            assert record.body["after"] == list(previous)
            assert record.seq in numbers[record.body["writer"]]
            previous = record.head

    # --- inventories

    def test_an_event_out_of_order_is_refused(self, log: RecordLog) -> None:
        log.commit(always(reserved(1)), STAMP)
        with pytest.raises(CorruptError, match="never reserved"):
            log.commit(always(NOTE, issued(2)), STAMP)
        with pytest.raises(CorruptError, match="never reserved"):
            log.commit(always(Draft(CA_CREATED, {"generation": 7, "certificate": ""})), STAMP)
        assert [record.kind for record in log.records()] == [RESERVED]

    def test_an_inventory_stays_what_it_was(self, log: RecordLog) -> None:
        log.commit(always(reserved(1), issued(1)), STAMP)
        view = log.inventory()
        log.commit(always(reserved(2), issued(2)), STAMP)
        current = view.current("worker", "w")
        assert current is not None
        assert (view.head.seq, current.serial, current.superseded) == (2, 1, False)
        assert view.certificate(2) is None
        newer = log.inventory().current("worker", "w")
        assert newer is not None
        assert newer.serial == 2

    def test_a_leaf_keeps_what_was_recorded_of_it(self, log: RecordLog) -> None:
        serial = 2**159 + 1
        body = {**reserved(serial).body, "key_type": "rsa3072", "sans": ["dns:a.example", "ip:10.0.0.1"]}
        log.commit(always(Draft(RESERVED, body), issued(serial, 7)), STAMP)
        for event in (REVOKING, REVOKED):
            log.commit(always(Draft(event, {"serial": f"{serial:x}", "reason": "superseded", "at": 50})), STAMP)
        entry = log.inventory().by_fingerprint(f"{serial:064x}")
        assert entry is not None
        assert entry == log.inventory().certificate(serial)
        assert (entry.serial, entry.key_type, entry.sans) == (serial, "rsa3072", ("dns:a.example", "ip:10.0.0.1"))
        assert (entry.version, entry.status, entry.revoked_at, entry.reason) == (7, REVOKED, 50, "superseded")
        log.commit(always(Draft(RELEASED, {"serial": f"{serial:x}"})), STAMP)
        released = log.inventory().certificate(serial)
        assert released is not None
        assert (released.status, released.revoked_at, released.reason) == (RELEASED, None, None)

    def test_the_inventory_follows_from_the_records(self, store: Store, backing: Backing) -> None:
        ca = {"generation": 1, "key_uri": "store:", "trust_domain": "c.daskpki.internal", "settings": {"max_ttl": 5}}
        revoked = {"serial": "3", "reason": "certificateHold", "at": 50}
        commits = [
            [Draft(CA_RESERVED, ca)],
            [Draft(CA_CREATED, {"generation": 1, "certificate": "Y2VydA==", "chain": ["Y2E="]})],
            [Draft(kind, {"generation": 1}) for kind in (CA_ACTIVATED, CA_RETIRING, CA_RETIRED)],
            [reserved(1, "w-0"), reserved(2, "w-0"), reserved(3, "alice", role="client"), reserved(4), reserved(5)],
            [issued(1), issued(3), issued(2), Draft(ABANDONED, {"serial": "4"})],
            *([Draft(kind, revoked)] for kind in (REVOKING, REVOKED, RELEASED, REVOKING)),
            [Draft(PUBLISHED, {"epoch": epoch, "version": 1, "next_update": 2_000_000_000}) for epoch in (2, 1)],
        ]
        with closing(backing.factory()) as other:
            for turn, drafts in enumerate(commits):
                (other if turn % 2 else store).log("c").commit(always(*drafts), STAMP)
            for each in (store, other):
                assert_same(each.log("c").inventory(), ReplayedInventory(each.log("c").records()))

    # --- copies

    def test_another_stores_records_are_adopted_as_they_are(self, store: Store, log: RecordLog) -> None:
        first, second = STAMP, STAMP._replace(time=STAMP.time + 1, who="someone else")
        records = chain(EMPTY, [NOTE, reserved(1)], first)
        records += chain(records[-1].head, [issued(1), NOTE], second)
        log.adopt(records[:3])
        log.adopt(records[:2])  # they are here
        log.adopt(records[1:])
        assert list(log.records()) == records
        assert store.log("c").authenticate() == records[-1].head
        entry = log.inventory().certificate(1)
        assert entry is not None
        assert (entry.status, entry.reserved_at) == (ISSUED, STAMP.time)
        for foreign in (chain(EMPTY, [NOTE] * 4, second), chain(EMPTY, [NOTE] * 5, second)):
            with pytest.raises(CorruptError):
                log.adopt(foreign)
        with pytest.raises(CorruptError):
            log.adopt(chain(records[-1].head._replace(seq=9), [NOTE], second))
        assert list(log.records()) == records
