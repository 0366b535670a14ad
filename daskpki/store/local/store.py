"""The local store as a whole: the two ports, the key slots, and the master key that is fetched when first needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from daskpki.confidential import Confidential
from daskpki.store.local.database import BUSY_SECONDS, Database
from daskpki.store.local.record_log import LocalRecordLog
from daskpki.store.local.secret_store import LocalSecretStore
from daskpki.store.local.slots import KeySlots
from daskpki.store.local.unlocking import Unlocking, first_slot, unlock
from daskpki.store.port import Judge
from daskpki.store.sealing import generate_key
from daskpki.store.seen import Seen


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
        self._seen = Seen(seen / f"{self.id}.json" if seen else None)
        self.slots = KeySlots(self._database, self.unlock, clock, ways.cost)
        self._secrets = LocalSecretStore(self._database, self, clock)

    @property
    def id(self) -> str:
        """What the store is called in its sealings, whatever its directory."""
        return self._database.store_id

    @property
    def url(self) -> str:
        """See Store."""
        return f"local:{self._directory}"

    @property
    def secrets(self) -> LocalSecretStore:
        """See Store."""
        return self._secrets

    def log(self, cluster: str, judge: Judge | None = None) -> LocalRecordLog:
        """See Store."""
        return LocalRecordLog(self._database, self, self._seen, cluster, judge)

    def events(self, cluster: str) -> LocalRecordLog:
        """See Store; a cluster's name has no slash."""
        return LocalRecordLog(self._database, self, self._seen, f"{cluster}/events")

    @property
    def memory(self) -> Seen:
        """See Store."""
        return self._seen

    def clusters(self) -> Sequence[str]:
        """See Store."""
        with self._database.read() as connection:
            return [
                row[0]
                for row in connection.execute("SELECT cluster FROM log_head WHERE cluster NOT LIKE '%/%' ORDER BY 1")
            ]

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make the block's writes one transaction: durable together when it ends, undone together when it raises.

        It holds the store's one writer's lock meanwhile, so nothing slow belongs in it.
        """
        self.unlock()
        with self._database.write():
            yield

    def close(self) -> None:
        """See Store; a second call does nothing."""
        self._seen.save()
        self._database.close()
        self._master = None

    @property
    def is_unlocked(self) -> bool:
        """Whether the master key was asked for already."""
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
    from daskpki.store.local.creation import create_database

    create_database(directory, first_slot(ways, generate_key(), clock), int(clock()))
    return LocalStore(directory, ways, seen=seen, clock=clock)
