"""The entry of jupyter-server-proxy, and links that lead through it.

Jupyter imports this when it starts, so nothing heavy is imported here; `socket_server` is what the entry starts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from daskpki.settings import SCHEME

NAME: Final = "daskpki"
"""First part of the path in Jupyter; pyproject.toml registers the entry by it."""


def setup_dashboard() -> dict[str, Any]:
    """Return the entry of jupyter-server-proxy's table (entry point `jupyter_serverproxy_servers`)."""
    return {
        "command": [sys.executable, "-m", "daskpki.dashboard.socket_server", "{unix_socket}"],
        "unix_socket": True,
        "timeout": 30,
        "launcher_entry": {"title": "Dask dashboards (daskpki)"},
    }


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
