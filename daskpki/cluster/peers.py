"""Who is at the other end of a connection, read from the certificate that TLS has already verified.

OpenSSL has checked chain, dates and purpose (EKU) by the time this is asked; what is read here is what the chain does
not say: identity (exactly one URI SAN, X509-SVID, 5.2) and serial.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from daskpki.errors import NotTrustedError, UsageError
from daskpki.identity import Identity, parse_identity


class Peer(NamedTuple):
    """The other end: identity, serial, the end of its certificate in seconds since the epoch, and who issued it.

    The issuer is its name in one text, as `Trust.issuers` has those of the CAs.
    """

    identity: Identity
    serial: int
    not_after: int
    issuer: str


def parse_peer(certificate: Mapping[str, Any] | None) -> Peer:
    """The peer of `SSLSocket.getpeercert()`; NotTrustedError when it is no leaf of daskpki."""
    if not certificate:
        raise NotTrustedError("the other end showed no certificate")
    uris = list(_uris(certificate))
    if len(uris) != 1:
        raise NotTrustedError(
            f"the other end's certificate names {len(uris)} identities instead of one",
            hint="daskpki issues such leaves",
        )
    try:
        identity = parse_identity(uris[0])
    except UsageError as error:
        raise NotTrustedError(f"the other end's certificate: {error}") from error
    end = int(ssl.cert_time_to_seconds(certificate["notAfter"]))
    return Peer(identity, int(certificate["serialNumber"], 16), end, _name(certificate["issuer"]))


def _name(parts: Iterable[Iterable[tuple[str, str]]]) -> str:
    """A distinguished name as `getpeercert` gives it, in the form of `daskpki.pki.certificates.name_text`."""
    return "/".join(value for part in parts for _kind, value in part)


def _uris(certificate: Mapping[str, Any]) -> Iterator[str]:
    for kind, value in certificate.get("subjectAltName", ()):
        if kind == "URI":
            yield value
