"""Accepts what plainly holds, in a few milliseconds; whatever is not plain, good or bad, is left to the full check.

The full check (`daskpki.credentials.held`) loads `cryptography.x509`, which takes as long as all the rest of a boot:
with it, the entrypoint takes 2.6 times as long as a bare script that makes the same requests, with this 1.3 times.
So this looks at the usual case only: keys on P-256 or P-384, one CA of one tier, one signature, a CRL in one piece. It
never refuses, it only declines, so that errors come from one place; and what it accepts, the full check would accept as
well, but for one rule that it leaves out, the name constraints of the CA. Dask's preload applies all of them again
before anything listens, so this is used only where that preload follows.
"""

from __future__ import annotations

from datetime import datetime

from cryptography.exceptions import UnsupportedAlgorithm

from daskpki.boot.materialise import MemoryFiles
from daskpki.boot.reading import Material
from daskpki.boot.rehearsal import rehearse
from daskpki.boot.settings import Settings
from daskpki.boot.spki import is_plain_key, verifies
from daskpki.errors import DaskpkiError
from daskpki.pki.credential import Credential
from daskpki.pki.crl_pieces import join_crl
from daskpki.pki.pem import fingerprint
from daskpki.pki.trust_document import CrlPart, TrustDocument, signed_bytes


def plainly_holds(material: Material, settings: Settings, now: datetime) -> bool:
    """Whether everything is of the usual kind and in order."""
    try:
        return _trust_holds(material, settings, now) and all(
            _credential_holds(credential, material.trust.signed.document) for credential in material.credentials
        )
    except (DaskpkiError, UnsupportedAlgorithm, ValueError, TypeError, AttributeError, OSError):  # ssl.SSLError as well
        return False


def _trust_holds(material: Material, settings: Settings, now: datetime) -> bool:
    document, signatures = material.trust.signed.document, material.trust.signed.signatures
    if len(document.authorities) != 1 or len(document.crls) != 1 or len(signatures) != 1:
        return False
    anchor, signature = document.active, signatures[0]
    if anchor.chain:  # two tiers
        return False
    return (
        signature.generation == anchor.generation == document.crls[0].generation
        and (not settings.ca_sha256 or settings.ca_sha256 == fingerprint(anchor.certificate))
        and (not material.anchors or anchor.certificate in material.anchors)
        and document.epoch >= settings.min_epoch
        and document.issued_at <= now.timestamp() < document.crls[0].next_update
        and verifies(anchor.certificate, signature.value, signed_bytes(material.trust.signed.payload))
    )


def _credential_holds(credential: Credential, document: TrustDocument) -> bool:
    if credential.key is None or not is_plain_key(credential.key.reveal(), credential.leaf):
        return False
    place = MemoryFiles()
    try:
        shown = rehearse(place, credential, document.roots, (_crl(document.crls[0]),))
    finally:
        place.clear()
    uris = [value for kind, value in shown.get("subjectAltName", ()) if kind == "URI"]
    return (
        uris == [credential.identity.uri]
        and credential.identity.trust_domain == document.trust_domain
        and credential.cluster == document.cluster
    )


def _crl(part: CrlPart) -> bytes:
    if part.entries is None:
        raise ValueError("in pieces")
    return join_crl(part.head, [part.entries] if part.entries else [], part.tail)
