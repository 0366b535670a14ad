"""Verifies trust documents.

The rules, without exception:

1.  This version knows the format and the least reader, and the cluster is the requested one.
2.  It names exactly one active CA; no generation occurs twice, among present and dropped ones together; every CA has
    one CRL; every chain consists of CAs and leads to its anchor; the CAs are constrained to the trust domain.
3.  Its own active CA signed it. A signature that names a known CA and does not verify makes the document invalid.
4.  After a previous document: the epoch does not go back, and the same epoch means the same document. A CA of the
    previous document signed it, or the successor that such a CA named when it was dropped; every CA that it adds signed
    it as well. The cluster, the trust domain and the anchor of each generation stay the same. For a CA that stays, CRL
    number and thisUpdate do not go back.
5.  With a pin, a CA with that fingerprint signed it; with known anchors, one of those did.
6.  The root of one of its CAs signed each CRL of an offline root; no root has two, and none revokes a CA of the
    document. After a previous document such a CRL does not go back, and is not dropped.
7.  Its epoch is at least the pinned one, and it was not issued in the future.

The caller checks when it was fetched, `daskpki.pki.crl` how old its CRLs are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Final

from cryptography import x509

from daskpki.confidential import Confidential
from daskpki.errors import NotTrustedError, NotYetValidError, UsageError
from daskpki.pki import keys
from daskpki.pki.certificates import extension, load_certificate, permitted_dns, seconds
from daskpki.pki.crl import CLOCK_SKEW, Crl, verify_crl
from daskpki.pki.json_fields import compact_json, signing_input
from daskpki.pki.pem import fingerprint
from daskpki.pki.profile import is_within
from daskpki.pki.trust_document import (
    Anchor,
    Signature,
    SignedTrustDocument,
    Succession,
    TrustDocument,
    as_json,
    encode_document,
    encode_envelope,
    signed_bytes,
)
from daskpki.pki.verify import check_issued, verify_signature
from daskpki.quoting import rfc3339

if TYPE_CHECKING:  # a node verifies, and does not issue
    from daskpki.pki.issuer import Issuer


MAX_EPOCH_JUMP: Final = 10_000
"""The largest step from one epoch to the next: the publications of a year, one each hour."""


def sign_trust(document: TrustDocument, issuers: Sequence[Issuer]) -> Confidential:
    """Make the payload to store, signed by `issuers`: one of the previous document, and each that this one adds.

    Raises CorruptError or NotTrustedError if the document breaks rule 2, DaskpkiError if it is too large.
    """
    check_consistent(document)
    payload = encode_document(document)
    data = signed_bytes(payload)
    signatures = tuple(Signature(issuer.generation, keys.sign(issuer.key, data)) for issuer in issuers)
    return encode_envelope(payload, signatures)


def verify_trust(
    signed: SignedTrustDocument,
    *,
    now: datetime,
    cluster: str | None = None,
    previous: TrustDocument | None = None,
    known: Sequence[Anchor] = (),
    anchors: Collection[bytes] = (),
    pin_sha256: str | None = None,
    min_epoch: int = 0,
) -> TrustDocument:
    """Return the document if it fulfils every rule above; NotTrustedError names the rule.

    `known` are the CAs of an earlier document that is not kept itself: one of them must have signed, or a CA to which
    their statements lead. Without `previous`, `known`, `anchors` (DER) and `pin_sha256`, trust comes from the store's
    access control.
    """
    document = signed.document
    if cluster is not None and document.cluster != cluster:
        raise NotTrustedError(f"the trust document is of cluster {document.cluster}, not of {cluster}")
    signers = check_own_signature(signed, previous)
    if previous is not None:
        _check_succession(document, previous, signers)
    if known and not signers & heirs(document.cluster, known, document.successions):
        raise NotTrustedError(
            f"the trust document of epoch {document.epoch} is not signed by a CA that was seen here before",
            hint="after rotate-ca --emergency --old-key-lost, name the new CA by --ca-sha256 HEX",
        )
    _check_pins(signers, anchors, pin_sha256)
    _check_time(document, min_epoch, now)
    return document


def check_consistent(document: TrustDocument) -> None:
    """Raise unless the document fulfils rule 2."""
    document.active  # noqa: B018 - raises unless there is exactly one
    generations = [anchor.generation for anchor in document.authorities]
    dropped = [entry.generation for entry in document.revoked_dropped]
    if len({*generations, *dropped}) != len(generations) + len(dropped):
        raise NotTrustedError("the trust document names a CA generation twice")
    if sorted(part.generation for part in document.crls) != sorted(generations):
        raise NotTrustedError("the trust document does not have exactly one CRL for each CA")
    for anchor in document.authorities:
        _check_anchor(anchor, document.trust_domain)
    _root_crls(document)


def _root_crls(document: TrustDocument) -> dict[bytes, Crl]:
    """CRLs of offline roots, by the root's certificate (DER); raises unless they fulfil rule 6 by themselves."""
    found: dict[bytes, Crl] = {}
    for der in document.root_crls:
        anchor, crl = _root_of(der, document)
        if anchor.certificate in found:
            raise NotTrustedError(f"the trust document has two CRLs of the root of CA generation {anchor.generation}")
        if load_certificate(anchor.issuing).serial_number in crl.revoked:
            raise NotTrustedError(
                f"CA generation {anchor.generation} of the trust document was revoked by its offline root",
                hint="daskpki rotate-ca --emergency replaces it",
            )
        found[anchor.certificate] = crl
    return found


