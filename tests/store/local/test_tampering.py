"""What someone does who can write to the database, but has not the master key."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.errors import CorruptError, NotTrustedError
from daskpki.records import Draft, Head, Stamp, chain
from daskpki.store.local.store import LocalStore
from daskpki.store.testing.backing import STAMP
from tests.support.local_places import LocalPlace
from tests.support.samples import SAMPLE, SECRET, add_sample, read_sample

NOTE = Draft("note", {})
OTHER = "daskpki_c_worker_w-1"


@pytest.fixture
def filled(place: LocalPlace, store: LocalStore) -> LocalPlace:
    """Two secrets, of which the first has two versions."""
    add_sample(store)
    store.secrets.add(SECRET, Confidential("second"))
    store.secrets.create(OTHER, labels=secret_names.labels("c", "worker", "w-1"))
    store.secrets.add(OTHER, Confidential("other"))
    place.sql("DROP TRIGGER version_is_immutable")
    place.sql("DROP TRIGGER record_is_never_changed")
    place.sql("DROP TRIGGER record_is_never_deleted")
    return place


MOVE = """
UPDATE version SET sealed = (SELECT sealed FROM version WHERE secret = ? AND number = ?)
WHERE secret = ? AND number = ?
"""


@pytest.mark.parametrize("source", [(SECRET, 2), (OTHER, 1)])
def test_a_payload_that_was_moved_does_not_open(filled: LocalPlace, store: LocalStore, source: tuple[str, int]) -> None:
    filled.sql(MOVE, *source, SECRET, 1)
    with pytest.raises(CorruptError, match=f"version 1 of '{SECRET}'"):
        store.secrets.access(SECRET, 1)


def test_a_payload_does_not_open_in_another_secret_with_its_key(filled: LocalPlace, store: LocalStore) -> None:
    filled.sql(MOVE, SECRET, 1, OTHER, 1)
    filled.sql("UPDATE secret SET data_key = (SELECT data_key FROM secret WHERE id = ?) WHERE id = ?", SECRET, OTHER)
    with pytest.raises(CorruptError, match=f"'{OTHER}' .* was changed by someone without"):
        store.secrets.access(OTHER, 1)


def test_a_renumbered_version_does_not_open(filled: LocalPlace, store: LocalStore) -> None:
    filled.sql("UPDATE version SET number = 3 WHERE secret = ? AND number = 1", SECRET)
    with pytest.raises(CorruptError):
        store.secrets.access(SECRET, 3)


def test_rows_of_another_store_do_not_open(filled: LocalPlace, store: LocalStore, tmp_path: Path) -> None:
    """Not even of a store that was given the same key file."""
    root = tmp_path / "other"
    root.mkdir()
    other = LocalPlace(root)
    other.key_file.touch(0o600)
    other.key_file.write_bytes(filled.key_file.read_bytes())
    with closing(other.create()) as others:
        add_sample(others)
    (data_key,), (sealed,) = other.sql("SELECT data_key FROM secret")[0], other.sql("SELECT sealed FROM version")[0]
    filled.sql("UPDATE secret SET data_key = ? WHERE id = ?", data_key, SECRET)
    filled.sql("UPDATE version SET sealed = ? WHERE secret = ? AND number = 1", sealed, SECRET)
    with pytest.raises(CorruptError):
        store.secrets.access(SECRET, 1)


@pytest.mark.parametrize("table", ["version", "record"])
def test_what_is_immutable_is_so_in_the_database_too(place: LocalPlace, store: LocalStore, table: str) -> None:
    add_sample(store)
    changes = {
        "version": [
            "UPDATE version SET sealed = x'00'",
            "UPDATE version SET number = 7",
            "UPDATE version SET secret = 'x'",
        ],
        "record": ["UPDATE record SET who = 'nobody'", "DELETE FROM record"],
    }
    for change in changes[table]:
        with pytest.raises(sqlite3.IntegrityError, match=r"never changes|append-only"):
            place.sql(change)
    assert read_sample(store)


def kept(place: LocalPlace, secret: str) -> tuple[list[Any], list[Any]]:
    """A secret's row and its versions, as somebody copied them who can read the file."""
    return (
        place.sql("SELECT * FROM secret WHERE id = ?", secret),
        place.sql("SELECT * FROM version WHERE secret = ?", secret),
    )


def put_back(place: LocalPlace, secret: str, rows: tuple[list[Any], list[Any]]) -> None:
    place.sql("DELETE FROM version WHERE secret = ?", secret)
    place.sql("DELETE FROM secret WHERE id = ?", secret)
    place.sql("INSERT INTO secret VALUES (?, ?, ?, ?, ?, ?, ?)", *rows[0][0])
    for version in rows[1]:
        place.sql("INSERT INTO version VALUES (?, ?, ?, ?, ?)", *version)


