"""Who may ask a Dask server for what over HTTP: pure rules, default deny.

Dask's pages are read-only, but its dashboard takes WebSockets from every origin and any method. So what only reads is
let through, and a browser must have been on these pages already (its Origin is our Host): otherwise any site that a
person visits could read the dashboard with that person's certificate, or through that person's tunnel.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from daskpki.errors import NotTrustedError, PolicyError

READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Dashboard(StrEnum):
    """Whom a server's pages are for: this machine's users, holders of a client's certificate, or nobody."""

    LOOPBACK = "loopback"
    MTLS = "mtls"
    OFF = "off"


class Visit(NamedTuple):
    """One request: `address` is the other end's IP address, `origin` what a browser says where it comes from."""

    method: str
    address: str
    host: str
    origin: str | None = None


def verify_visit(visit: Visit, dashboard: Dashboard, origins: Collection[str] = ()) -> None:
    """Raise NotTrustedError for a visitor from elsewhere, PolicyError for a request that does more than read.

    `origins` are hosts (with ports) of other pages that may embed these, as behind a proxy that changes Host.
    """
    if dashboard is not Dashboard.MTLS and not is_loopback(visit.address):
        raise NotTrustedError(
            "these pages are for this machine only", hint="use a tunnel to it, or start with --dashboard mtls"
        )
    if visit.method not in READING:
        raise PolicyError(f"{visit.method} is refused: these pages only show")
    if visit.origin is not None and urlsplit(visit.origin).netloc not in {visit.host, *origins}:
        raise PolicyError(f"the page at {visit.origin} may not read these: they are at {visit.host}")


def is_loopback(address: str) -> bool:
    """Whether an IP address, with or without a zone, is this machine's own."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return (mapped or parsed).is_loopback
