"""Backs up a local store to one file, consistently while others write, and restores it, never over another store.

The file is a database of the same form, with the sealed payloads and the key slots of the store. So a backup is made
without a key, but nobody can use it without one. Its log is in the clear, as the store's is.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from daskpki.errors import AlreadyExistsError, CorruptError, DaskpkiError, NotTrustedError
from daskpki.files import check_private, locked, make_private_directory, published, remove_leftovers
from daskpki.records import EMPTY, Head
from daskpki.store.local.database import (
    NAME,
    DatabaseSnapshot,
    check_application,
    check_files,
    connect_database,
    read_format,
    refuse_network_filesystem,
    translated,
)
from daskpki.store.local.record_log import holds
from daskpki.store.rollback_guard import RollbackGuard


class Contents(NamedTuple):
    """The contents of a backup: the id of its store, and the head of each cluster's log."""

    store_id: str
    heads: Mapping[str, Head]


def write_backup(directory: Path, file: Path) -> Contents:
    """Copy the store of that directory, as of one moment, to a new file; AlreadyExistsError, NotFoundError."""
    database = directory / NAME
    check_files(database)
    with published(file) as temporary, translated(database), closing(connect_database(database)) as source:
        _copy(source, temporary)
    return read_backup(file)


def read_backup(file: Path) -> Contents:
    """Read a backup, and check all its pages; CorruptError, NotTrustedError for a newer format."""
    with _opened(file) as connection:
        answer = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if answer != "ok":
            raise CorruptError(f"{file} is damaged: {answer}", hint="use another backup")
        rows = connection.execute("SELECT cluster, seq, hash FROM log_head")
        return Contents(read_format(connection, file), {row[0]: Head(*row[1:]) for row in rows})


def restore_backup(file: Path, directory: Path, seen: Path, *, accept_older: bool = False) -> Contents:
    """Restore the store of that directory from a backup; AlreadyExistsError if there is a store.

    NotTrustedError if this user has seen a later state of the store (`seen`); `accept_older` forgets that.
    """
    contents = read_backup(file)
    memory = RollbackGuard(seen / f"{contents.store_id}.json")
    if not accept_older:
        _check_not_older(file, contents, memory)
    make_private_directory(directory)
    refuse_network_filesystem(directory)
    with locked(directory):
        for name in (NAME, f"{NAME}-wal", f"{NAME}-shm"):  # SQLite would apply a write-ahead log to any database there
            if os.path.lexists(directory / name):
                raise AlreadyExistsError(
                    f"{directory / name} exists, and a backup is never restored over another store",
                    hint="restore to another place (--store local:/path), or move that store away as a whole",
                )
        remove_leftovers(directory)
        with published(directory / NAME) as temporary, _opened(file) as source:
            _copy(source, temporary)
    if accept_older:
        memory.forget()
    return contents


def _check_not_older(file: Path, contents: Contents, memory: RollbackGuard) -> None:
    with _opened(file) as connection:
        for cluster in memory.clusters():
            kept = partial(holds, DatabaseSnapshot(file, connection, owned=False), cluster)
            try:
                memory.verify(cluster, contents.heads.get(cluster, EMPTY), kept)
            except NotTrustedError as error:
                raise NotTrustedError(
                    f"{file} is older than the state of this store that this user has seen: {error}",
                    hint="--accept-older restores it nevertheless; certificates issued since then are missing in it",
                ) from error


@contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    """Open a backup read-only, without the files that SQLite keeps beside a live database."""
    check_private(file)
    address = f"file:{quote(os.fsencode(file.absolute()))}?mode=ro&immutable=1"
    with translated(file), closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
        check_application(connection, file)
        connection.execute("PRAGMA trusted_schema=OFF")
        read_format(connection, file)
        yield connection


def _copy(source: sqlite3.Connection, target: Path) -> None:
    """Copy all pages as of one moment; the result is one file, and becomes a live store when it is first opened."""
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        source.backup(copy)
        mode = copy.execute("PRAGMA journal_mode=DELETE").fetchone()[0]
        if mode != "delete":
            raise DaskpkiError(f"SQLite answers with journal mode {mode!r} instead of 'delete'")
