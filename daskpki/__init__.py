"""A certificate authority and secrets manager for Dask clusters, on one machine or on Google Cloud.

The names of the Python API are loaded when they are first used, so that `import daskpki` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daskpki.api import cluster_security, connect, open_store, secret, security
    from daskpki.authority.ca import CertificateAuthority

__version__ = "0.1.0"
__all__ = [
    "CertificateAuthority",
    "__version__",
    "cluster_security",
    "connect",
    "open_store",
    "secret",
    "security",
]


def __getattr__(name: str) -> Any:
    """Load a name of the API (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("daskpki.authority.ca" if name == "CertificateAuthority" else "daskpki.api"), name)


def __dir__() -> list[str]:
    return [*{*globals(), *__all__}]