def _root_of(der: bytes, document: TrustDocument) -> tuple[Anchor, Crl]:
    refusal: NotTrustedError | None = None
    for anchor in document.authorities:
        if anchor.chain:
            try:
                return anchor, verify_crl(der, load_certificate(anchor.certificate))
            except NotTrustedError as error:
                refusal = error
    raise NotTrustedError("the trust document has a CRL that no offline root of its CAs signed") from refusal


def _check_anchor(anchor: Anchor, trust_domain: str) -> None:
    path = [load_certificate(entry, "a CA of the trust document") for entry in (*anchor.chain, anchor.certificate)]
    for certificate, issuer in zip(path, [*path[1:], path[-1]], strict=True):
        check_issued(certificate, issuer)
    try:
        keys.key_type(path[0].public_key())
    except UsageError as error:
        raise NotTrustedError(f"a CA of the trust document has {error}") from None
    usage = extension(path[0], x509.KeyUsage)
    if usage is None or not (usage.value.digital_signature and usage.value.crl_sign and usage.value.key_cert_sign):
        raise NotTrustedError(f"CA generation {anchor.generation} is not one that issues leaves and signs trust")
    if not any(is_within(trust_domain, domain) for domain in permitted_dns(path[0]) or ()):
        raise NotTrustedError(f"CA generation {anchor.generation} is not constrained to trust domain {trust_domain}")


def _signers(signed: SignedTrustDocument, previous: TrustDocument | None) -> set[bytes]:
    """Return the anchors (DER) whose issuing key signed; NotTrustedError for a false signature in a known CA's name."""
    known = (*signed.document.authorities, *(previous.authorities if previous else ()))
    data = signed_bytes(signed.payload)
    signers: set[bytes] = set()
    for signature in signed.signatures:
        candidates = {anchor.issuing: anchor for anchor in known if anchor.generation == signature.generation}
        verified = [anchor for anchor in candidates.values() if _signed_by(anchor, signature, data)]
        if candidates and not verified:
            raise NotTrustedError(f"the trust document's signature by CA generation {signature.generation} is false")
        signers.update(anchor.certificate for anchor in verified)
    return signers


