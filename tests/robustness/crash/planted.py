"""Bugs to be found: a sweep that does not fail on them is worth nothing.

`python -m tests.robustness.crash.planted BUG ARGUMENTS...` runs daskpki with a bug in the local store; `forgetful` has
one on Secret Manager, within this process.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

from daskpki.confidential import Confidential
from daskpki.errors import UnavailableError
from daskpki.store.append_chain import AppendChain, ChainHead, Outcome, Tip
from daskpki.store.local import database
from daskpki.store.local.secret_store import LocalSecretStore
from daskpki.store.local.store import LocalStore


def no_sync() -> None:
    """The database does not wait for the disk."""
    set_up = database._set_up

    def careless(connection: sqlite3.Connection) -> None:
        set_up(connection)
        connection.execute("PRAGMA synchronous=OFF")

    _replace(database, "_set_up", careless)


def write_behind() -> None:
    """Payloads are written when the store is closed, after the log has confirmed them."""
    add, close = LocalSecretStore.add, LocalStore.close
    pending: list[tuple[LocalSecretStore, str, Confidential]] = []

    def later(self: LocalSecretStore, secret: str, payload: Confidential) -> int:
        pending.append((self, secret, payload))
        return next((version.number for version in self.versions(secret)), 0) + 1

    def flush(self: LocalStore) -> None:
        for secrets, secret, payload in pending:
            add(secrets, secret, payload)
        close(self)

    _replace(LocalSecretStore, "add", later)
    _replace(LocalStore, "close", flush)


BUGS: Final[dict[str, Callable[[], None]]] = {"no-sync": no_sync, "write-behind": write_behind}


@contextmanager
def forgetful() -> Iterator[None]:
    """On Secret Manager, a commit whose answer was lost counts as done, without a look."""
    propose = AppendChain.propose

    def careless(self: AppendChain[Any], tip: Tip[Any], payload: Any) -> Outcome[Any]:
        try:
            return propose(self, tip, payload)
        except UnavailableError:
            number = tip.newest + 1
            return Outcome(True, Tip(ChainHead(number, payload, self._codec.link(payload)), number))

    with patch.object(AppendChain, "propose", careless):
        yield


@contextmanager
def heedless() -> Iterator[None]:
    """On Secret Manager, whatever was added counts, whoever was there first: no etag, no comparison of numbers."""

    def careless(self: AppendChain[Any], _tip: Tip[Any], payload: Any) -> Outcome[Any]:
        number = self._store.add(self._secret, self._codec.encode(payload))
        return Outcome(True, Tip(ChainHead(number, payload, self._codec.link(payload)), number))

    with patch.object(AppendChain, "propose", careless):
        yield


def _replace(owner: Any, name: str, value: object) -> None:
    setattr(owner, name, value)


if __name__ == "__main__":
    from daskpki.cli.app import main

    BUGS[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
