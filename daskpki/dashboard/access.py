"""Finds dashboards: the schedulers of this user's logins with the credential for each, and the user's running proxies.

A running proxy is one small file, locked as long as its process lives.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from daskpki.credentials.source_selection import CredentialSource, Wanted, choose
from daskpki.credentials.sources import obtain, this_process
from daskpki.errors import DaskpkiError
from daskpki.files import make_private_directory, names_in, read_private, write_private
from daskpki.loader import dial_security
from daskpki.settings import home

if TYPE_CHECKING:
    from daskpki.credentials.sources import Environment
    from daskpki.dashboard.upstream import Location, Upstream


def known_schedulers() -> Iterable[str]:
    """List the addresses in this user's logins, or those of the credential that the environment names."""
    here = this_process()
    if choose(Wanted(), here.environ).source is CredentialSource.KEYRING:
        return [address for saved in here.contexts.all() for address in saved.context.schedulers]
    return obtain(Wanted(), here).schedulers


def upstream_of(address: str | None, location: Location | None = None, here: Environment | None = None) -> Upstream:
    """Open the dashboard of a scheduler, or of the active login's; raises as `obtain`, UsageError without address."""
    from daskpki.dashboard.upstream import Upstream

    here = here or this_process()
    wanted = Wanted(address=address)
    obtained = obtain(wanted, here)
    hint = "daskpki dashboard tls://HOST:8786, or daskpki login --scheduler tls://HOST:8786"
    target = obtained.scheduler(address, hint)
    return Upstream(target, dial_security(obtained, wanted, here), location)


def find_link(scheduler: str) -> str | None:
    """Return the page of a running proxy: Jupyter's, or `daskpki dashboard` on this machine; None without one."""
    from daskpki.dashboard.jupyter import link_in_jupyter

    if (link := link_in_jupyter(scheduler, os.environ)) is not None:
        return link
    try:
        port = find_port(home(os.environ), scheduler)
    except DaskpkiError:  # no home directory
        return None
    return f"http://127.0.0.1:{port}/status" if port is not None else None


_DIRECTORY: Final = "dashboards"


@contextmanager
def announce(home: Path, scheduler: str, port: int) -> Iterator[None]:
    """Let other programs of this user find the proxy of that scheduler while the block runs."""
    import fcntl

    directory = home / _DIRECTORY
    make_private_directory(directory)
    path = directory / str(port)
    write_private(path, json.dumps({"scheduler": scheduler}).encode(), force=True)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def find_port(home: Path, scheduler: str) -> int | None:
    """Find the port of a running proxy of that scheduler; None if there is none."""
    directory = home / _DIRECTORY
    try:
        names = [name for name in names_in(directory) if name.isdigit()]
        ports = [int(name) for name in names if _is_for(directory / name, scheduler) and _is_locked(directory / name)]
    except (DaskpkiError, OSError):  # a link is a convenience: no Client fails for it
        return None
    return min(ports, default=None)


def _is_for(path: Path, scheduler: str) -> bool:
    try:
        document = json.loads(read_private(path))
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("scheduler") == scheduler


def _is_locked(path: Path) -> bool:
    """True while its process lives: a lock ends with the process, unlike a file or a process number."""
    if os.name == "nt":
        return False
    import fcntl

    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
