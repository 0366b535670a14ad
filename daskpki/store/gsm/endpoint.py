"""Address and transport of Secret Manager. Pure.

Google's own endpoint, global or regional, is called over gRPC, whose exceptions have the status; those over REST have
only the HTTP code. `DASKPKI_SECRET_MANAGER_ENDPOINT` names another one: `https://HOST` and `http://HOST:PORT` are REST,
`grpc://HOST:PORT` is gRPC without TLS. Unencrypted ones are refused unless HOST is loopback.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from daskpki.errors import UsageError
from daskpki.quoting import shown
from daskpki.settings import GsmUrl

VARIABLE: Final = "DASKPKI_SECRET_MANAGER_ENDPOINT"
GRPC: Final = "grpc"
REST: Final = "rest"


class Endpoint(NamedTuple):
    """`address` is HOST or HOST:PORT; `transport` is "grpc" or "rest"."""

    address: str
    transport: str
    encrypted: bool


def endpoint_for(url: GsmUrl, environ: Mapping[str, str]) -> Endpoint:
    """Find the endpoint of a store, or the environment's override; UsageError."""
    if override := environ.get(VARIABLE):
        return parse_endpoint(override)
    host = f"secretmanager.{url.location}.rep.googleapis.com" if url.location else "secretmanager.googleapis.com"
    return Endpoint(host, GRPC, encrypted=True)


def parse_endpoint(text: str, variable: str = VARIABLE) -> Endpoint:
    """Parse an override by `variable`; UsageError for other forms, and for plain text beyond loopback."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for a malformed one
    except ValueError:
        parts = urlsplit("")
    scheme, host, address = parts.scheme, parts.hostname or "", parts.netloc
    more = parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc
    if scheme not in ("https", "http", "grpc") or not host or more:
        raise UsageError(
            f"{variable}={shown(text)} is not an endpoint", hint="https://HOST, http://HOST:PORT or grpc://HOST:PORT"
        )
    if scheme != "https" and not _is_loopback(host):
        raise UsageError(f"{variable}={shown(text)} is unencrypted and not on this machine", hint="use https://HOST")
    return Endpoint(address, GRPC if scheme == "grpc" else REST, encrypted=scheme == "https")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
