"""Revoke and release: recorded as intended, published in a new CRL, recorded as done.

A command that dies in between leaves the state `revoking`. Such a leaf is on every later CRL, and the next command that
publishes records it as done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from daskpki.authority.lookup import find, is_slug, not_issued
from daskpki.authority.publication import publish
from daskpki.authority.session import Session
from daskpki.errors import PolicyError, UsageError
from daskpki.handover import USUAL
from daskpki.identity import parse_slug
from daskpki.inventory import CertificateRecord, Inventory, certificate_after
from daskpki.pki.crl import parse_reason
from daskpki.records import ABANDONED, ISSUED, RELEASED, REVOKED, REVOKING, Draft

HOLD = "certificateHold"
"""The one reason that can be taken back (RFC 5280, 5.3.1)."""


Select = Callable[[Inventory], Sequence[CertificateRecord]]
"""Selects leaves in the state of the log to which the event is appended."""


def may_be_connected(entry: CertificateRecord, now: float) -> bool:
    """True if a leaf may still have connections, which outlive it by the nodes' `--grace`."""
    return entry.not_after + USUAL.grace >= now


def valid(which: str, now: float) -> Select:
    """Select one certificate by serial or fingerprint, in any state, or every leaf of ROLE/NAME that may be connected.

    The leaf before a renewal counts as well.
    """
    if not is_slug(which):
        return lambda inventory: [find(inventory, which)]
    return lambda inventory: [
        entry
        for entry in _named(inventory, which)
        if entry.status in (ISSUED, RELEASED) and may_be_connected(entry, now)
    ]


def on_hold(which: str) -> Select:
    """Select one certificate by serial or fingerprint, in any state, or every leaf of ROLE/NAME that is on hold."""

    def select(inventory: Inventory) -> list[CertificateRecord]:
        named = _named(inventory, which) if is_slug(which) else []
        return [entry for entry in named if entry.reason == HOLD] or [find(inventory, which)]

    return select


def _named(inventory: Inventory, which: str) -> list[CertificateRecord]:
    role, name = parse_slug(which)
    entries = list(inventory.certificates(role=role, name=name))
    if not entries:
        raise not_issued(inventory, f"{role.value}/{name}")
    return entries


def revocable(inventory: Inventory, select: Select, reason: str) -> list[CertificateRecord]:
    """The selected leaves that are not revoked for good; UsageError for a reason that RFC 5280 does not know."""
    parse_reason(reason)
    return [entry for entry in select(inventory) if _may_become(entry, reason)]


def revoke(session: Session, select: Select, reason: str) -> list[CertificateRecord]:
    """Revoke the selected leaves and publish; returns those that changed."""
    changing: list[CertificateRecord] = []

    def decide(inventory: Inventory) -> list[Draft]:
        changing[:] = revocable(inventory, select, reason)
        return [Draft(REVOKING, {"serial": f"{entry.serial:x}", "reason": reason}) for entry in changing]

    records = session.commit(decide, session.stamp())
    publish(session)
    changed = [certificate_after(entry, record) for entry, record in zip(changing, records, strict=True)]
    return [entry._replace(status=REVOKED) for entry in changed]


def release(session: Session, select: Select) -> list[CertificateRecord]:
    """Release the selected certificates from hold and publish; PolicyError for another reason than certificateHold."""
    released: list[CertificateRecord] = []

    def decide(inventory: Inventory) -> list[Draft]:
        released[:] = select(inventory)
        for entry in released:
            _check_on_hold(entry)
        return [Draft(RELEASED, {"serial": f"{entry.serial:x}"}) for entry in released]

    records = session.commit(decide, session.stamp())
    publish(session)
    return [certificate_after(entry, record) for entry, record in zip(released, records, strict=True)]


def _may_become(entry: CertificateRecord, reason: str) -> bool:
    """True if the leaf may be revoked for that reason: after a revocation, only a hold may still become final."""
    if entry.status in (REVOKING, REVOKED):
        return entry.reason == HOLD and reason != HOLD
    return entry.status != ABANDONED


def _check_on_hold(entry: CertificateRecord) -> None:
    if entry.status not in (REVOKING, REVOKED):
        raise UsageError(
            f"serial {entry.serial:x} is not on hold: it is {entry.status}",
            hint="only what was revoked by --reason certificateHold can be released",
        )
    if entry.reason != HOLD:
        raise PolicyError(
            f"serial {entry.serial:x} was revoked for {entry.reason}, which is final (RFC 5280, 5.3.1)",
            hint="issue a new certificate",
        )
