"""The local store as a whole: the two ports, the key slots, the master key, and its creation.

The database is created under a temporary name, its first key slot included, and linked into place at the end, so a
crash leaves a complete store or none. A second creator waits for the directory's lock, and then finds the store there.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from daskpki.confidential import Confidential
from daskpki.errors import AlreadyExistsError
from daskpki.files import locked, make_private_directory, published, remove_leftovers
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


def create_local_store(
    directory: Path, ways: Unlocking, *, seen: Path | None, clock: Callable[[], float]
) -> LocalStore:
    """Create a store with a first key slot, and open it; AlreadyExistsError, AccessDeniedError with the ways out."""
    make_private_directory(directory)
    refuse_network_filesystem(directory)
    target = directory / NAME
    with locked(directory):
        if os.path.lexists(target):
            raise AlreadyExistsError(f"there is a store in {directory}")
        remove_leftovers(directory)
        store_id, now = secrets.token_hex(8), int(clock())
        slot = first_slot(ways, store_id, random_key(), now)  # before anything is written
        try:
            with published(target) as temporary:
                _fill(temporary, store_id, slot, now)
        finally:
            remove_leftovers(directory)
    return LocalStore(directory, ways, seen=seen, clock=clock)


def _fill(path: Path, store_id: str, slot: Slot, now: int) -> None:
    with translated(path), closing(connect_database(path, new=True)) as connection:
        from importlib.resources import files  # loads much that no other command needs

        schema = files(__package__).joinpath("schema.sql").read_text("utf-8")
        connection.executescript(f"BEGIN IMMEDIATE;{schema}")  # it commits nothing by itself
        connection.execute("INSERT INTO meta VALUES (?, ?)", (store_id, now))
        insert_slot(connection, slot)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={FORMAT}")
        connection.execute("COMMIT")  # closing the last connection moves the WAL into the file and removes it


class LocalStore:
    """A `daskpki.store.port.Store` in a SQLite database. Opening it takes no key: lists and records are in the clear.

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
            rows = connection.execute("SELECT cluster FROM log_head WHERE cluster NOT LIKE '%/%' ORDER BY 1")
            return [cluster for (cluster,) in rows]

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
