"""From a store's URL to an open store: which implementation, which directory, and by what it is unlocked.

A local store without a path lies in `store` under daskpki's home, and what was seen of any store's log in `seen`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from daskpki.errors import AlreadyExistsError, NotFoundError
from daskpki.settings import GsmUrl, LocalUrl, home
from daskpki.store.local.key_slots import Prompt, Unlocking, with_environment
from daskpki.store.local.store import LocalStore, create_local_store
from daskpki.store.port import Store

if TYPE_CHECKING:
    from daskpki.store.gsm.placement import GsmOptions

__all__ = ["Prompt", "Unlocking", "create_store", "open_store"]


def open_store(
    url: LocalUrl | GsmUrl,
    *,
    unlock: Unlocking = Unlocking(),  # noqa: B008 - a tuple, so it cannot change
    create: bool = False,
    environ: Mapping[str, str] = os.environ,
    clock: Callable[[], float] = time.time,
    placement: GsmOptions | None = None,
) -> Store:
    """The store of that URL; NotFoundError when there is none, unless `create` says that a local one is made.

    A local store is unlocked when a payload or a commit first needs it, by the ways of `unlock` and of
    DASKPKI_KEY_FILE and DASKPKI_PASSPHRASE_FILE in `environ`. `placement` says how a new cluster's secrets in Secret
    Manager are created.
    """
    if isinstance(url, GsmUrl):
        from daskpki.store.gsm.store import open_gsm

        return open_gsm(url, environ=environ, options=placement, seen=home(environ) / "seen")
    directory = local_directory(url, environ)
    ways = with_environment(unlock, environ)
    try:
        return LocalStore(directory, ways, seen=home(environ) / "seen", clock=clock)
    except NotFoundError:
        if not create:
            raise
    try:
        return create_local_store(directory, ways, seen=home(environ) / "seen", clock=clock)
    except AlreadyExistsError:  # another process made it just now
        return LocalStore(directory, ways, seen=home(environ) / "seen", clock=clock)


def create_store(
    url: LocalUrl,
    *,
    unlock: Unlocking,
    environ: Mapping[str, str] = os.environ,
    clock: Callable[[], float] = time.time,
) -> LocalStore:
    """A new local store; AlreadyExistsError when there is one."""
    directory = local_directory(url, environ)
    return create_local_store(directory, with_environment(unlock, environ), seen=home(environ) / "seen", clock=clock)


def local_directory(url: LocalUrl, environ: Mapping[str, str]) -> Path:
    """Where a local store lies."""
    return url.path or home(environ) / "store"
