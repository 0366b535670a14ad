"""A local store and its surroundings on disk, as the tests make, open and damage it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from daskpki.settings import LocalUrl, home
from daskpki.store.encryption import Cost
from daskpki.store.local.database import BUSY_SECONDS, NAME
from daskpki.store.local.key_slots import Unlocking, with_environment
from daskpki.store.local.store import LocalStore, create_local_store
from daskpki.store.opening import local_directory

CHEAP = Cost(4, 1, 1)
"""scrypt that takes no time, where it is not the subject."""


def create_store(url: LocalUrl, *, unlock: Unlocking, environ: Mapping[str, str] = os.environ) -> LocalStore:
    """A new local store, as `daskpki init-ca` makes one."""
    ways = with_environment(unlock, environ)
    return create_local_store(local_directory(url, environ), ways, seen=home(environ) / "seen", clock=time.time)


class LocalPlace(NamedTuple):
    """A directory with the store, its key file and what was seen of it; also the suites' `Backing`."""

    root: Path

    @property
    def directory(self) -> Path:
        return self.root / "store"

    @property
    def database(self) -> Path:
        return self.directory / NAME

    @property
    def key_file(self) -> Path:
        return self.root / "store.key"

    @property
    def seen(self) -> Path:
        return self.root / "seen"

    def create(self, ways: Unlocking | None = None) -> LocalStore:
        return create_local_store(self.directory, ways or self.ways, seen=self.seen, clock=time.time)

    def factory(self, ways: Unlocking | None = None) -> LocalStore:
        patience = 0.1 if self._impatient.exists() else BUSY_SECONDS
        return LocalStore(self.directory, ways or self.ways, seen=self.seen, clock=time.time, busy_seconds=patience)

    @property
    def _impatient(self) -> Path:
        """Says that handles do not wait for other writers, so that `unavailable` shows at once."""
        return self.root / "impatient"

    @property
    def ways(self) -> Unlocking:
        return Unlocking(key_file=self.key_file, cost=CHEAP)

    def sql(self, statement: str, *parameters: Any) -> list[Any]:
        """What someone with an SQLite shell does to the file."""
        with closing(sqlite3.connect(self.database, isolation_level=None)) as connection:
            return connection.execute(statement, parameters).fetchall()

    def foreign(self, secret: str) -> None:
        self.sql("INSERT INTO secret VALUES (?, '{}', '{}', 'etag-1', 1700000000, x'00', x'00')", secret)
        self.sql("INSERT INTO version VALUES (?, 1, 'ENABLED', 1700000000, x'00')", secret)

    def corrupt(self, secret: str, number: int) -> None:
        self.sql("DROP TRIGGER version_is_immutable")
        row = self.sql("SELECT sealed FROM version WHERE secret = ? AND number = ?", secret, number)
        damaged = bytes([row[0][0][0] ^ 1]) + row[0][0][1:]
        self.sql("UPDATE version SET sealed = ? WHERE secret = ? AND number = ?", damaged, secret, number)

    def make_stale(self, secret: str) -> None:
        """`latest` is never stale here."""

    @contextmanager
    def unavailable(self) -> Iterator[None]:
        """Another process is writing, and does not end."""
        with closing(sqlite3.connect(self.database, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._impatient.touch()
            yield
            self._impatient.unlink()

    @contextmanager
    def denied(self) -> Iterator[None]:
        """The key file is another store's."""
        right = self.key_file.read_bytes()
        self.key_file.write_bytes(bytes(32))
        yield
        self.key_file.write_bytes(right)
