"""Why somebody was refused: a few fixed words for metrics and alerts, beside the sentence that says it in full."""

from __future__ import annotations

import ssl
from enum import StrEnum
from typing import Final

from daskpki.errors import NotTrustedError


class Reason(StrEnum):
    """What a refusal is counted under (`daskpki_refused_total`)."""

    UNKNOWN_CA = "unknown_ca"
    """A CA that is not, or no longer, trusted; at TLS also no certificate of daskpki's at all."""
    REVOKED = "revoked"
    EXPIRED = "expired"
    """A certificate that has ended or does not begin yet."""
    CRL_EXPIRED = "crl_expired"
    """Our revocation list has ended, so that nobody new is accepted."""
    CERTIFICATE = "certificate"
    """None was shown, or one with another form or trust domain."""
    TLS = "tls"
    """A handshake that failed for another cause, or took too long: scanners, plain HTTP, a full waiting list."""
    ROLE = "role"
    """A valid certificate whose role has no business here."""
    OPERATION = "operation"
    """An operation, or an argument of one, that the role may not use."""
    PICKLE = "pickle"
    """Bytes in a worker's message that would have to be unpickled."""
    SIZE = "size"
    """A message that announces more bytes than are read of its sender."""
    TRUST_DOCUMENT = "trust_document"
    """A trust document that does not verify."""
    PAGE = "page"
    """A request for the dashboard from a foreign page or machine, or one that does more than read."""


class PeerRefusedError(NotTrustedError):
    """The other end is refused. `peer` is the SPIFFE ID in its certificate."""

    def __init__(self, message: str, reason: Reason, peer: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.peer = peer


# X509_V_ERR_* of OpenSSL's x509_vfy.h, which `ssl` does not name.
_UNKNOWN_CA: Final = frozenset({2, 7, 18, 19, 20, 21, 30, 31, 32})
_EXPIRED: Final = frozenset({9, 10})
_NO_CERTIFICATE: Final = "PEER_DID_NOT_RETURN_A_CERTIFICATE"


def reason_at_tls(error: BaseException | None) -> Reason:
    """What a failed handshake is counted under; an error that was raised in place of another counts as that one."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            if error.verify_code in _UNKNOWN_CA:
                return Reason.UNKNOWN_CA
            return Reason.EXPIRED if error.verify_code in _EXPIRED else Reason.CERTIFICATE
        if isinstance(error, ssl.SSLError) and getattr(error, "reason", None) == _NO_CERTIFICATE:
            return Reason.CERTIFICATE
        error = error.__cause__
    return Reason.TLS
