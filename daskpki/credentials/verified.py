"""A verified credential: certificates, key and trust document, and the checks before anything uses or keeps it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from daskpki.confidential import Confidential
from daskpki.errors import NotTrustedError
from daskpki.pki.certificates import load_certificate
from daskpki.pki.credential import Credential
from daskpki.pki.crl import every_revoked_serial
from daskpki.pki.trust import verify_trust
from daskpki.pki.trust_document import Anchor, SignedTrustDocument, TrustDocument, parse_trust
from daskpki.pki.verify import key_fits, verify_leaf

if TYPE_CHECKING:
    from daskpki.store.rollback_guard import SeenTrust


class VerifiedCredential(NamedTuple):
    """A verified credential, with the trust document by which it was verified.

    `signed` is that document as the store keeps it.
    """

    credential: Credential
    trust: TrustDocument
    signed: Confidential


class Pins(NamedTuple):
    """Pins of the trust document: CAs (DER), a CA's fingerprint, the document's lowest epoch, the document before it.

    `known` are the CAs of an earlier document that this user has seen; a fingerprint takes precedence.
    """

    anchors: tuple[bytes, ...] = ()
    sha256: str | None = None
    min_epoch: int = 0
    previous: TrustDocument | None = None
    known: tuple[Anchor, ...] = ()

    def remembering(self, seen: SeenTrust | None) -> Pins:
        """Add what this user's commands have seen of the cluster, unless a CA is pinned."""
        if seen is None or self.sha256:
            return self
        return self._replace(known=seen.authorities, min_epoch=max(self.min_epoch, seen.epoch))

    def verify_trust(self, signed: SignedTrustDocument, cluster: str, now: datetime) -> TrustDocument:
        """The document, if it is signed and fits these pins; NotTrustedError, CorruptError."""
        return verify_trust(
            signed,
            cluster=cluster,
            previous=self.previous,
            anchors=self.anchors,
            pin_sha256=self.sha256,
            known=() if self.sha256 else self.known,
            min_epoch=self.min_epoch,
            now=now,
        )


def verify_credential(credential: Credential, signed: Confidential, *, pins: Pins, now: datetime) -> VerifiedCredential:
    """Check signature and epoch of the trust document, chain, role, lifetime, key and revocation of the credential.

    Raises NotTrustedError or CorruptError that names the failed check.
    """
    trust = pins.verify_trust(parse_trust(signed), credential.cluster, now)
    found = verify_leaf(credential.leaf, credential.chain, trust.roots, now=now, trust_domain=trust.trust_domain)
    if found != credential.identity:
        raise NotTrustedError(f"the credential is for {credential.identity.uri}, and its certificate for {found.uri}")
    if credential.key is not None and not key_fits(credential.key, credential.leaf):
        raise NotTrustedError(f"the key of {found.uri} does not belong to its certificate")
    serial = load_certificate(credential.leaf).serial_number
    if serial in every_revoked_serial(trust):
        raise NotTrustedError(
            f"the certificate {serial:x} of {found.uri} is revoked",
            hint="ask the cluster's operator to issue a new one, then run daskpki login",
        )
    return VerifiedCredential(credential, trust, signed)
