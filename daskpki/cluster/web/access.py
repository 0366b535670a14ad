"""Decides who may request what from a Dask server over HTTP. Pure, default deny.

Dask's pages are read-only, but its dashboard takes WebSockets from any origin and any method. So only reading requests
pass, and a browser must have loaded these pages before (its Origin is our Host): otherwise any website could read the
dashboard with the visitor's certificate or through the visitor's tunnel. Through a tunnel it could even have our Host,
once its own name resolves to 127.0.0.1 (DNS rebinding), so without TLS the Host must be a name that only the local
machine has.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from daskpki.errors import NotTrustedError, PolicyError

_NAME_IT: Final = "name that host in distributed.scheduler.dashboard.bokeh-application.allow_websocket_origin"
_HOST: Final = re.compile(r"(?P<name>[A-Za-z0-9.]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?")
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Dashboard(StrEnum):
    """Audience of a server's pages: this machine's users, holders of a client's certificate, or nobody."""

    LOOPBACK = "loopback"
    MTLS = "mtls"
    OFF = "off"


class Visit(NamedTuple):
    """One request: `address` is the other end's IP address, `origin` is a browser's header."""

    method: str
    address: str
    host: str
    origin: str | None = None


def verify_visit(visit: Visit, dashboard: Dashboard, named: Collection[str] = ()) -> None:
    """Raise NotTrustedError for a visitor from elsewhere, PolicyError for a request that does more than read.

    `named` are hosts (with ports, except the scheme's own) under which a proxy shows these pages, or pages that embed
    them.
    """
    if dashboard is not Dashboard.MTLS:
        if not is_loopback(visit.address):
            raise NotTrustedError(
                "these pages are for this machine only", hint="use a tunnel to it, or start with --dashboard mtls"
            )
        if not is_local_name(visit.host) and visit.host not in named:
            way_out = f"ask for 127.0.0.1 or localhost, or {_NAME_IT}"
            raise PolicyError(f"Host {visit.host!r} is not this machine's own name", hint=way_out)
    if visit.method not in READING:
        raise PolicyError(f"{visit.method} is refused: these pages only show")
    if visit.origin is not None and urlsplit(visit.origin).netloc not in {visit.host, *named}:
        raise PolicyError(f"the page at {visit.origin} may not read these: they are at {visit.host}", hint=_NAME_IT)


def is_local_name(host: str) -> bool:
    """True if a Host (RFC 9110, 7.2), with or without a port, is this machine for any DNS server."""
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    return found["name"].lower() == "localhost" or is_loopback(found["name"].strip("[]"))


def is_loopback(address: str) -> bool:
    """True if an IP address, with or without a zone, is a loopback address."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return (mapped or parsed).is_loopback
