"""Who is at the other end of a connection, read from the certificate that TLS has already verified.

OpenSSL has checked the chain, at the time when the session began. What it does not ask is asked here: identity (exactly
one URI SAN, X509-SVID, 5.2), serial, that the leaf is no CA's (X509-SVID, 4.1) and that its extended key usage is there
at all (RFC 5280, 4.2.1.12, takes its absence for every purpose).
"""

from __future__ import annotations

import ssl
from typing import Any, NamedTuple

from daskpki.errors import DaskpkiError, NotTrustedError
from daskpki.identity import Identity
from daskpki.pki.certificates import certificate_identity, lifetime, load_certificate, name_text
from daskpki.pki.verify import check_purpose


class Peer(NamedTuple):
    """The other end: identity, serial, the end of its certificate in seconds since the epoch, and who issued it.

    The issuer is its name in one text, as `Trust.issuers` has those of the CAs.
    """

    identity: Identity
    serial: int
    not_after: int
    issuer: str


def shown_certificate(stream: Any) -> bytes | None:
    """The certificate (DER) that the other end of a tornado stream showed; None without TLS, or when it is closed."""
    return stream.socket.getpeercert(binary_form=True) if isinstance(stream.socket, ssl.SSLSocket) else None


def parse_peer(der: bytes | None) -> Peer:
    """The peer that showed this certificate; NotTrustedError when it is no leaf of daskpki."""
    if not der:
        raise NotTrustedError("the other end showed no certificate")
    try:
        certificate = load_certificate(der, "the other end's certificate")
        identity = certificate_identity(certificate)
        check_purpose(certificate)
    except DaskpkiError as error:
        raise NotTrustedError(f"the other end: {error}", hint="daskpki issues such leaves") from error
    return Peer(identity, certificate.serial_number, lifetime(certificate).not_after, name_text(certificate.issuer))