def is_forged(signed: SignedTrustDocument, held: TrustDocument) -> bool:
    """True if a signature names a CA generation of `held`, and no key of that generation made it.

    The sender forged such a document, or passed it on unread: neither a missed rollover nor a wrong clock explains it.
    If another issuing CA took the place of the known one under the same root, its key is taken from the document.
    """
    data, document = signed_bytes(signed.payload), signed.document
    for signature in signed.signatures:
        of_generation = [anchor for anchor in held.authorities if anchor.generation == signature.generation]
        roots = {anchor.certificate for anchor in of_generation}
        candidates = [*of_generation]
        for anchor in document.authorities:
            with suppress(NotTrustedError):
                if anchor.certificate in roots:
                    _check_anchor(anchor, document.trust_domain)
                    candidates.append(anchor)
        if of_generation and not any(_signed_by(anchor, signature, data) for anchor in candidates):
            return True
    return False


def _signed_by(anchor: Anchor, signature: Signature, data: bytes) -> bool:
    try:
        verify_signature(anchor.issuing, signature.value, data)
    except NotTrustedError:
        return False
    return True


def check_own_signature(signed: SignedTrustDocument, previous: TrustDocument | None = None) -> set[bytes]:
    """Return who signed; NotTrustedError unless the document fulfils rules 2 and 3: its active CA is among them."""
    check_consistent(signed.document)
    signers = _signers(signed, previous)
    if signed.document.active.certificate not in signers:
        raise NotTrustedError("the trust document is not signed by its own active CA")
    return signers


def follows(signed: SignedTrustDocument, previous: TrustDocument) -> bool:
    """True if a document is signed by a CA of another one, or by a successor of such a CA."""
    document = signed.document
    return bool(_signers(signed, previous) & heirs(document.cluster, previous.authorities, document.successions))


def _check_succession(document: TrustDocument, previous: TrustDocument, signers: set[bytes]) -> None:
    if document.epoch < previous.epoch:
        raise NotTrustedError(
            f"the trust document went back from epoch {previous.epoch} to {document.epoch}",
            hint="an old version was restored; find out who can write to the store",
        )
    if document.epoch > previous.epoch + MAX_EPOCH_JUMP:
        raise NotTrustedError(
            f"the trust document jumps from epoch {previous.epoch} to {document.epoch}, by more than {MAX_EPOCH_JUMP}",
            hint="a great epoch would shut out all later documents; find out who can sign and write them",
        )
    if document.epoch == previous.epoch and document != previous:
        raise NotTrustedError(f"there are two different trust documents of epoch {document.epoch}")
    if (document.cluster, document.trust_domain) != (previous.cluster, previous.trust_domain):
        raise NotTrustedError("the trust document changes the cluster or the trust domain")
    if not signers & heirs(document.cluster, previous.authorities, document.successions):
        raise NotTrustedError("the trust document is not signed by a CA of the one before")
    for anchor in document.authorities:
        _check_continuity(anchor, previous, signers)
    _check_crl_numbers(document, previous)
    _check_root_crl_numbers(document, previous)


def _check_root_crl_numbers(document: TrustDocument, previous: TrustDocument) -> None:
    now = _root_crls(document)
    for root, before in _root_crls(previous).items():
        if root not in document.roots:
            continue
        if root not in now or (now[root].number, now[root].this_update) < (before.number, before.this_update):
            raise NotTrustedError(f"the CRL of an offline root went back from number {before.number}, or is missing")


def _check_continuity(anchor: Anchor, previous: TrustDocument, signers: set[bytes]) -> None:
    before = {known.generation: known.certificate for known in previous.authorities}
    if before.get(anchor.generation, anchor.certificate) != anchor.certificate:
        raise NotTrustedError(f"the trust document replaces the CA of generation {anchor.generation}")
    if anchor.certificate not in previous.roots and anchor.certificate not in signers:
        raise NotTrustedError(f"the trust document adds CA generation {anchor.generation}, which did not sign it")


