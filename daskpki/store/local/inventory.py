"""The local store's `Inventory`, and the tables behind it, which follow from the records.

The tables are updated in the record's own transaction: an entry is loaded, changed by `daskpki.inventory`'s
`certificate_after` or `authority_after`, and written back. The inventory is SQL over one snapshot, at a cost that does
not grow with the number of leaves.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from daskpki.inventory import (
    AUTHORITY_KINDS,
    CERTIFICATE_KINDS,
    AuthorityRecord,
    CertificateRecord,
    authority_after,
    certificate_after,
)
from daskpki.records import EMPTY, ISSUED, PUBLISHED, RESERVED, Head, Record
from daskpki.store.local.database import Snapshot

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


def apply_records(connection: sqlite3.Connection, cluster: str, records: Sequence[Record]) -> set[int]:
    """Bring the tables up to date with new records, and return the positions of the certificates that changed.

    Kinds that this version does not know change nothing.
    """
    changed: set[int] = set()
    for record in records:
        if record.kind in CERTIFICATE_KINDS:
            changed |= _apply_to_certificate(connection, cluster, record)
        elif record.kind in AUTHORITY_KINDS:
            _apply_to_authority(connection, cluster, record)
        elif record.kind == PUBLISHED:
            _write_published(connection, cluster, record.body)
    return changed


def _apply_to_certificate(connection: sqlite3.Connection, cluster: str, record: Record) -> set[int]:
    serial = format_serial(int(record.body["serial"], 16))
    row = None if record.kind == RESERVED else connection.execute(_READ, (cluster, serial)).fetchone()
    entry = certificate_after(None if row is None else parse_certificate(row[:-1]), record)
    issued_seq = None if row is None else row[-1]
    changed = []
    if record.kind == ISSUED:
        changed = connection.execute(_SUPERSEDE, (cluster, entry.role, entry.name, serial)).fetchall()
        issued_seq = record.seq
    fields = entry._asdict() | {"serial": format_serial(entry.serial), "sans": json.dumps(entry.sans)}
    changed += connection.execute(_WRITE, (cluster, *fields.values(), issued_seq)).fetchall()
    return {row[0] for row in changed}


def _apply_to_authority(connection: sqlite3.Connection, cluster: str, record: Record) -> None:
    generation = record.body["generation"]
    row = connection.execute(
        "SELECT entry FROM authority WHERE cluster = ? AND generation = ?", (cluster, generation)
    ).fetchone()
    _write_authority(connection, cluster, authority_after(None if row is None else parse_authority(row[0]), record))


def _write_authority(connection: sqlite3.Connection, cluster: str, entry: AuthorityRecord) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO authority VALUES (?, ?, ?)", (cluster, entry.generation, json.dumps(entry._asdict()))
    )


def _write_published(connection: sqlite3.Connection, cluster: str, body: Mapping[str, Any]) -> None:
    connection.execute(
        "INSERT INTO published VALUES (?, ?, ?) ON CONFLICT (cluster) DO UPDATE SET epoch = excluded.epoch, "
        "body = excluded.body WHERE excluded.epoch > epoch",
        (cluster, body["epoch"], json.dumps(dict(body))),
    )


def clear_index(connection: sqlite3.Connection, cluster: str) -> None:
    """Clear the tables that follow from the records, before these are applied again."""
    for table in ("certificate", "authority", "published"):
        connection.execute(f"DELETE FROM {table} WHERE cluster = ?", (cluster,))  # noqa: S608 - names from the line above


def format_serial(serial: int) -> str:
    """The key of a serial, whose 160 bits do not fit SQLite's integers."""
    return f"{serial:x}"


def parse_certificate(row: Sequence[Any]) -> CertificateRecord:
    """The entry of a row with CERTIFICATE_COLUMNS."""
    fields = [*row]  # filled in by place: `_replace` would take most of the time of a long list
    fields[_SERIAL] = int(row[_SERIAL], 16)
    fields[_SANS] = () if row[_SANS] == "[]" else tuple(json.loads(row[_SANS]))
    fields[_SUPERSEDED] = bool(row[_SUPERSEDED])
    return CertificateRecord._make(fields)


def parse_authority(text: str) -> AuthorityRecord:
    """The entry of a row of `authority`."""
    fields: dict[str, Any] = json.loads(text)
    return AuthorityRecord(**fields | {"chain": tuple(fields["chain"])})


_SELECT: Final = f"SELECT {CERTIFICATE_COLUMNS} FROM certificate WHERE cluster = ?"  # noqa: S608 - our own fields


class LocalInventory:
    """See `daskpki.inventory.Inventory`."""

    def __init__(self, snapshot: Snapshot, cluster: str) -> None:
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
        return self._one("serial = ?", format_serial(serial))

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
        return map(parse_certificate, rows)

    def authorities(self) -> Sequence[AuthorityRecord]:
        """The CA generations, oldest first."""
        statement = "SELECT entry FROM authority WHERE cluster = ? ORDER BY generation"
        return [parse_authority(row[0]) for row in self._snapshot.rows(statement, self._cluster)]

    def _one(self, where: str, *parameters: str) -> CertificateRecord | None:
        row = self._snapshot.row(f"{_SELECT} AND {where}", self._cluster, *parameters)
        return None if row is None else parse_certificate(row)
