"""Reservations that nobody confirmed: given up after ten minutes, their serials revoked, so that nothing stays open."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from daskpki.authority.session import Session
from daskpki.inventory import CertificateRecord, Inventory
from daskpki.records import ABANDONED, RESERVED, Draft

ABANDON_AFTER: Final = 600
"""Seconds after which an unconfirmed reservation counts as a command that died."""


def is_stale(inventory: Inventory, now: datetime) -> bool:
    """Whether there is a reservation to give up."""
    return next(_stale(inventory, now), None) is not None


def _stale(inventory: Inventory, now: datetime) -> Iterator[CertificateRecord]:
    before = now.timestamp() - ABANDON_AFTER
    return (entry for entry in inventory.certificates(statuses=[RESERVED]) if entry.reserved_at < before)


def abandon_stale(session: Session) -> int:
    """Give up what is stale and return how many; the serials belong on the CRL, so the caller publishes."""

    def decide(inventory: Inventory) -> list[Draft]:
        return [Draft(ABANDONED, {"serial": f"{entry.serial:x}"}) for entry in _stale(inventory, session.now())]

    return len(session.commit(decide, session.stamp()))
