"""The local store as a whole: the two ports, the key slots, the master key, and its creation.

The database is created under a temporary name, its first key slot included, and linked into place at the end, so a
crash leaves a complete store or none. A second creator waits for the directory's lock, and then finds the store there.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path

from daskpki.confidential import Confidential
from daskpki.errors import AlreadyExistsError
from daskpki.files import locked, make_private_directory, os_error, remove_leftovers, sync_directory
from daskpki.store.encryption import random_key
from daskpki.store.local.database import (
    APPLICATION_ID,
    BUSY_SECONDS,
    FORMAT,
    NAME,
    Database,
    connect_database,
    refuse_network_filesystem,
    translated,
)
from daskpki.store.local.key_slots import KeySlots, Slot, Unlocking, first_slot, insert_slot, unlock
from daskpki.store.local.record_log import LocalRecordLog
from daskpki.store.local.secret_store import LocalSecretStore
from daskpki.store.port import Judge
from daskpki.store.rollback_guard import RollbackGuard


def create_database(directory: Path, first_slot: Callable[[str], Slot], now: int) -> None:
    """Create the database of a new store; AlreadyExistsError if there is one.

    `first_slot` creates a key slot for the store with that id, before anything is written.
    """
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
            with published(target) as temporary:
                _fill(temporary, store_id, slot, now)
        finally:
            remove_leftovers(directory)


@contextmanager
def published(file: Path) -> Iterator[Path]:
    """Create a private temporary file beside `file`; it gets that name once the block has ended and the disk has it."""
    temporary = file.with_name(f".tmp-{file.name}-{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            yield temporary
            os.fsync(descriptor)
            os.link(temporary, file)
            sync_directory(file.parent)
        finally:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        raise AlreadyExistsError(f"{file} exists", hint="choose another place, or move it away") from None
    except OSError as error:
        raise os_error(error, file) from error


def _fill(path: Path, store_id: str, slot: Slot, now: int) -> None:
    with translated(path), closing(connect_database(path, new=True)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _statements(files(__package__).joinpath("schema.sql").read_text("utf-8")):
            connection.execute(statement)
        connection.execute("INSERT INTO meta VALUES (?, ?)", (store_id, now))
        insert_slot(connection, slot)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={FORMAT}")
        connection.execute("COMMIT")  # closing the last connection moves the WAL into the file and removes it


def _statements(script: str) -> Iterator[str]:
    """Split the script into its statements; `executescript` would commit each of them."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


class LocalStore:
    """See `daskpki.store.port.Store`. Opening it takes no key: lists and records are in the clear.

    `seen` is the directory of the rollback guards (None: no guard); `clock` returns seconds since the epoch. `id` is in
    the associated data of all payloads, and does not depend on the directory.
    """

    def __init__(
        self,
        directory: Path,
        ways: Unlocking,
        *,
        seen: Path | None,
        clock: Callable[[], float],
        busy_seconds: float = BUSY_SECONDS,
    ) -> None:
        self.url = f"local:{directory}"
        self._database = Database(directory, busy_seconds=busy_seconds)
        self.id = self._database.store_id
        self._ways = ways
        self._master: Confidential | None = None
        self.memory = RollbackGuard(seen / f"{self.id}.json" if seen else None)
        self.slots = KeySlots(self._database, self.unlock, clock, ways.cost)
        self.secrets = LocalSecretStore(self._database, self, clock)

    def log(self, cluster: str, judge: Judge | None = None) -> LocalRecordLog:
        """A cluster's log."""
        return LocalRecordLog(self._database, self, self.memory, cluster, judge)

    def events(self, cluster: str) -> LocalRecordLog:
        """The log of a cluster's user secrets; a cluster's name has no slash."""
        return LocalRecordLog(self._database, self, self.memory, f"{cluster}/events")

    def clusters(self) -> Sequence[str]:
        """The names of the clusters in the store."""
        with self._database.read() as connection:
            return [
                row[0]
                for row in connection.execute("SELECT cluster FROM log_head WHERE cluster NOT LIKE '%/%' ORDER BY 1")
            ]

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make the block's writes one transaction: durable together when it ends, undone together when it raises.

        The block holds the lock of the store's only writer, so it should be short.
        """
        self.unlock()
        with self._database.write():
            yield

    def close(self) -> None:
        """Save what this user has seen, and close the database; a second call does nothing."""
        self.memory.save()
        self._database.close()
        self._master = None

    @property
    def is_unlocked(self) -> bool:
        """True if the master key is known already."""
        return self._master is not None

    def unlock(self) -> Confidential:
        """The master key, unlocked at the first call; AccessDeniedError with the ways to unlock it."""
        if self._master is None:
            self._master = unlock(self._ways, self.id, self.slots.list())
        return self._master


def create_local_store(
    directory: Path, ways: Unlocking, *, seen: Path | None, clock: Callable[[], float]
) -> LocalStore:
    """Create a store with a first key slot, and open it; AlreadyExistsError, AccessDeniedError with the ways out."""
    create_database(directory, first_slot(ways, random_key(), clock), int(clock()))
    return LocalStore(directory, ways, seen=seen, clock=clock)
