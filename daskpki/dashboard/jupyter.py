"""Links to this user's running proxies: jupyter-server-proxy's entry, and those of `daskpki dashboard`.

Jupyter imports this when it starts, so nothing heavy is imported here; `socket_server` is what the entry starts. A
running `daskpki dashboard` is one small file, locked as long as its process lives.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from daskpki.errors import DaskpkiError
from daskpki.files import make_private_directory, names_in, read_private, write_private
from daskpki.settings import SCHEME, home

NAME: Final = "daskpki"
"""First part of the path in Jupyter; pyproject.toml registers the entry by it."""
_DIRECTORY: Final = "dashboards"


def setup_dashboard() -> dict[str, Any]:
    """Return the entry of jupyter-server-proxy's table (entry point `jupyter_serverproxy_servers`)."""
    return {
        "command": [sys.executable, "-m", "daskpki.dashboard.socket_server", "{unix_socket}"],
        "unix_socket": True,
        "timeout": 30,
        "launcher_entry": {"title": "Dask dashboards (daskpki)"},
    }


def find_link(scheduler: str) -> str | None:
    """Return the page of a running proxy: Jupyter's, or `daskpki dashboard` on this machine; None without one."""
    if (link := link_in_jupyter(scheduler, os.environ)) is not None:
        return link
    try:
        port = find_port(home(os.environ), scheduler)
    except DaskpkiError:  # no home directory
        return None
    return f"http://127.0.0.1:{port}/status" if port is not None else None


def link_in_jupyter(scheduler: str, environ: Mapping[str, str]) -> str | None:
    """Return the link to a scheduler's dashboard in the Jupyter server of this kernel; None elsewhere."""
    base = environ.get("JUPYTERHUB_SERVICE_PREFIX") or _base_of_server(environ)
    return None if base is None else f"{base.rstrip('/')}/{NAME}/{scheduler.removeprefix(SCHEME)}/status"


def _base_of_server(environ: Mapping[str, str]) -> str | None:
    """Return the base URL of the server that started this kernel, if it has jupyter-server-proxy."""
    server = environ.get("JPY_PARENT_PID", "")
    if not server.isdigit() or find_spec("jupyter_server_proxy") is None:
        return None
    from jupyter_core.paths import jupyter_runtime_dir  # jupyter_server, which reads it likewise, takes a second

    try:
        described = json.loads(Path(jupyter_runtime_dir(), f"jpserver-{server}.json").read_bytes())
    except (OSError, ValueError):
        return None
    return str(described["base_url"]) if isinstance(described, dict) and "base_url" in described else None


@contextmanager
def announce(home: Path, scheduler: str, port: int) -> Iterator[None]:
    """Let other programs of this user find the proxy of that scheduler while the block runs."""
    import fcntl

    directory = home / _DIRECTORY
    make_private_directory(directory)
    path = directory / str(port)
    write_private(path, scheduler.encode(), force=True)
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
        wanted = [name for name in names if read_private(directory / name) == scheduler.encode()]
        ports = [int(name) for name in wanted if _is_locked(directory / name)]
    except (DaskpkiError, OSError):  # a link is a convenience: no Client fails for it
        return None
    return min(ports, default=None)


def _is_locked(path: Path) -> bool:
    """True while the file's process lives: a lock ends with the process, unlike a file or a process number."""
    if os.name == "nt":
        return False
    import fcntl

    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