def _check_crl_numbers(document: TrustDocument, previous: TrustDocument) -> None:
    before = {part.generation: part for part in previous.crls}
    for part in document.crls:
        old = before.get(part.generation)
        if old is not None and (part.number, part.this_update) < (old.number, old.this_update):
            raise NotTrustedError(
                f"the CRL of CA generation {part.generation} went back from number {old.number} to {part.number}"
            )


def _check_pins(signers: set[bytes], anchors: Collection[bytes], pin_sha256: str | None) -> None:
    if anchors and not signers & set(anchors):
        raise NotTrustedError("the trust document is not signed by a CA that is known here")
    if pin_sha256 is None:
        return
    pin = pin_sha256.replace(":", "").lower()
    if pin not in {fingerprint(certificate) for certificate in signers}:
        raise NotTrustedError(
            f"the trust document is not signed by the pinned CA {pin}",
            hint="DASKPKI_CA_SHA256 names the CA's fingerprint; after a rollover it has to be the new one's",
        )


def _check_time(document: TrustDocument, min_epoch: int, now: datetime) -> None:
    if document.epoch < min_epoch:
        raise NotTrustedError(
            f"the trust document has epoch {document.epoch}, below the required {min_epoch}",
            hint="an older one was restored, or the pin (DASKPKI_MIN_EPOCH) is too high",
        )
    if document.issued_at > seconds(now) + CLOCK_SKEW:
        raise NotYetValidError(
            f"the trust document is of {rfc3339(document.issued_at)}; it is now {rfc3339(seconds(now))}",
            hint="check this machine's clock",
        )


# --- Successor statements: a dropped CA signs which CA replaces it.
#
# A reader who trusts one document trusts the next one. Nodes poll once a minute, but people read much less often and
# miss documents, perhaps the very one that drops a CA: the only one that both the old and the new CA signed. So each
# document carries the statements of recently dropped CAs, which lead from any of those to a CA that is trusted now. A
# statement grants no more than the dropped CA's key could have signed before.

_SUCCESSION_TYPE: Final = b"application/vnd.daskpki.succession.v1+json"
_KEPT: Final = 4096
"""Most bytes of certificates and signatures of these statements in a document; the newest one is always kept."""


def sign_succession(cluster: str, issuer: Issuer, successor: Anchor) -> Succession:
    """Sign the statement by which `issuer`, a dropped CA, names the CA that is active from now on."""
    unsigned = Succession(issuer.generation, successor.generation, successor.certificate, successor.issuing, b"")
    return unsigned._replace(signature=keys.sign(issuer.key, _statement(cluster, unsigned)))


def carried(statements: Sequence[Succession]) -> tuple[Succession, ...]:
    """Keep the newest statements that fit into a document."""
    kept: list[Succession] = []
    room = _KEPT
    for statement in reversed(statements):
        room -= len(statement.certificate) + len(statement.issuing) + len(statement.signature)
        if kept and room < 0:
            break
        kept.insert(0, statement)
    return tuple(kept)


def heirs(cluster: str, trusted: Iterable[Anchor], statements: Iterable[Succession]) -> set[bytes]:
    """Return the trust anchors (DER) of `trusted`, and those to which their valid statements lead."""
    issuing: Mapping[int, bytes] = {anchor.generation: anchor.issuing for anchor in trusted}
    found = {anchor.certificate for anchor in trusted}
    for statement in statements:
        if statement.generation in issuing:
            with suppress(NotTrustedError):
                verify_signature(issuing[statement.generation], statement.signature, _statement(cluster, statement))
                issuing = {statement.successor: statement.issuing, **issuing}  # known generations are kept
                found.add(statement.certificate)
    return found


def _statement(cluster: str, statement: Succession) -> bytes:
    body = compact_json({"cluster": cluster} | as_json(statement._replace(signature=b""))).reveal()
    return signing_input(_SUCCESSION_TYPE, body)
