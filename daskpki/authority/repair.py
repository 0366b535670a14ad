"""What other commands left undone, found on the way by every command that opens the CA's key.

It is judged here, from the log alone; what publishes is loaded only when there is something to publish.

Reservations that nobody confirmed: given up after ten minutes, their serials revoked, so that nothing stays open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final

from daskpki.authority.lookup import STATES, living_authorities
from daskpki.authority.session import Session
from daskpki.inventory import AuthorityRecord, CertificateRecord, Inventory
from daskpki.records import ABANDONED, RESERVED, REVOKING, Draft

if TYPE_CHECKING:
    from daskpki.pki.issuer import Issuer


def repair(
    session: Session, seen: Inventory, issuers: Callable[[AuthorityRecord], Issuer], *, look: bool = False
) -> None:
    """Make good what `seen` shows undone.

    That is a CRL that is due, a revocation or a change of CAs that is not published, reservations left behind; and with
    `look`, a trust document in whose place an older one was put.
    """
    unpublished = next(seen.certificates(statuses=[REVOKING]), None) is not None or not shows_authorities(seen)
    abandoned = is_stale(seen, session.now()) and abandon_stale(session)
    due = session.now().timestamp() >= seen.published.get("due", 0)
    if abandoned or unpublished or due or (look and _is_put_back(session)):
        from daskpki.authority.publication import publish

        publish(session, issuers)


def _is_put_back(session: Session) -> bool:
    from daskpki.authority.publication import is_put_back

    return is_put_back(session, session.log.read_cached())  # with what this very command published


def shows_authorities(inventory: Inventory) -> bool:
    """Whether the trust document that was published last has the CAs of the log, each in its state."""
    states = {str(entry.generation): STATES[entry.status] for entry in living_authorities(inventory)}
    return bool(inventory.published.get("authorities") == states)


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

    return len(session.log.commit(decide, session.stamp()))
