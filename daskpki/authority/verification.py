"""Verifies a certificate against the cluster's trust document: chain, validity, identity, revocation."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from daskpki.authority.publication import current_trust
from daskpki.authority.session import Session
from daskpki.errors import NotTrustedError
from daskpki.identity import Identity
from daskpki.pki.certificates import load_certificate
from daskpki.pki.pem import fingerprint, parse_certificates
from daskpki.pki.revoked import check_fresh, revoked_serials
from daskpki.pki.trust_document import TrustDocument
from daskpki.pki.verify import verify_leaf
from daskpki.quoting import rfc3339


class Verified(NamedTuple):
    """A certificate that is trusted now: identity, serial, fingerprint (hex) and end."""

    identity: Identity
    serial: int
    fingerprint: str
    not_after: datetime


class Verifier:
    """Verifies any number of certificates by one trust document."""

    def __init__(self, session: Session) -> None:
        self._now = session.now()
        self._trust: TrustDocument = current_trust(session)
        self._revoked = revoked_serials(self._trust)

    def verify(self, data: bytes) -> Verified:
        """The leaf that `data` begins with (PEM with its chain, or DER); NotTrustedError, CorruptError, UsageError."""
        leaf, *chain = parse_certificates(data)
        roots = self._trust.roots
        identity = verify_leaf(leaf, chain, roots, now=self._now, trust_domain=self._trust.trust_domain)
        certificate = load_certificate(leaf)
        serial = certificate.serial_number
        for revoked in self._revoked.values():
            if found := revoked.get(serial):
                raise NotTrustedError(
                    f"the certificate {serial:x} of {identity.uri} was revoked at {rfc3339(found.at)} ({found.reason})"
                )
        check_fresh(self._trust, self._now)
        return Verified(identity, serial, fingerprint(leaf), certificate.not_valid_after_utc)