READS: dict[str, Callable[[LocalStore], object]] = {
    "latest": lambda store: store.secrets.latest(SECRET),
    "access": lambda store: store.secrets.access(SECRET, 1),
    "add": lambda store: store.secrets.add(SECRET, Confidential("more")),
    "destroy": lambda store: store.secrets.destroy(SECRET, 1),
}


@pytest.mark.parametrize("read", READS)
def test_a_secret_that_is_put_back_as_it_was_is_noticed(place: LocalPlace, store: LocalStore, read: str) -> None:
    """Its row and versions are of one moment, and carry the MAC that they had then."""
    add_sample(store)
    store.secrets.create(OTHER, labels=secret_names.labels("c", "worker", "w-1"))
    store.secrets.add(OTHER, Confidential("other"))
    old = kept(place, SECRET)
    store.secrets.add(SECRET, Confidential("newer"))
    put_back(place, SECRET, kept(place, SECRET))
    assert store.secrets.latest(SECRET).data.reveal() == b"newer", "the same rows again are no change"
    put_back(place, SECRET, old)
    with closing(place.factory()) as again, pytest.raises(CorruptError, match="table secret was changed"):
        READS[read](again)
    assert store.secrets.latest(OTHER).data.reveal() == b"other"


def test_a_secret_that_is_deleted_or_made_by_someone_else_is_noticed(place: LocalPlace, store: LocalStore) -> None:
    add_sample(store)
    rows = kept(place, SECRET)
    place.sql("DELETE FROM version WHERE secret = ?", SECRET)
    place.sql("DELETE FROM secret WHERE id = ?", SECRET)
    with pytest.raises(CorruptError, match="table secret was changed"):
        store.secrets.latest(SECRET)
    with pytest.raises(CorruptError, match="table secret was changed"):
        store.secrets.create(SECRET, labels=secret_names.labels("c", "secret", "x"))
    put_back(place, SECRET, rows)
    store.secrets.delete(SECRET)
    put_back(place, SECRET, rows)
    with pytest.raises(CorruptError, match="table secret was changed"):
        store.secrets.latest(SECRET)


def test_the_digests_of_secrets_are_sealed_too(place: LocalPlace, store: LocalStore) -> None:
    add_sample(store)
    old, digests = kept(place, SECRET), place.sql("SELECT * FROM table_digest WHERE part LIKE 'secret:%'")
    store.secrets.add(SECRET, Confidential("newer"))
    put_back(place, SECRET, old)
    for part, digest in digests:
        place.sql("UPDATE table_digest SET digest = ? WHERE part = ?", digest, part)
    with pytest.raises(CorruptError, match="table table_digest was changed"):
        store.secrets.add(SECRET, Confidential("and on"))


# --- the log ---


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE record SET who = 'nobody' WHERE seq = 1",
        "UPDATE record SET time = 0 WHERE seq = 2",
        """UPDATE record SET body = '{"serial":"b2"}' WHERE seq = 1""",
        "DELETE FROM record WHERE seq = 1",
        "DELETE FROM record WHERE seq = 2",
        "UPDATE record SET body = 'no json' WHERE seq = 1",
        "UPDATE log_head SET seq = 3",
    ],
)
def test_a_changed_log_is_noticed_without_a_key(filled: LocalPlace, change: str) -> None:
    filled.sql(change)
    with closing(filled.factory(filled.ways._replace(key_file=None))) as store, pytest.raises(NotTrustedError):
        list(store.log("c").records())


def forge(filled: LocalPlace) -> None:
    """Append a record that fits the chain, as whoever reads the file can compute it."""
    ((seq, digest),) = filled.sql("SELECT seq, hash FROM log_head")
    (record,) = chain(Head(seq, digest), [NOTE], Stamp(1, "op", "mallory", "daskpki"))
    row = ("c", *record[:6], json.dumps(record.body), record.hash)
    filled.sql("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)", *row)
    filled.sql("UPDATE log_head SET seq = ?, hash = ?", record.seq, record.hash)


def test_a_forged_record_is_noticed_before_the_next_commit(filled: LocalPlace, store: LocalStore) -> None:
    store.log("c").authenticate()
    forge(filled)
    with closing(filled.factory()) as locked:
        assert len(list(locked.log("c").records())) == 3  # the chain itself holds
    for call in (store.log("c").authenticate, lambda: store.log("c").commit(lambda _: [NOTE], STAMP)):
        with pytest.raises(CorruptError, match="without the store's key"):
            call()


@pytest.mark.parametrize("change", ["DELETE FROM log_head", "DELETE FROM record", "UPDATE log_head SET mac = x''"])
def test_a_head_that_is_gone_is_noticed_before_the_next_commit(
    filled: LocalPlace, store: LocalStore, change: str
) -> None:
    filled.sql(change)
    with pytest.raises(NotTrustedError):
        store.log("c").commit(lambda _: [NOTE], STAMP)


def test_a_forged_inventory_is_noticed(filled: LocalPlace, store: LocalStore) -> None:
    filled.sql("UPDATE certificate SET status = 'revoked', name = 'w-9'")
    with pytest.raises(CorruptError, match="table certificate was changed"):
        read_sample(store)


