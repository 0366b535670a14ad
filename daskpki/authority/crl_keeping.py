"""Who is revoked, as the trust document says it: CRLs, when they are signed again, and the serials of dropped CAs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Final, NamedTuple

from daskpki import naming
from daskpki.authority.policy import anchor_der, chain_der
from daskpki.authority.session import Session
from daskpki.errors import AlreadyExistsError
from daskpki.handover import USUAL
from daskpki.inventory import CertificateRecord, Inventory
from daskpki.pki.certificates import load_certificate, name_text
from daskpki.pki.crl import Crl, Revocation, sign_crl, verify_crl
from daskpki.pki.issuer import Issuer
from daskpki.pki.profile import DAY
from daskpki.pki.revoked import crl_der, crl_part, is_due
from daskpki.pki.trust import CrlPart, TrustDocument
from daskpki.pki.trust_document import DroppedCa
from daskpki.records import ABANDONED, CA_RETIRED, REVOKED, REVOKING

CRL_MARGIN: Final = DAY + USUAL.grace
"""Seconds after notAfter for which a revocation is published.

A day for verifiers whose clocks lag, and as long as a connection may outlive its certificate on nodes that were booted
without `--grace`.
"""

DROPPED_LIMIT: Final = 500
"""Revoked serials of dropped CAs that a trust document lists; of a CA with more, nobody stays connected."""


def create_secret(session: Session, kind: str, secret: str) -> None:
    """Make one of the cluster's own secrets, if it is not there."""
    with suppress(AlreadyExistsError):  # another writer was first, to the same end; `add` checks whose it is
        session.store.secrets.create(secret, labels=naming.labels(session.cluster, kind))


def _published(inventory: Inventory, now: float) -> Iterator[CertificateRecord]:
    """The leaves that are revoked, being revoked or abandoned, and not long expired."""
    for entry in inventory.certificates(statuses=[REVOKING, REVOKED, ABANDONED]):
        if entry.not_after + CRL_MARGIN >= now:
            yield entry


def revocations(inventory: Inventory, generation: int, now: float) -> dict[int, Revocation]:
    """Who is on the CRL of that CA generation, by serial."""
    return {
        entry.serial: Revocation(entry.serial, entry.revoked_at or entry.reserved_at, entry.reason or "unspecified")
        for entry in _published(inventory, now)
        if entry.issuer == generation
    }


def revoked_dropped(inventory: Inventory, now: float) -> tuple[DroppedCa, ...]:
    """The revoked serials of the CAs that were dropped, oldest CA first.

    Connections live on when their CA is dropped, and a CRL of it nobody would sign any more.
    """
    serials: dict[int, list[int]] = {}
    for revoked in _published(inventory, now):
        serials.setdefault(revoked.issuer, []).append(revoked.serial)
    found: list[DroppedCa] = []
    room = DROPPED_LIMIT
    for entry in reversed(inventory.authorities()):
        if entry.status == CA_RETIRED and entry.generation in serials:
            listed = tuple(sorted(serials[entry.generation]))
            fits = len(listed) <= room
            room -= len(listed) if fits else 0
            issuing = load_certificate((*chain_der(entry), anchor_der(entry))[0])
            found.insert(0, DroppedCa(entry.generation, name_text(issuing.subject), listed if fits else None))
    return tuple(found)


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
    moment = session.now().timestamp()
    wanted = _not_forgotten(inventory, revoked.get(issuer.generation, {}), moment)
    wanted |= revocations(inventory, issuer.generation, moment)
    part = _previous_part(previous, issuer.generation)
    due = fresh or previous is None or is_due(previous, session.now())
    if part and not due and revoked[issuer.generation] == wanted:
        return part
    number = max(part.number + 1 if part else 1, least)
    return crl_part(issuer.generation, sign_crl(issuer, wanted.values(), number=number, now=session.now()))


def _not_forgotten(inventory: Inventory, before: Mapping[int, Revocation], now: float) -> dict[int, Revocation]:
    """What the document before revoked stays revoked until its end, unless it was on hold."""
    kept = {}
    for serial, revocation in before.items():
        entry = inventory.certificate(serial)
        if revocation.reason != "certificateHold" and (entry is None or entry.not_after + CRL_MARGIN >= now):
            kept[serial] = revocation
    return kept


def _previous_part(previous: TrustDocument | None, generation: int) -> CrlPart | None:
    parts = previous.crls if previous else ()
    return next((part for part in parts if part.generation == generation), None)


class KeptCrl(NamedTuple):
    """The CRL of one generation as the trust document has it, verified."""

    generation: int
    state: str
    der: bytes
    contents: Crl


def kept_crls(trust: TrustDocument) -> list[KeptCrl]:
    """Every CRL of the document; also one that ran out, since it still says truly who is revoked."""
    anchors = {anchor.generation: anchor for anchor in trust.authorities}
    found = []
    for part in trust.crls:
        der, anchor = crl_der(part), anchors[part.generation]
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
