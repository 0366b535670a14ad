"""What the local store keeps in place of archived records, and how it lets go of those, within one transaction.

The table is made by the first archive, which also raises the store's format: a daskpki that knows nothing of archives
would take such a log for a broken one.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Final

from daskpki.archived import encode_base, parse_base
from daskpki.errors import CorruptError
from daskpki.inventory import NO_BASE, Base
from daskpki.records import Head
from daskpki.store.local.database import FORMAT_ARCHIVED, Snapshot
from daskpki.store.local.inventory import format_serial, restore_base

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS archived (
    cluster TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID
"""
_RESERVED: Final = (
    "SELECT json_extract(body, '$.serial') FROM record WHERE cluster = ? AND seq <= ? AND kind = 'reserved'"
)


def read_base(snapshot: Snapshot, cluster: str) -> Base:
    """What stands for the archived records of that log; CorruptError."""
    if snapshot.row("SELECT 1 FROM sqlite_schema WHERE name = 'archived'") is None:
        return NO_BASE
    row = snapshot.row("SELECT body FROM archived WHERE cluster = ?", cluster)
    try:
        return NO_BASE if row is None else parse_base(json.loads(row[0]))
    except ValueError as error:
        raise CorruptError("what stands for the archived records is damaged") from error


def hash_at(snapshot: Snapshot, cluster: str, seq: int) -> str | None:
    """The hash of that record, if it is kept here, or is the last one that is not."""
    row = snapshot.row("SELECT hash FROM record WHERE cluster = ? AND seq = ?", cluster, seq)
    if row is not None:
        return str(row[0])
    begin = read_base(snapshot, cluster).head
    return begin.hash if begin.seq == seq else None


def holds(snapshot: Snapshot, cluster: str, seen: Head) -> bool:
    """Whether the log has that very record; of one inside an archive nothing else is known than that it was there."""
    found = hash_at(snapshot, cluster, seen.seq)
    return found == seen.hash if found else seen.seq < read_base(snapshot, cluster).head.seq


def write_base(connection: sqlite3.Connection, cluster: str, base: Base) -> None:
    """Let what is said stand for the records up to its head."""
    connection.execute(_TABLE)
    connection.execute(f"PRAGMA user_version={FORMAT_ARCHIVED}")
    connection.execute("INSERT OR REPLACE INTO archived VALUES (?, ?)", (cluster, json.dumps(encode_base(base))))


def begin_with(connection: sqlite3.Connection, cluster: str, base: Base) -> None:
    """Let an empty log begin there."""
    write_base(connection, cluster, base)
    restore_base(connection, cluster, base)


def erase(connection: sqlite3.Connection, cluster: str, before: Base, base: Base) -> None:
    """Erase the records that `base` stands for from now on, and the leaves that nothing later is about."""
    gone = {row[0] for row in connection.execute(_RESERVED, (cluster, base.head.seq))}
    gone |= {format_serial(entry.serial) for entry in before.certificates}
    gone -= {format_serial(entry.serial) for entry in base.certificates}
    (guard,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'record_is_never_deleted'").fetchone()
    connection.execute("DROP TRIGGER record_is_never_deleted")
    connection.execute("DELETE FROM record WHERE cluster = ? AND seq <= ?", (cluster, base.head.seq))
    connection.execute(guard)
    rows = [(cluster, serial) for serial in gone]
    connection.executemany("DELETE FROM certificate WHERE cluster = ? AND serial = ?", rows)
    write_base(connection, cluster, base)
