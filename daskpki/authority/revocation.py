"""Revoke and release: recorded as intended, published in a new CRL, recorded as done.

A command that dies in between leaves `revoking`, which is on every CRL that is computed from then on; whoever publishes
next records it as done.
"""

from __future__ import annotations

from collections.abc import Sequence

from daskpki.authority.publishing import publish
from daskpki.authority.session import Session
from daskpki.errors import NotFoundError, PolicyError, UsageError
from daskpki.identity import Role
from daskpki.pki.crl import parse_reason
from daskpki.pki.issuer import Issuer
from daskpki.records import (
    ABANDONED,
    ISSUED,
    RELEASED,
    REVOKED,
    REVOKING,
    CertificateRecord,
    Draft,
    Inventory,
    certificate_after,
)

HOLD = "certificateHold"
"""The one reason that can be taken back (RFC 5280, 5.3.1)."""


def valid_leaves(inventory: Inventory, role: Role, name: str, now: float) -> list[CertificateRecord]:
    """Every leaf of that name that is neither revoked nor expired, superseded or not; NotFoundError if none was."""
    entries = list(inventory.certificates(role=role, name=name))
    if not entries:
        raise NotFoundError(f"no certificate {role.value}/{name} was issued here", hint="daskpki list shows all")
    return [entry for entry in entries if entry.status in (ISSUED, RELEASED) and entry.not_after >= now]


def revoke(session: Session, issuers: Sequence[Issuer], serials: Sequence[int], reason: str) -> list[CertificateRecord]:
    """Revoke these serials and publish; those that are revoked already stay as they are.

    Returns the entries that changed. NotFoundError for a serial that was never issued: revoking it would say nothing.
    """
    parse_reason(reason)
    changing: list[CertificateRecord] = []

    def decide(inventory: Inventory) -> list[Draft]:
        changing[:] = [entry for serial in serials if _can_be_revoked(entry := _issued(inventory, serial), reason)]
        return [Draft(REVOKING, {"serial": f"{entry.serial:x}", "reason": reason}) for entry in changing]

    records = session.log.commit(decide, session.stamp())
    publish(session, issuers)
    changed = [certificate_after(entry, record) for entry, record in zip(changing, records, strict=True)]
    return [entry._replace(status=REVOKED) for entry in changed]


def release(session: Session, issuers: Sequence[Issuer], serials: Sequence[int]) -> list[CertificateRecord]:
    """Take these serials off hold and publish; PolicyError for any that was revoked for another reason."""
    held: list[CertificateRecord] = []

    def decide(inventory: Inventory) -> list[Draft]:
        held[:] = [_held(_issued(inventory, serial)) for serial in serials]
        return [Draft(RELEASED, {"serial": f"{entry.serial:x}"}) for entry in held]

    records = session.log.commit(decide, session.stamp())
    publish(session, issuers)
    return [certificate_after(entry, record) for entry, record in zip(held, records, strict=True)]


def _issued(inventory: Inventory, serial: int) -> CertificateRecord:
    entry = inventory.certificate(serial)
    if entry is None:
        raise NotFoundError(f"serial {serial:x} was never issued here", hint="daskpki list shows all there are")
    return entry


def _can_be_revoked(entry: CertificateRecord, reason: str) -> bool:
    """A hold may be made final; what is final stays."""
    if entry.status in (REVOKING, REVOKED):
        return entry.reason == HOLD and reason != HOLD
    return entry.status != ABANDONED


def _held(entry: CertificateRecord) -> CertificateRecord:
    if entry.status not in (REVOKING, REVOKED):
        raise UsageError(f"serial {entry.serial:x} is not on hold: it is {entry.status}")
    if entry.reason != HOLD:
        raise PolicyError(
            f"serial {entry.serial:x} was revoked for {entry.reason}, which is final (RFC 5280, 5.3.1)",
            hint="issue a new certificate",
        )
    return entry
