"""A certificate authority and secrets manager for Dask clusters on Google Cloud.

The names of the Python API are loaded when they are first used, so that `import daskpki` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

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

_LAZY: Final = {
    "CertificateAuthority": "daskpki.authority.ca",
    "cluster_security": "daskpki.api",
    "connect": "daskpki.api",
    "open_store": "daskpki.api",
    "secret": "daskpki.api",
    "security": "daskpki.api",
}


def __getattr__(name: str) -> Any:
    """Load a name of the API (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_LAZY]
