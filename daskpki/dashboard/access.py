"""Whose dashboards this user may see, and with which credential: the logins, or what DASKPKI_* name instead."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from daskpki.credentials.source_selection import Source, Wanted, choose
from daskpki.credentials.sources import obtain, this_process
from daskpki.errors import DaskpkiError, UsageError
from daskpki.loader import dial_security
from daskpki.settings import home

if TYPE_CHECKING:
    from daskpki.credentials.sources import Environment
    from daskpki.dashboard.upstream import Location, Upstream


def known_schedulers() -> Iterable[str]:
    """The addresses that this user's logins list, or those of the credential that the environment names."""
    here = this_process()
    if choose(Wanted(), here.environ).source is Source.KEYRING:
        return [address for saved in here.contexts.all() for address in saved.context.schedulers]
    return obtain(Wanted(), here).schedulers


def upstream_of(address: str | None, location: Location | None = None, here: Environment | None = None) -> Upstream:
    """The dashboard of a scheduler, or of the active login's; the errors of `obtain`, UsageError without address."""
    from daskpki.dashboard.upstream import Upstream

    here = here or this_process()
    wanted = Wanted(address=address)
    obtained = obtain(wanted, here)
    target = address or next(iter(obtained.schedulers), None)
    if target is None:
        raise UsageError(
            f"no scheduler's address of cluster {obtained.held.credential.cluster!r} is known",
            hint="daskpki dashboard tls://HOST:8786, or daskpki login --scheduler tls://HOST:8786",
        )
    return Upstream(target, dial_security(obtained, wanted, here), location)


def find_link(scheduler: str) -> str | None:
    """The page of a running proxy: Jupyter's, or that of `daskpki dashboard` on this machine; None without one."""
    from daskpki.dashboard.jupyter import link_in_jupyter
    from daskpki.dashboard.running import find_port

    if (link := link_in_jupyter(scheduler, os.environ)) is not None:
        return link
    try:
        port = find_port(home(os.environ), scheduler)
    except DaskpkiError:  # no home directory
        return None
    return f"http://127.0.0.1:{port}/status" if port is not None else None
