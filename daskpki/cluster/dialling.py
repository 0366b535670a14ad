"""Opening a client, for the Python API, which does not import distributed itself."""

from __future__ import annotations

from typing import Any

from distributed import Client

from daskpki.cluster.security import PkiSecurity

__all__ = ["Client", "open_client"]


def open_client(address: str, *, security: PkiSecurity, **client_kwargs: Any) -> Client:
    """A Client of that scheduler; `asynchronous=True` among the others gives one to be awaited."""
    return Client(address, security=security, **client_kwargs)
