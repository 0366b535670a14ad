"""Opens the store that a URL names: chooses the implementation, its directory and the ways to unlock it.

A local store without a path is in `store` below daskpki's home directory, the rollback guards are in `seen`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from daskpki.errors import AlreadyExistsError, NotFoundError, UsageError
from daskpki.settings import STORES, GsmUrl, LocalUrl, PluginUrl, StoreUrl, home
from daskpki.store.local.key_slots import Unlocking, with_environment
from daskpki.store.local.store import LocalStore, create_local_store
from daskpki.store.port import Store

if TYPE_CHECKING:
    from daskpki.store.gsm.secrets import GsmOptions


def open_store(
    url: StoreUrl,
    *,
    unlock: Unlocking = Unlocking(),  # noqa: B008 - a tuple, so it cannot change
    create: bool = False,
    environ: Mapping[str, str] = os.environ,
    placement: GsmOptions | None = None,
) -> Store:
    """Open the store of that URL; NotFoundError if it does not exist, unless `create` permits making a local one.

    A local store is unlocked when a payload or a commit first needs it, by the ways in `unlock`, or by DASKPKI_KEY_FILE
    and DASKPKI_PASSPHRASE_FILE in `environ`. `placement` has the options for a new cluster's secrets in Secret Manager.
    A store of another scheme is opened by the function that a package names in the entry point group `daskpki.stores`;
    it is called with the URL's text and `environ`.

        with closing(open_store(parse_store_url("gsm://my-project"))) as store:
            print(store.clusters())
    """
    if isinstance(url, PluginUrl):
        return _open_plugin(url, environ)
    if isinstance(url, GsmUrl):
        from daskpki.store.gsm.store import GsmStore

        return GsmStore(url, environ=environ, options=placement, seen=home(environ) / "seen")
    ways = with_environment(unlock, environ)
    reopen = partial(LocalStore, local_directory(url, environ), ways, seen=home(environ) / "seen", clock=time.time)
    try:
        return reopen()
    except NotFoundError:
        if not create:
            raise
    try:
        return create_local_store(local_directory(url, environ), ways, seen=home(environ) / "seen", clock=time.time)
    except AlreadyExistsError:  # another process made it just now
        return reopen()


def _open_plugin(url: PluginUrl, environ: Mapping[str, str]) -> Store:
    from importlib.metadata import entry_points

    found = list(entry_points(group=STORES, name=url.scheme))
    if len({entry.value for entry in found}) != 1:  # the same package may be found twice on the path
        named = ", ".join(sorted(entry.value for entry in found)) or "no package"
        raise UsageError(
            f"{url}: {named} opens stores of the scheme {url.scheme}",
            hint=f"install one package that names it in the entry point group {STORES}",
        )
    opener: Callable[[str, Mapping[str, str]], Store] = found[0].load()
    return opener(str(url), environ)


def local_directory(url: LocalUrl, environ: Mapping[str, str]) -> Path:
    """The directory of a local store."""
    return url.path or home(environ) / "store"
