"""The local store's `RecordLog`: an append-only table, whose head is authenticated under the master key.

The hash chain says that nothing in the middle was changed, the head's MAC that the end was written by someone who
could unlock the store, `table_seal.py` that the tables are what followed from it, and `rollback_guard.py` that the
whole was not put back. Whether a commit was signed by the CA is for the log's judge to say.
"""

from __future__ import annotations

import hmac
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from daskpki.errors import CorruptError, NotTrustedError
from daskpki.inventory import Inventory
from daskpki.records import (
    EMPTY,
    Draft,
    Head,
    Record,
    Stamp,
    commit_of,
    encode_signatures,
    following,
    parse_signatures,
    verify_chain,
)
from daskpki.store.encryption import context, derive
from daskpki.store.local.database import Database, Snapshot, Unlocking
from daskpki.store.local.inventory import LocalInventory, apply_records, clear_index
from daskpki.store.local.table_seal import TableSeal
from daskpki.store.port import Judge, Sign, unsigned
from daskpki.store.rollback_guard import RollbackGuard

_COMPACT: Final = json.JSONEncoder(separators=(",", ":"))
_RECORDS: Final = (
    "SELECT seq, time, operation, who, command, kind, body, hash, signatures FROM record WHERE cluster = ?"
)


_INSERT: Final = "INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class LocalRecordLog:
    """See `daskpki.store.port.RecordLog`."""

    def __init__(
        self, database: Database, unlocking: Unlocking, seen: RollbackGuard, cluster: str, judge: Judge | None = None
    ) -> None:
        self._database = database
        self._unlocking = unlocking
        self._seen = seen
        self._cluster = cluster
        self._judge = judge

    def inventory(self) -> LocalInventory:
        """The inventory of all records; NotTrustedError when the store was put back to an older state.

        Without the store's key, and without a judge who needs it, the tables are taken as they are.
        """
        return self._judged(self._database.snapshot())

    def read_cached(self) -> LocalInventory:
        """The inventory as it was last read; here it is never older than `inventory`."""
        return self.inventory()

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """Stream the records after a number."""
        snapshot = self._database.snapshot()
        head = self._judged(snapshot).head
        yield from self._records(snapshot, after, head)

    def _records(self, snapshot: Snapshot, after: int, head: Head) -> Iterator[Record]:
        start = Head(after, hash_at(snapshot, self._cluster, after) or EMPTY.hash)
        rows = snapshot.rows(f"{_RECORDS} AND seq > ? ORDER BY seq", self._cluster, after)
        last = start
        for record in verify_chain(start, map(_parse_record, rows)):
            last = Head(record.seq, record.hash)
            yield record
        if after < head.seq and last != head:
            raise CorruptError(f"the log of {self._cluster!r} ends at record {last.seq} instead of {head.seq}")

    def commit(
        self, decide: Callable[[Inventory], Sequence[Draft]], stamp: Stamp, sign: Sign = unsigned
    ) -> Sequence[Record]:
        """Append one signed commit."""
        self._unlocking.unlock()
        with self._database.write() as connection:
            view = self._judged(Snapshot(self._database.path, connection, owned=False))
            records = commit_of(view.head, decide(view), stamp, lambda drafted: sign(view, drafted, ""))
            if records:
                self._append(connection, records)
        return records

    def adopt(self, records: Sequence[Record]) -> None:
        """Append records of another store's log."""
        self._unlocking.unlock()
        with self._database.write() as connection:
            head = self._judged(Snapshot(self._database.path, connection, owned=False)).head
            if later := following(head, records):
                self._append(connection, later)

    def authenticate(self) -> Head:
        """Read and check the log from its first record; the head's MAC says that its author could unlock the store."""
        self._unlocking.unlock()
        snapshot = self._database.snapshot()
        head = self._judged(snapshot).head
        for _ in self._records(snapshot, 0, head):
            pass
        return head

    def rebuild(self) -> None:
        """Derive certificates and authorities from the records again."""
        self._unlocking.unlock()
        with self._database.write() as connection:
            clear_index(connection, self._cluster)
            rows = connection.execute(f"{_RECORDS} ORDER BY seq", (self._cluster,))
            for record in verify_chain(EMPTY, map(_parse_record, rows)):
                apply_records(connection, self._cluster, [record])
            self._seal(connection).renew_all()

    def _view(self, snapshot: Snapshot) -> LocalInventory:
        view = LocalInventory(snapshot, self._cluster)
        head = view.head
        self._seen.verify(self._cluster, head, lambda seen: holds(snapshot, self._cluster, seen))
        return view

    def _judged(self, snapshot: Snapshot) -> LocalInventory:
        """The view, authenticated by the store's key where it is at hand, and by the judge."""
        view = self._view(snapshot)
        head = view.head
        if self._unlocking.is_unlocked:
            self._authenticate(snapshot, head)
        if self._judge is not None:
            self._judge(head, lambda after: self._records(snapshot, after, head))
            if self._unlocking.is_unlocked:  # by now, since the judge reads the trust document
                self._authenticate(snapshot, head)
        return view

    def _append(self, connection: sqlite3.Connection, records: Sequence[Record]) -> None:
        connection.executemany(_INSERT, [(self._cluster, *_row(record)) for record in records])
        changed = apply_records(connection, self._cluster, records)
        head = Head(records[-1].seq, records[-1].hash)
        row = (self._cluster, *head, None, self._mac(head))
        connection.execute("INSERT OR REPLACE INTO log_head VALUES (?, ?, ?, ?, ?)", row)
        self._seal(connection).renew(changed)
        self._database.afterwards(lambda: self._seen.note(self._cluster, head))

    def _authenticate(self, snapshot: Snapshot, head: Head) -> None:
        """The head is the newest record, and was written by someone who could unlock the store, and so were the tables.

        Looked at once, and again only after another connection wrote to the database.
        """
        newest = snapshot.row("SELECT seq, hash FROM record WHERE cluster = ? ORDER BY seq DESC LIMIT 1", self._cluster)
        row = snapshot.row("SELECT mac, base FROM log_head WHERE cluster = ?", self._cluster)
        if row is not None and row[1] is not None:
            raise NotTrustedError("the log has a base, which this daskpki does not understand", hint="upgrade daskpki")
        self._database.verify_once(snapshot, lambda connection: self._seal(connection).verify())
        if row is None and newest is None:
            return
        if row is None or newest != tuple(head) or not hmac.compare_digest(row[0], self._mac(head)):
            raise CorruptError(
                f"the log of {self._cluster!r} was changed by someone without the store's key",
                hint="restore the store from a backup, and find out who could write to it",
            )

    def _seal(self, connection: sqlite3.Connection) -> TableSeal:
        key = derive(self._unlocking.unlock(), b"authenticate tables")
        return TableSeal(connection, key, self._database.store_id)

    def _mac(self, head: Head) -> bytes:
        key = derive(self._unlocking.unlock(), b"authenticate log heads")
        return hmac.digest(key, context("log head", self._database.store_id, self._cluster, *head), "sha256")


def hash_at(snapshot: Snapshot, cluster: str, seq: int) -> str | None:
    """The hash of that record, if it is there."""
    row = snapshot.row("SELECT hash FROM record WHERE cluster = ? AND seq = ?", cluster, seq)
    return None if row is None else str(row[0])


def holds(snapshot: Snapshot, cluster: str, seen: Head) -> bool:
    """Whether the log has that very record."""
    return hash_at(snapshot, cluster, seen.seq) == seen.hash


def _row(record: Record) -> tuple[Any, ...]:
    signatures = None if record.signatures is None else _COMPACT.encode(encode_signatures(record.signatures))
    return (*record[:6], _COMPACT.encode(dict(record.body)), record.hash, signatures)


def _parse_record(row: tuple[Any, ...]) -> Record:
    try:
        signatures = None if row[8] is None else parse_signatures(json.loads(row[8]))
        return Record._make((*row[:6], json.loads(row[6]), row[7], signatures))
    except ValueError as error:
        raise CorruptError(f"record {row[0]} is damaged") from error
