"""What other commands left undone, found on the way by every command that opens the CA's key.

It is judged here, from the log alone; what publishes is loaded only when there is something to publish.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from daskpki.authority.abandoning import abandon_stale, is_stale
from daskpki.authority.policy import STATES, living_authorities, published_authorities
from daskpki.authority.session import Session
from daskpki.inventory import AuthorityRecord, Inventory
from daskpki.records import REVOKING

if TYPE_CHECKING:
    from daskpki.pki.issuer import Issuer


def make_good(
    session: Session, seen: Inventory, issuers: Callable[[AuthorityRecord], Issuer], *, look: bool = False
) -> None:
    """Make good what `seen` shows undone.

    That is a CRL that is due, a revocation or a change of CAs that is not published, reservations left behind; and with
    `look`, a trust document in whose place an older one was put.
    """
    revoking = next(seen.certificates(statuses=[REVOKING]), None)
    unpublished = revoking is not None or not shows_authorities(seen, strictly=False)
    abandoned = is_stale(seen, session.now()) and abandon_stale(session)
    due = session.now().timestamp() >= seen.published.get("due", 0)
    if abandoned or unpublished or due or (look and _is_put_back(session)):
        from daskpki.authority.publishing import publish

        publish(session, issuers)


def _is_put_back(session: Session) -> bool:
    from daskpki.authority.put_back import is_put_back

    return is_put_back(session, session.log.glance())  # with what this very command published


def shows_authorities(inventory: Inventory, *, strictly: bool = True) -> bool:
    """Whether the trust document that was published last has the CAs of the log, each in its state.

    Not `strictly`, one that `rotate-ca start` made and did not publish is not missed.
    """
    living = living_authorities(inventory) if strictly else published_authorities(inventory)
    states = {str(entry.generation): STATES[entry.status] for entry in living}
    return bool(inventory.published.get("authorities") == states)
