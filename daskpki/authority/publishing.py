"""The trust document: computed from the log, signed, and published as the next link of its chain.

It is always computed from the log *after* the event that makes it necessary, so whoever publishes last publishes
everything, and a command that died before publishing is made good by the next one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from daskpki import naming
from daskpki.authority.abandoning import abandon_stale, is_stale
from daskpki.authority.policy import anchor_der, chain_der, living_authorities
from daskpki.authority.session import Session
from daskpki.confidential import Confidential
from daskpki.errors import AlreadyExistsError, NotFoundError, NotTrustedError
from daskpki.pki.crl import Revocation, sign_crl, split_crl
from daskpki.pki.issuer import Issuer
from daskpki.pki.profile import DAY
from daskpki.pki.revoked import crl_part, fits_inline, is_due, revoked_serials
from daskpki.pki.trust import (
    ACTIVE,
    FORMAT,
    NEXT,
    READER,
    RETIRING,
    Anchor,
    CrlPart,
    TrustDocument,
    parse_trust,
    sign_trust,
    verify_trust,
)
from daskpki.records import (
    ABANDONED,
    CA_ACTIVATED,
    CA_CREATED,
    CA_RETIRING,
    PUBLISHED,
    REVOKED,
    REVOKING,
    AuthorityRecord,
    CertificateRecord,
    Draft,
    Inventory,
)
from daskpki.store.linear import Head, Link, Tip
from daskpki.store.trust import TrustPayload, trust_chain

CRL_MARGIN: Final = DAY
"""Seconds after notAfter for which an entry stays on the CRL, for verifiers whose clocks lag."""

_STATES: Final = {CA_CREATED: NEXT, CA_ACTIVATED: ACTIVE, CA_RETIRING: RETIRING}


def current_trust(session: Session) -> TrustDocument:
    """The newest trust document, verified against the CAs in the log; NotFoundError before the first."""
    head = trust_chain(session.store.secrets, session.cluster).head()
    if head is None:
        raise NotFoundError(f"cluster {session.cluster!r} has no trust document", hint="daskpki init-ca makes one")
    return _verified(session, session.log.inventory(), head.payload)


def _verified(session: Session, inventory: Inventory, payload: TrustPayload) -> TrustDocument:
    anchors = [anchor_der(entry) for entry in inventory.authorities() if entry.certificate]
    return verify_trust(payload.signed, cluster=session.cluster, anchors=anchors, now=session.now())


def publish(session: Session, issuers: Sequence[Issuer]) -> TrustDocument:
    """Sign and publish what the log says now; NotTrustedError when a CRL has changed whose CA's key is not open.

    What was being revoked is recorded as revoked together with the publication.
    """
    operation = session.operations()
    chain = trust_chain(session.store.secrets, session.cluster)
    revoking: list[CertificateRecord] = []

    def build(tip: Tip[TrustPayload], link: Link) -> TrustPayload:
        inventory = session.log.glance()  # it shows one's own event; what it may miss, its own author publishes
        if tip.head is None:
            _create_secret(session, naming.TRUST, naming.trust_id(session.cluster))
            _create_secret(session, naming.REVOKED, naming.revoked_id(session.cluster))  # so that grants can name it
        previous = None if tip.head is None else _verified(session, inventory, tip.head.payload)
        revoking[:] = inventory.certificates(statuses=[REVOKING])
        document = _compose(session, inventory, previous, link, {issuer.generation: issuer for issuer in issuers})
        data = sign_trust(document, issuers)
        return TrustPayload(data, parse_trust(data))

    head = chain.append(build, operation)
    assert head is not None, "build always makes a document"
    _record(session, head, revoking, operation)
    chain.prune(head)
    return head.payload.signed.document


def _record(session: Session, head: Head[TrustPayload], revoking: Sequence[CertificateRecord], operation: str) -> None:
    document = head.payload.signed.document
    published = Draft(PUBLISHED, {"epoch": document.epoch, "version": head.number, "due": due(document)})

    def decide(inventory: Inventory) -> list[Draft]:
        now = [inventory.certificate(entry.serial) for entry in revoking]
        done = [entry for entry in now if entry is not None and entry.status == REVOKING]
        return [published, *(Draft(REVOKED, {"serial": f"{entry.serial:x}"}) for entry in done)]

    session.log.commit(decide, session.stamp(operation))


def due(document: TrustDocument) -> int:
    """When the first of its CRLs is to be signed anew, once a third of its life is past; seconds since the epoch."""
    return min(part.this_update + (part.next_update - part.this_update) // 3 for part in document.crls)


def _create_secret(session: Session, kind: str, secret: str) -> None:
    with suppress(AlreadyExistsError):  # another writer was first, to the same end; `add` checks whose it is
        session.store.secrets.create(secret, labels=naming.labels(session.cluster, kind))


def _compose(
    session: Session,
    inventory: Inventory,
    previous: TrustDocument | None,
    link: Link,
    issuers: Mapping[int, Issuer],
) -> TrustDocument:
    living = living_authorities(inventory)
    return TrustDocument(
        format=FORMAT,
        min_reader=READER,
        cluster=session.cluster,
        trust_domain=living[-1].trust_domain,
        epoch=link.seq,
        prev=link.prev,
        operation=link.operation,
        issued_at=int(session.now().timestamp()),
        authorities=tuple(_anchor(entry) for entry in living),
        crls=tuple(_crl(session, inventory, previous, entry, issuers.get(entry.generation)) for entry in living),
        log=inventory.head,
        schedulers=previous.schedulers if previous else (),
    )


def _anchor(entry: AuthorityRecord) -> Anchor:
    return Anchor(entry.generation, _STATES[entry.status], anchor_der(entry), chain_der(entry))


def revocations(inventory: Inventory, generation: int, now: float) -> dict[int, Revocation]:
    """Who is on the CRL of that CA generation, by serial: revoked, being revoked or abandoned, and not long expired."""
    return {
        entry.serial: Revocation(entry.serial, entry.revoked_at or entry.reserved_at, entry.reason or "unspecified")
        for entry in inventory.certificates(statuses=[REVOKING, REVOKED, ABANDONED])
        if entry.issuer == generation and entry.not_after + CRL_MARGIN >= now
    }


def _crl(
    session: Session,
    inventory: Inventory,
    previous: TrustDocument | None,
    entry: AuthorityRecord,
    issuer: Issuer | None,
) -> CrlPart:
    wanted = revocations(inventory, entry.generation, session.now().timestamp())
    part = _previous_part(previous, entry.generation)
    if previous is not None and part is not None:
        unchanged = _revoked_before(session, previous)[entry.generation] == wanted
        if unchanged and (issuer is None or not is_due(previous, session.now())):
            return part
    if issuer is None:
        raise NotTrustedError(f"the CRL of CA {entry.generation} has changed, and its key is not open to sign it")
    number = part.number + 1 if part else 1
    return _stored(
        session, previous, entry.generation, sign_crl(issuer, wanted.values(), number=number, now=session.now())
    )


def _previous_part(previous: TrustDocument | None, generation: int) -> CrlPart | None:
    parts = previous.crls if previous else ()
    return next((part for part in parts if part.generation == generation), None)


def _revoked_before(session: Session, previous: TrustDocument) -> Mapping[int, Mapping[int, Revocation]]:
    secret = naming.revoked_id(session.cluster)
    return revoked_serials(previous, lambda version: session.store.secrets.access(secret, version).reveal())


def _stored(session: Session, previous: TrustDocument | None, generation: int, der: bytes) -> CrlPart:
    """The CRL as the document holds it; long ones are kept in pieces, of which unchanged ones are not written again."""
    split = split_crl(der)
    if fits_inline(split):
        return crl_part(generation, der)
    part = _previous_part(previous, generation)
    if part is None or not part.pieces:
        _create_secret(session, naming.REVOKED, naming.revoked_id(session.cluster))
    known = {piece.sha256: piece.version for piece in part.pieces} if part else {}
    return crl_part(generation, der, [_keep_piece(session, piece, known) for piece in split.pieces])


def _keep_piece(session: Session, piece: bytes, known: Mapping[str, int]) -> int:
    held = known.get(hashlib.sha256(piece).hexdigest())
    return held or session.store.secrets.add(naming.revoked_id(session.cluster), Confidential(piece))


def refresh(session: Session, seen: Inventory, issuer: Issuer) -> None:
    """Make good what `seen` shows undone: a CRL that is due, a revocation unpublished, reservations left behind."""
    unpublished = next(seen.certificates(statuses=[REVOKING]), None) is not None
    abandoned = is_stale(seen, session.now()) and abandon_stale(session)
    if abandoned or unpublished or session.now().timestamp() >= seen.published.get("due", 0):
        publish(session, [issuer])
