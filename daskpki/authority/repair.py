"""Repairs the unfinished work of other commands; every command that opens the CA's key calls it.

It decides from the log alone, and loads the code that publishes only when there is something to publish. Reservations
that nobody confirmed are abandoned after ten minutes and their serials revoked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final

from daskpki.authority.lookup import STATES, living_authorities, published_authorities
from daskpki.authority.session import Session
from daskpki.inventory import AuthorityRecord, CertificateRecord, Inventory
from daskpki.records import ABANDONED, RESERVED, REVOKING, Draft

if TYPE_CHECKING:
    from daskpki.pki.issuer import Issuer


def repair(
    session: Session, seen: Inventory, issuers: Callable[[AuthorityRecord], Issuer], *, check_rollback: bool = False
) -> None:
    """Repair the unfinished work that `seen` shows.

    That is a due CRL, an unpublished revocation or change of CAs, and stale reservations; with `check_rollback` also a
    rolled-back trust document.
    """
    revoking = next(seen.certificates(statuses=[REVOKING]), None)
    unpublished = revoking is not None or not shows_authorities(seen, strictly=False)
    abandoned = any(True for _ in _stale(seen, session.now())) and _abandon_stale(session)
    due = session.now().timestamp() >= seen.published.get("due", 0)
    needed = abandoned or unpublished or due
    if needed or check_rollback:
        from daskpki.authority.publication import is_rolled_back, publish

        if needed or is_rolled_back(session, session.log.read_cached()):  # with what this very command published
            publish(session, issuers)


def shows_authorities(inventory: Inventory, *, strictly: bool = True) -> bool:
    """True if the trust document that was published last has the CAs of the log, each in its state.

    Unless `strictly`, a CA that `rotate-ca start` made and did not publish may be missing.
    """
    living = living_authorities(inventory) if strictly else published_authorities(inventory)
    states = {str(entry.generation): STATES[entry.status] for entry in living}
    return bool(inventory.published.get("authorities") == states)


ABANDON_AFTER: Final = 600
"""Seconds after which an unconfirmed reservation counts as a command that died."""


def _stale(inventory: Inventory, now: datetime) -> Iterator[CertificateRecord]:
    before = now.timestamp() - ABANDON_AFTER
    return (entry for entry in inventory.certificates(statuses=[RESERVED]) if entry.reserved_at < before)


def _abandon_stale(session: Session) -> int:
    """Abandon stale reservations and return how many; their serials belong on the CRL, so the caller publishes."""

    def decide(inventory: Inventory) -> list[Draft]:
        return [Draft(ABANDONED, {"serial": f"{entry.serial:x}"}) for entry in _stale(inventory, session.now())]

    return len(session.commit(decide, session.stamp()))
