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
            with published(target) as temporary:
                _fill(temporary, store_id, slot, now)
        finally:
            remove_leftovers(directory)


@contextmanager
def published(file: Path) -> Iterator[Path]:
    """A private temporary file beside `file`, which takes that name once the block has ended and the disk has it."""
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
    """The script's statements; `executescript` would commit each for itself."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


class LocalStore:
    """See `daskpki.store.port.Store`. Opening it takes no key: lists and records are in the clear.

    `seen` is the directory that remembers log heads outside the store (None: nowhere); `clock` gives seconds since the
    epoch.
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
        self._directory = directory
        self._database = Database(directory, busy_seconds=busy_seconds)
        self._ways = ways
        self._master: Confidential | None = None
        self._seen = RollbackGuard(seen / f"{self.id}.json" if seen else None)
        self.slots = KeySlots(self._database, self.unlock, clock, ways.cost)
        self._secrets = LocalSecretStore(self._database, self, clock)

    @property
    def id(self) -> str:
        """The store's id, which its sealings name, and which does not depend on its directory."""
        return self._database.store_id

    @property
    def url(self) -> str:
        """The store's URL."""
        return f"local:{self._directory}"

    @property
    def secrets(self) -> LocalSecretStore:
        """The payloads."""
        return self._secrets

    def log(self, cluster: str, judge: Judge | None = None) -> LocalRecordLog:
        """A cluster's log."""
        return LocalRecordLog(self._database, self, self._seen, cluster, judge)

    def events(self, cluster: str) -> LocalRecordLog:
        """The log of a cluster's other secrets; a cluster's name has no slash."""
        return LocalRecordLog(self._database, self, self._seen, f"{cluster}/events")

    @property
    def memory(self) -> RollbackGuard:
        """The log heads and trust documents of the store that this user has seen."""
        return self._seen

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

        The block has the store's one writer's lock, so nothing slow belongs in it.
        """
        self.unlock()
        with self._database.write():
            yield

    def close(self) -> None:
        """Release what the store has open; a second call does nothing."""
        self._seen.save()
        self._database.close()
        self._master = None

    @property
    def is_unlocked(self) -> bool:
        """True if the master key was asked for already."""
        return self._master is not None

    def unlock(self) -> Confidential:
        """The master key, asked for once; AccessDeniedError with the ways to it."""
        if self._master is None:
            self._master = unlock(self._ways, self.id, self.slots.list())
        return self._master


def create_local_store(
    directory: Path, ways: Unlocking, *, seen: Path | None, clock: Callable[[], float]
) -> LocalStore:
    """Make a store with a first key slot, and open it; AlreadyExistsError, AccessDeniedError with the ways out."""
    create_database(directory, first_slot(ways, random_key(), clock), int(clock()))
    return LocalStore(directory, ways, seen=seen, clock=clock)
