"""Identifies the other end of a connection from the certificate that TLS has verified.

OpenSSL checked the chain when the session began. This module checks what OpenSSL does not: exactly one URI SAN
(X509-SVID, section 5.2), the serial, that the leaf is not a CA's certificate (X509-SVID, section 4.1), and that an
extended key usage is present (RFC 5280, section 4.2.1.12: without one, a certificate serves every purpose).
"""

from __future__ import annotations

import ssl
from typing import Any, NamedTuple

from daskpki.errors import DaskpkiError, NotTrustedError
from daskpki.identity import Identity, Role
from daskpki.pki.certificates import certificate_grades, certificate_identity, lifetime, load_certificate, name_text
from daskpki.pki.profile import Grade
from daskpki.pki.verify import check_purpose


class Peer(NamedTuple):
    """The other end: identity, serial, the end of its certificate in seconds since the epoch, and who issued it.

    The issuer is its name in one text, as `Trust.issuers` has those of the CAs.
    """

    identity: Identity
    serial: int
    not_after: int
    issuer: str
    grades: frozenset[Grade] = frozenset()


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
    ends, issuer = lifetime(certificate).not_after, name_text(certificate.issuer)
    grades = certificate_grades(certificate) if identity.role is Role.CLIENT else frozenset[Grade]()
    return Peer(identity, certificate.serial_number, ends, issuer, grades)
