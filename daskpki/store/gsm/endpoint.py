"""Address and transport of Secret Manager. Pure.

Google's own endpoint, global or regional, is called over gRPC: there the exceptions tell the status, and over REST only
the HTTP code. `DASKPKI_SECRET_MANAGER_ENDPOINT` names another one: `https://HOST` and `http://HOST:PORT` are REST,
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
    """The endpoint of a store, with the environment's override; UsageError."""
    if override := environ.get(VARIABLE):
        return parse_endpoint(override)
    host = f"secretmanager.{url.location}.rep.googleapis.com" if url.location else "secretmanager.googleapis.com"
    return Endpoint(host, GRPC, encrypted=True)


def parse_endpoint(text: str, variable: str = VARIABLE) -> Endpoint:
    """The endpoint in an override by `variable`; UsageError for other forms, and for plain text beyond loopback."""
    scheme, host, address = _split(text)
    if scheme not in ("https", "http", "grpc") or not host:
        raise UsageError(
            f"{variable}={shown(text)} is not an endpoint", hint="https://HOST, http://HOST:PORT or grpc://HOST:PORT"
        )
    if scheme != "https" and not _is_loopback(host):
        raise UsageError(f"{variable}={shown(text)} is unencrypted and not on this machine", hint="use https://HOST")
    return Endpoint(address, GRPC if scheme == "grpc" else REST, encrypted=scheme == "https")


def _split(text: str) -> tuple[str, str, str]:
    """Scheme, host, and HOST[:PORT]; all empty when there is more to the URL than that, or it is malformed."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return "", "", ""
    bare = parts.path in ("", "/") and not parts.query and not parts.fragment and "@" not in parts.netloc
    return (parts.scheme, parts.hostname or "", parts.netloc) if bare else ("", "", "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
