"""The local store's `RecordLog`, an append-only table, and its `Inventory`, tables computed from the records.

The hash chain proves that no record in the middle was changed. The head's MAC proves that someone who could unlock the
store wrote the end. `table_seal.py` proves that the tables follow from the records, and `rollback_guard.py` proves that
the store was not rolled back. The log's judge decides whether the CA signed a commit.

The inventory's tables are updated in the transaction of the record: an entry is loaded, changed by `certificate_after`
or `authority_after` of `daskpki.inventory`, and written back. The inventory is SQL over one snapshot; its cost does not
grow with the number of leaves.
"""

from __future__ import annotations

import hmac
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from daskpki.errors import CorruptError, NotTrustedError
from daskpki.inventory import (
    AUTHORITY_KINDS,
    CERTIFICATE_KINDS,
    AuthorityRecord,
    CertificateRecord,
    Inventory,
    authority_after,
    certificate_after,
    parse_authority,
)
from daskpki.records import (
    EMPTY,
    ISSUED,
    PUBLISHED,
    RESERVED,
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
from daskpki.store.local.database import Database, DatabaseSnapshot, MasterKey
from daskpki.store.local.table_seal import TableSeal
from daskpki.store.port import Judge, Sign, unsigned
from daskpki.store.rollback_guard import RollbackGuard

_COMPACT: Final = json.JSONEncoder(separators=(",", ":"))
_RECORDS: Final = (
    "SELECT seq, time, operation, who, command, kind, body, hash, signatures FROM record WHERE cluster = ?"
)


_INSERT: Final = "INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class LocalRecordLog:
    """A `daskpki.store.port.RecordLog` in a SQLite database."""

    def __init__(
        self, database: Database, master_key: MasterKey, seen: RollbackGuard, cluster: str, judge: Judge | None = None
    ) -> None:
        self._database = database
        self._master_key = master_key
        self._seen = seen
        self._cluster = cluster
        self._judge = judge

    def inventory(self) -> LocalInventory:
        """The inventory of all records; NotTrustedError if the store was rolled back.

        Unless the store is unlocked, or the judge unlocks it, the tables are not verified.
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

    def _records(self, snapshot: DatabaseSnapshot, after: int, head: Head) -> Iterator[Record]:
        start = Head(after, hash_at(snapshot, self._cluster, after) or EMPTY.hash)
        rows = snapshot.rows(f"{_RECORDS} AND seq > ? ORDER BY seq", self._cluster, after)
        last = start
        for record in verify_chain(start, map(_parse_record, rows)):
            last = record.head
            yield record
        if after < head.seq and last != head:
            raise CorruptError(f"the log of {self._cluster!r} ends at record {last.seq} instead of {head.seq}")

    def commit(
        self, decide: Callable[[Inventory], Sequence[Draft]], stamp: Stamp, sign: Sign = unsigned
    ) -> Sequence[Record]:
        """Append one signed commit."""
        self._master_key.unlock()
        with self._database.write() as connection:
            view = self._judged(self._database.snapshot())
            records = commit_of(view.head, decide(view), stamp, lambda drafted: sign(view, drafted, ""))
            if records:
                self._append(connection, records)
        return records

    def adopt(self, records: Sequence[Record]) -> None:
        """Append records of another store's log."""
        self._master_key.unlock()
        with self._database.write() as connection:
            head = self._judged(self._database.snapshot()).head
            if later := following(head, records):
                self._append(connection, later)

    def authenticate(self) -> Head:
        """Read and verify the log from its first record; the head's MAC proves that its writer had the store's key."""
        self._master_key.unlock()
        snapshot = self._database.snapshot()
        head = self._judged(snapshot).head
        for _ in self._records(snapshot, 0, head):
            pass
        return head

    def _judged(self, snapshot: DatabaseSnapshot) -> LocalInventory:
        """Return the view once the rollback guard, the store's key (if unlocked) and the judge have accepted it."""
        view = LocalInventory(snapshot, self._cluster)
        head = view.head
        self._seen.verify(self._cluster, head, lambda seen: holds(snapshot, self._cluster, seen))
        if self._master_key.is_unlocked:
            self._authenticate(snapshot, head)
        if self._judge is not None:
            self._judge(head, lambda after: self._records(snapshot, after, head))
            if self._master_key.is_unlocked:  # the judge may have unlocked it to read the trust document
                self._authenticate(snapshot, head)
            self._database.afterwards(partial(self._seen.note, self._cluster, head))
        return view

    def _append(self, connection: sqlite3.Connection, records: Sequence[Record]) -> None:
        connection.executemany(_INSERT, [(self._cluster, *_row(record)) for record in records])
        changed = _apply_records(connection, self._cluster, records)
        head = records[-1].head
        row = (self._cluster, *head, None, self._mac(head))
        connection.execute("INSERT OR REPLACE INTO log_head VALUES (?, ?, ?, ?, ?)", row)
        self._seal(connection).renew(changed)
        self._database.afterwards(partial(self._seen.note, self._cluster, head))

    def _authenticate(self, snapshot: DatabaseSnapshot, head: Head) -> None:
        """Raise CorruptError unless the head is the newest record, and the MACs of head and tables are right.

        The tables are verified once, and again only after another connection wrote to the database.
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
        return TableSeal(connection, self._master_key.unlock(), self._database.store_id)

    def _mac(self, head: Head) -> bytes:
        key = derive(self._master_key.unlock(), b"authenticate log heads")
        return hmac.digest(key, context("log head", self._database.store_id, self._cluster, *head), "sha256")


def hash_at(snapshot: DatabaseSnapshot, cluster: str, seq: int) -> str | None:
    """The hash of that record, or None."""
    row = snapshot.row("SELECT hash FROM record WHERE cluster = ? AND seq = ?", cluster, seq)
    return None if row is None else str(row[0])


def holds(snapshot: DatabaseSnapshot, cluster: str, seen: Head) -> bool:
    """True if the log has exactly that record."""
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


CERTIFICATE_COLUMNS: Final = ", ".join(CertificateRecord._fields)
_SERIAL, _SANS, _SUPERSEDED = map(CertificateRecord._fields.index, ("serial", "sans", "superseded"))
_WRITE: Final = (
    f"INSERT INTO certificate (cluster, {CERTIFICATE_COLUMNS}, issued_seq) "  # noqa: S608 - names of our own fields
    f"VALUES ({', '.join('?' * (len(CertificateRecord._fields) + 2))}) ON CONFLICT (cluster, serial) DO UPDATE SET "
    + ", ".join(f"{column} = excluded.{column}" for column in (*CertificateRecord._fields, "issued_seq"))
    + " RETURNING position"
)
_READ: Final = f"SELECT {CERTIFICATE_COLUMNS}, issued_seq FROM certificate WHERE cluster = ? AND serial = ?"  # noqa: S608
_SUPERSEDE: Final = """
UPDATE certificate SET superseded = 1
WHERE position = (SELECT position FROM certificate WHERE cluster = ? AND role = ? AND name = ? AND issued_seq > 0
                  ORDER BY issued_seq DESC LIMIT 1) AND serial <> ? RETURNING position
"""


def _apply_records(connection: sqlite3.Connection, cluster: str, records: Sequence[Record]) -> set[int]:
    """Bring the tables up to date with new records, and return the positions of the certificates that changed.

    Kinds that this version does not know change nothing.
    """
    changed: set[int] = set()
    for record in records:
        if record.kind in CERTIFICATE_KINDS:
            changed |= _apply_to_certificate(connection, cluster, record)
        elif record.kind in AUTHORITY_KINDS:
            generation = record.body["generation"]
            query = "SELECT entry FROM authority WHERE cluster = ? AND generation = ?"
            row = connection.execute(query, (cluster, generation)).fetchone()
            entry = authority_after(None if row is None else parse_authority(json.loads(row[0])), record)
            entry_row = (cluster, generation, json.dumps(entry._asdict()))
            connection.execute("INSERT OR REPLACE INTO authority VALUES (?, ?, ?)", entry_row)
        elif record.kind == PUBLISHED:
            connection.execute(
                "INSERT INTO published VALUES (?, ?, ?) ON CONFLICT (cluster) DO UPDATE SET epoch = excluded.epoch, "
                "body = excluded.body WHERE excluded.epoch > epoch",
                (cluster, record.body["epoch"], json.dumps(dict(record.body))),
            )
    return changed


def _apply_to_certificate(connection: sqlite3.Connection, cluster: str, record: Record) -> set[int]:
    serial = _format_serial(int(record.body["serial"], 16))
    row = None if record.kind == RESERVED else connection.execute(_READ, (cluster, serial)).fetchone()
    entry = certificate_after(None if row is None else _parse_certificate(row[:-1]), record)
    issued_seq = None if row is None else row[-1]
    changed = []
    if record.kind == ISSUED:
        changed = connection.execute(_SUPERSEDE, (cluster, entry.role, entry.name, serial)).fetchall()
        issued_seq = record.seq
    fields = entry._asdict() | {"serial": _format_serial(entry.serial), "sans": json.dumps(entry.sans)}
    changed += connection.execute(_WRITE, (cluster, *fields.values(), issued_seq)).fetchall()
    return {row[0] for row in changed}


def _format_serial(serial: int) -> str:
    """The key of a serial, whose 160 bits do not fit SQLite's integers."""
    return f"{serial:x}"


def _parse_certificate(row: Sequence[Any]) -> CertificateRecord:
    """The entry of a row with CERTIFICATE_COLUMNS."""
    fields = [*row]  # filled in by place: `_replace` would take most of the time of a long list
    fields[_SERIAL] = int(row[_SERIAL], 16)
    fields[_SANS] = () if row[_SANS] == "[]" else tuple(json.loads(row[_SANS]))
    fields[_SUPERSEDED] = bool(row[_SUPERSEDED])
    return CertificateRecord._make(fields)


_SELECT: Final = f"SELECT {CERTIFICATE_COLUMNS} FROM certificate WHERE cluster = ?"  # noqa: S608 - our own fields


class LocalInventory:
    """A `daskpki.inventory.Inventory` that reads the tables computed from the records."""

    def __init__(self, snapshot: DatabaseSnapshot, cluster: str) -> None:
        self._snapshot = snapshot
        self._cluster = cluster

    @property
    def head(self) -> Head:
        """The record that this view ends at."""
        row = self._snapshot.row("SELECT seq, hash FROM log_head WHERE cluster = ?", self._cluster)
        return EMPTY if row is None else Head(*row)

    @property
    def published(self) -> Mapping[str, Any]:
        """The body of the newest `published` event."""
        row = self._snapshot.row("SELECT body FROM published WHERE cluster = ?", self._cluster)
        return {} if row is None else dict(json.loads(row[0]))

    def certificate(self, serial: int) -> CertificateRecord | None:
        """Find a leaf by serial."""
        return self._one("serial = ?", _format_serial(serial))

    def current(self, role: str, name: str) -> CertificateRecord | None:
        """Find the newest issued leaf of a role and name."""
        return self._one("role = ? AND name = ? AND issued_seq > 0 ORDER BY issued_seq DESC LIMIT 1", role, name)

    def by_fingerprint(self, fingerprint: str) -> CertificateRecord | None:
        """Find a leaf by fingerprint."""
        return self._one("fingerprint = ?", fingerprint)

    def certificates(
        self, *, role: str | None = None, name: str | None = None, statuses: Sequence[str] | None = None
    ) -> Iterator[CertificateRecord]:
        """Stream the leaves in the order of their reservation."""
        where, parameters = "", []
        for column, value in (("role", role), ("name", name)):
            if value is not None:
                where += f" AND {column} = ?"
                parameters.append(value)
        if statuses is not None:
            where += f" AND status IN ({', '.join('?' * len(statuses))})"
            parameters += statuses
        rows = self._snapshot.rows(f"{_SELECT}{where} ORDER BY position", self._cluster, *parameters)
        return map(_parse_certificate, rows)

    def authorities(self) -> Sequence[AuthorityRecord]:
        """The CA generations, oldest first."""
        statement = "SELECT entry FROM authority WHERE cluster = ? ORDER BY generation"
        return [parse_authority(json.loads(row[0])) for row in self._snapshot.rows(statement, self._cluster)]

    def _one(self, where: str, *parameters: str) -> CertificateRecord | None:
        row = self._snapshot.row(f"{_SELECT} AND {where}", self._cluster, *parameters)
        return None if row is None else _parse_certificate(row)