# --- rollback ---


def test_a_store_that_was_put_back_is_noticed_until_that_is_accepted(place: LocalPlace) -> None:
    with closing(place.factory()) as store:
        add_sample(store)
    old = place.database.read_bytes()
    with closing(place.factory()) as store:
        store.log("c").commit(lambda _: [NOTE], STAMP)
    new = place.database.read_bytes()

    place.database.write_bytes(old)
    with closing(place.factory()) as store:
        log = store.log("c")
        for call in (log.inventory, lambda: list(log.records()), lambda: log.commit(lambda _: [NOTE], STAMP)):
            with pytest.raises(NotTrustedError, match="rolled back to an older state") as refused:
                call()
    (seen,) = place.seen.iterdir()
    assert str(seen) in (refused.value.hint or "")

    place.database.write_bytes(new)
    with closing(place.factory()) as store:
        assert store.log("c").inventory().head.seq == 3

    place.database.write_bytes(old)
    seen.unlink()  # the way that the hint names
    with closing(place.factory()) as store:
        assert store.log("c").commit(lambda _: [NOTE], STAMP)[0].seq == 3


def test_a_store_with_another_past_is_noticed_though_it_is_longer(place: LocalPlace) -> None:
    with closing(place.factory()) as store:
        add_sample(store)
    old = place.database.read_bytes()
    with closing(place.factory()) as store:
        store.log("c").commit(lambda _: [NOTE], STAMP)
    (seen,) = place.seen.iterdir()
    remembered = seen.read_bytes()
    place.database.write_bytes(old)
    seen.unlink()
    with closing(place.factory()) as store:
        for _ in range(3):
            store.log("c").commit(lambda _: [Draft("other", {})], STAMP)
    seen.write_bytes(remembered)
    with closing(place.factory()) as store, pytest.raises(NotTrustedError, match="rolled back"):
        store.log("c").inventory()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format":1}', b'{"format":1,"heads":{"c":7}}', b"\xff"])
def test_a_memory_that_was_torn_remembers_nothing_and_breaks_nothing(place: LocalPlace, content: bytes) -> None:
    with closing(place.factory()) as store:
        add_sample(store)
    (seen,) = place.seen.iterdir()
    seen.write_bytes(content)
    with closing(place.factory()) as store:
        assert read_sample(store)
        store.log("c").commit(lambda _: [NOTE], STAMP)
    assert json.loads(seen.read_bytes())["heads"]["c"][0] == 3


def test_a_memory_that_cannot_be_written_is_said_so(place: LocalPlace, caplog: pytest.LogCaptureFixture) -> None:
    place.seen.touch()  # a file where the directory should be
    with closing(place.factory()) as store:
        add_sample(store)
    assert "rollback of the store will not be detected" in caplog.text


def test_what_was_undone_was_never_seen(place: LocalPlace) -> None:
    with closing(place.factory()) as store:
        add_sample(store)
        with pytest.raises(ZeroDivisionError):
            undone(store)
        store.secrets.add(SECRET, Confidential("a write that is durable"))
        assert store.log("c").inventory().head.seq == 2
    with closing(place.factory()) as store:
        assert store.log("c").inventory().head.seq == 2


def undone(store: LocalStore) -> None:
    with store.batch():
        store.log("c").commit(lambda _: [NOTE], STAMP)
        raise ZeroDivisionError


# --- what a reader of the file learns ---


def test_no_payload_or_key_is_in_any_file(place: LocalPlace, store: LocalStore) -> None:
    add_sample(store)
    key = place.key_file.read_bytes()
    content = [path.read_bytes() for path in (*place.directory.iterdir(), place.database)]
    assert not any(found(needle, content) for needle in (SAMPLE.reveal(), key))
    assert found(b"daskpki_c_worker_w-0", content)  # the search itself works: ids are in the clear
    place.sql("CREATE TABLE planted (leak TEXT)")
    place.sql("INSERT INTO planted VALUES (?)", base64.b64encode(b"x" + SAMPLE.reveal()).decode())
    assert found(SAMPLE.reveal(), [path.read_bytes() for path in place.directory.iterdir()])


def found(needle: bytes, haystacks: list[bytes]) -> bool:
    """Whether the needle is there, raw or in base64 at any alignment."""
    forms = [needle, *(base64.b64encode(bytes(shift) + needle)[4:-4] for shift in range(3))]
    return any(form in content for form in forms for content in haystacks)


def test_what_is_destroyed_or_deleted_is_overwritten(filled: LocalPlace, store: LocalStore) -> None:
    rows = filled.sql("SELECT sealed FROM version ORDER BY secret, number")
    store.secrets.destroy(SECRET, 1)
    store.secrets.delete(OTHER)
    content = b"".join(path.read_bytes() for path in filled.directory.iterdir())
    assert [sealed in content for (sealed,) in rows] == [False, True, False]
