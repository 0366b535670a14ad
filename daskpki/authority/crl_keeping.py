"""The CRLs in the trust document: who stands on them, when they are signed anew, where long ones are kept.

A CRL whose entries do not fit the document is cut into pieces by serial, each a version of one secret: unchanged pieces
are not written again, and those that no document names any more are destroyed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final, NamedTuple

from daskpki import naming
from daskpki.authority.session import Session
from daskpki.confidential import Confidential
from daskpki.errors import AlreadyExistsError
from daskpki.inventory import Inventory
from daskpki.pki.certificates import load_certificate
from daskpki.pki.crl import Crl, Revocation, sign_crl, split_crl, verify_crl
from daskpki.pki.issuer import Issuer
from daskpki.pki.profile import DAY
from daskpki.pki.revoked import crl_der, crl_part, fits_inline, is_due, revoked_serials
from daskpki.pki.trust import CrlPart, TrustDocument
from daskpki.records import ABANDONED, REVOKED, REVOKING
from daskpki.store.port import ENABLED

CRL_MARGIN: Final = DAY
"""Seconds after notAfter for which an entry stays on the CRL, for verifiers whose clocks lag."""


def create_secret(session: Session, kind: str, secret: str) -> None:
    """Make one of the cluster's own secrets, if it is not there."""
    with suppress(AlreadyExistsError):  # another writer was first, to the same end; `add` checks whose it is
        session.store.secrets.create(secret, labels=naming.labels(session.cluster, kind))


def revocations(inventory: Inventory, generation: int, now: float) -> dict[int, Revocation]:
    """Who is on the CRL of that CA generation, by serial: revoked, being revoked or abandoned, and not long expired."""
    return {
        entry.serial: Revocation(entry.serial, entry.revoked_at or entry.reserved_at, entry.reason or "unspecified")
        for entry in inventory.certificates(statuses=[REVOKING, REVOKED, ABANDONED])
        if entry.issuer == generation and entry.not_after + CRL_MARGIN >= now
    }


def present_crl(
    session: Session,
    inventory: Inventory,
    previous: TrustDocument | None,
    revoked: Mapping[int, Mapping[int, Revocation]],
    issuer: Issuer,
    *,
    least: int,
    fresh: bool = False,
) -> CrlPart:
    """The present CRL of one generation, of number `least` or more.

    That is the previous one while it holds and is not due, unless a `fresh` one is wanted.
    """
    wanted = revocations(inventory, issuer.generation, session.now().timestamp())
    part = _previous_part(previous, issuer.generation)
    due = fresh or previous is None or is_due(previous, session.now())
    if part and not due and revoked[issuer.generation] == wanted:
        return part
    number = max(part.number + 1 if part else 1, least)
    return _stored(
        session, part, issuer.generation, sign_crl(issuer, wanted.values(), number=number, now=session.now())
    )


def _previous_part(previous: TrustDocument | None, generation: int) -> CrlPart | None:
    parts = previous.crls if previous else ()
    return next((part for part in parts if part.generation == generation), None)


def revoked_before(session: Session, previous: TrustDocument) -> Mapping[int, Mapping[int, Revocation]]:
    """The revocations that a document shows, its pieces read."""
    secret = naming.revoked_id(session.cluster)
    return revoked_serials(previous, lambda version: session.store.secrets.access(secret, version).reveal())


def _stored(session: Session, part: CrlPart | None, generation: int, der: bytes) -> CrlPart:
    """The CRL as the document holds it; long ones are kept in pieces, of which unchanged ones are not written again."""
    split = split_crl(der)
    if fits_inline(split):
        return crl_part(generation, der, split=split)
    if part is None or not part.pieces:
        create_secret(session, naming.REVOKED, naming.revoked_id(session.cluster))
    known = {piece.sha256: piece.version for piece in part.pieces} if part else {}
    versions = [_keep_piece(session, piece, known) for piece in split.pieces]
    return crl_part(generation, der, versions, split=split)


def _keep_piece(session: Session, piece: bytes, known: Mapping[str, int]) -> int:
    held = known.get(hashlib.sha256(piece).hexdigest())
    return held or session.store.secrets.add(naming.revoked_id(session.cluster), Confidential(piece))


def prune_pieces(session: Session, document: TrustDocument, before: Sequence[TrustDocument]) -> None:
    """Destroy the pieces that neither this document nor those `before` it name.

    Only versions below the highest named one: a writer that is about to publish adds its pieces above them, and one
    that lost against this document adds or finds its pieces anew.
    """
    named, earlier = _pieces(document), {number for known in before for number in _pieces(known)}
    if named == earlier:
        return
    named |= earlier
    secret = naming.revoked_id(session.cluster)
    for number, state, _ in session.store.secrets.versions(secret):
        if state == ENABLED and number not in named and number < max(named):
            session.store.secrets.destroy(secret, number)


def _pieces(document: TrustDocument) -> set[int]:
    return {piece.version for part in document.crls for piece in part.pieces}


class KeptCrl(NamedTuple):
    """The CRL of one generation as the trust document has it, put together and verified."""

    generation: int
    state: str
    der: bytes
    contents: Crl


def kept_crls(session: Session, trust: TrustDocument) -> list[KeptCrl]:
    """Every CRL of the document; also one that ran out, since it still says truly who is revoked."""
    secret = naming.revoked_id(session.cluster)
    anchors = {anchor.generation: anchor for anchor in trust.authorities}
    found = []
    for part in trust.crls:
        der = crl_der(part, lambda version: session.store.secrets.access(secret, version).reveal())
        anchor = anchors[part.generation]
        contents = verify_crl(der, load_certificate(anchor.issuing), now=None)
        found.append(KeptCrl(part.generation, anchor.state, der, contents))
    return found


def running_out(inventory: Inventory, now: datetime) -> int | None:
    """When the first CRL runs out (nextUpdate, in seconds since the epoch), once less than a third of its life is left.

    Any command that opens the CA's key signs it anew after the first third, so by then none did for weeks.
    """
    published = inventory.published
    if "next_update" not in published:
        return None
    third = (published["next_update"] - published["due"]) // 2
    return int(published["next_update"]) if now.timestamp() > published["next_update"] - third else None
