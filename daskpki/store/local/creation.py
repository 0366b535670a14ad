"""How a local store comes to be: complete, or not at all.

The database is made under a temporary name, its first key slot included, and linked into place at the end. A second
creator waits at the directory's lock, and then finds the store there.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from daskpki.errors import AlreadyExistsError
from daskpki.files import make_private_directory, os_error, remove_leftovers, sync_directory
from daskpki.store.local.database import NAME, connect
from daskpki.store.local.faults import translated
from daskpki.store.local.filesystem import refuse_network_filesystem
from daskpki.store.local.schema import APPLICATION_ID, FORMAT, SCHEMA
from daskpki.store.local.slots import Slot, insert_slot

FirstSlot = Callable[[str], Slot]
"""Makes the first key slot of the store with that id; called before anything is written."""


def create_database(directory: Path, first_slot: FirstSlot, now: int) -> None:
    """Make the database of a new store; AlreadyExistsError if there is one."""
    make_private_directory(directory)
    refuse_network_filesystem(directory)
    target = directory / NAME
    with locked(directory):
        if os.path.lexists(target):
            raise AlreadyExistsError(f"there is a store in {directory}")
        remove_leftovers(directory)
        store_id = secrets.token_hex(8)
        slot = first_slot(store_id)
        try:
            _build(directory, store_id, slot, now)
        except OSError as error:
            raise os_error(error, target) from error
        finally:
            remove_leftovers(directory)


def _build(directory: Path, store_id: str, slot: Slot, now: int) -> None:
    temporary = directory / f".tmp-{NAME}-{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        _fill(temporary, store_id, slot, now)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.link(temporary, directory / NAME)
    sync_directory(directory)


def _fill(path: Path, store_id: str, slot: Slot, now: int) -> None:
    with translated(path), closing(connect(path, new=True)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _statements(SCHEMA):
            connection.execute(statement)
        connection.execute("INSERT INTO meta VALUES (?, ?)", (store_id, now))
        insert_slot(connection, slot)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={FORMAT}")
        connection.execute("COMMIT")  # closing the last connection moves the WAL into the file and removes it


def _statements(script: str) -> Iterator[str]:
    """The script's statements; `executescript` would commit each for itself."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's advisory lock, which the system drops when the process ends."""
    import fcntl

    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
