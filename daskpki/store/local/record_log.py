"""The local store's `RecordLog`: an append-only table, whose head is authenticated under the master key.

The hash chain says that nothing in the middle was changed, the head's MAC that the end was written by someone who
could unlock the store, and `seen.py` that the whole was not put back.
"""

from __future__ import annotations

import hmac
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from daskpki.confidential import Confidential
from daskpki.errors import CorruptError
from daskpki.inventory import Base, Inventory
from daskpki.records import EMPTY, Draft, Head, Record, Stamp, chain, following, verify_chain
from daskpki.store.encryption import context, derive
from daskpki.store.local.archiving import begin_with, erase, hash_at, holds, read_base
from daskpki.store.local.database import Database, Snapshot
from daskpki.store.local.inventory import LocalInventory, apply_records, clear_index, restore_base
from daskpki.store.port import moved
from daskpki.store.rollback_guard import RollbackGuard

_COMPACT = json.JSONEncoder(separators=(",", ":"))
_FIRST_NEEDED = (
    "SELECT MIN(record.seq) FROM record JOIN certificate ON certificate.cluster = record.cluster "
    "AND certificate.serial = json_extract(record.body, '$.serial') "
    "WHERE record.cluster = ? AND record.kind = 'reserved' AND certificate.not_after >= ?"
)
"""The first reservation of a leaf that ends at that moment or later."""
_RECORDS = "SELECT seq, time, operation, who, command, kind, body, hash FROM record WHERE cluster = ?"


class LocalRecordLog:
    """See `daskpki.store.port.RecordLog`."""

    def __init__(
        self, database: Database, master: Callable[[], Confidential], seen: RollbackGuard, cluster: str
    ) -> None:
        self._database = database
        self._master = master
        self._seen = seen
        self._cluster = cluster

    def inventory(self) -> LocalInventory:
        """See RecordLog; NotTrustedError when the store was put back to an older state."""
        return self._view(self._database.snapshot())

    def read_cached(self) -> LocalInventory:
        """See RecordLog; here it is never older than `inventory`."""
        return self.inventory()

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """See RecordLog."""
        snapshot = self._database.snapshot()
        head = self._view(snapshot).head
        begin = read_base(snapshot, self._cluster).head
        after = max(after, begin.seq)
        start = Head(after, hash_at(snapshot, self._cluster, after) or EMPTY.hash)
        rows = snapshot.rows(f"{_RECORDS} AND seq > ? ORDER BY seq", self._cluster, after)
        last = start
        for record in verify_chain(start, map(_parse_record, rows)):
            last = Head(record.seq, record.hash)
            yield record
        if after < head.seq and last != head:
            raise CorruptError(f"the log of {self._cluster!r} ends at record {last.seq} instead of {head.seq}")

    def commit(self, decide: Callable[[Inventory], Sequence[Draft]], stamp: Stamp) -> Sequence[Record]:
        """See RecordLog."""
        key = self._head_key()
        with self._database.write() as connection:
            view = self._view(Snapshot(self._database.path, connection, owned=False))
            head = view.head
            self._authenticate(connection, key, head)
            records = chain(head, decide(view), stamp)
            if not records:
                return records
            self._append(connection, key, records)
        return records

    def base(self) -> Base:
        """See RecordLog."""
        return read_base(self._database.snapshot(), self._cluster)

    def sealed(self, before: int, upto: int) -> Head:
        """See RecordLog; here, any record."""
        snapshot = self._database.snapshot()
        needed = snapshot.row(_FIRST_NEEDED, self._cluster, before)
        end = upto if needed is None or needed[0] is None else min(upto, needed[0] - 1)
        begin = read_base(snapshot, self._cluster).head
        found = hash_at(snapshot, self._cluster, end)
        return Head(end, found) if found and end > begin.seq else begin

    def begin(self, base: Base) -> None:
        """See RecordLog."""
        key = self._head_key()
        with self._database.write() as connection:
            snapshot = Snapshot(self._database.path, connection, owned=False)
            if read_base(snapshot, self._cluster).head == base.head:
                return
            if self._view(snapshot).head != EMPTY:
                raise CorruptError(f"the log of {self._cluster!r} is there already, and begins elsewhere")
            begin_with(connection, self._cluster, base)
            self._write_head(connection, key, base.head)

    def cut(self, base: Base, drafts: Sequence[Draft], stamp: Stamp, *, seen: Head) -> None:
        """See RecordLog."""
        key = self._head_key()
        with self._database.write() as connection:
            snapshot = Snapshot(self._database.path, connection, owned=False)
            head = self._view(snapshot).head
            self._authenticate(connection, key, head)
            if head != seen:
                raise moved(self._cluster)
            self._append(connection, key, chain(head, drafts, stamp))
            erase(connection, self._cluster, read_base(snapshot, self._cluster), base)

    def adopt(self, records: Sequence[Record]) -> None:
        """See RecordLog."""
        key = self._head_key()
        with self._database.write() as connection:
            head = self._view(Snapshot(self._database.path, connection, owned=False)).head
            self._authenticate(connection, key, head)
            if later := following(head, records):
                self._append(connection, key, later)

    def authenticate(self) -> Head:
        """See RecordLog; the head's MAC says that its author could unlock the store."""
        key = self._head_key()
        with self._database.read() as connection:
            view = LocalInventory(Snapshot(self._database.path, connection, owned=False), self._cluster)
            self._authenticate(connection, key, view.head)
        for _ in self.records():
            pass
        return view.head

    def rebuild(self) -> None:
        """Derive certificates and authorities anew from the records."""
        with self._database.write() as connection:
            clear_index(connection, self._cluster)
            base = read_base(Snapshot(self._database.path, connection, owned=False), self._cluster)
            restore_base(connection, self._cluster, base)
            rows = connection.execute(f"{_RECORDS} ORDER BY seq", (self._cluster,))
            for record in verify_chain(base.head, map(_parse_record, rows)):
                apply_records(connection, self._cluster, [record])

    def _view(self, snapshot: Snapshot) -> LocalInventory:
        view = LocalInventory(snapshot, self._cluster)
        head = view.head
        self._seen.verify(self._cluster, head, lambda seen: holds(snapshot, self._cluster, seen))
        return view

    def _append(self, connection: sqlite3.Connection, key: bytes, records: Sequence[Record]) -> None:
        rows = [(self._cluster, *record._replace(body=_encode_body(record))) for record in records]  # type: ignore[arg-type]  # a row, not a Record
        connection.executemany("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        apply_records(connection, self._cluster, records)
        self._write_head(connection, key, Head(records[-1].seq, records[-1].hash))

    def _write_head(self, connection: sqlite3.Connection, key: bytes, head: Head) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO log_head VALUES (?, ?, ?, ?)", (self._cluster, *head, self._mac(key, head))
        )
        self._database.afterwards(lambda: self._seen.note(self._cluster, head))

    def _authenticate(self, connection: sqlite3.Connection, key: bytes, head: Head) -> None:
        """The head is the newest record, and was written by someone who could unlock the store."""
        newest = connection.execute(
            "SELECT seq, hash FROM record WHERE cluster = ? ORDER BY seq DESC LIMIT 1", (self._cluster,)
        ).fetchone()
        row = connection.execute("SELECT mac FROM log_head WHERE cluster = ?", (self._cluster,)).fetchone()
        if newest is None:  # none at all, or every one of them in an archive
            begin = read_base(Snapshot(self._database.path, connection, owned=False), self._cluster).head
            newest = tuple(begin) if begin != EMPTY else None
        if row is None and newest is None:
            return
        if row is None or newest != tuple(head) or not hmac.compare_digest(row[0], self._mac(key, head)):
            raise CorruptError(
                f"the log of {self._cluster!r} was changed by someone without the store's key",
                hint="restore the store from a backup, and find out who could write to it",
            )

    def _head_key(self) -> bytes:
        """Asked for before the writers' lock is taken, since unlocking may ask someone."""
        return derive(self._master(), b"authenticate log heads")

    def _mac(self, key: bytes, head: Head) -> bytes:
        return hmac.digest(key, context("log head", self._database.store_id, self._cluster, *head), "sha256")


def _encode_body(record: Record) -> str:
    return _COMPACT.encode(dict(record.body))


def _parse_record(row: tuple[Any, ...]) -> Record:
    try:
        return Record._make((*row[:6], json.loads(row[6]), row[7]))
    except ValueError as error:
        raise CorruptError(f"record {row[0]} is damaged") from error
