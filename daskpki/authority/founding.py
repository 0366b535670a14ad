"""Make a cluster's first CA: create it, activate it, publish the trust document.

Every step is found again: an `init-ca` that was cut off goes on with the CA it had made, or, when its key never
reached its place, begins a new generation. A CA that is complete is never overwritten.
"""

from __future__ import annotations

from functools import partial

from daskpki.authority.creation import Plan, create
from daskpki.authority.custody import CaKeys
from daskpki.authority.issuers import Issuers
from daskpki.authority.publishing import publish
from daskpki.authority.session import Session
from daskpki.errors import AlreadyExistsError
from daskpki.inventory import AuthorityRecord, Inventory
from daskpki.records import CA_ACTIVATED, CA_CREATED, CA_RESERVED, CA_RETIRED, Draft


def found(session: Session, plan: Plan, keys: CaKeys, issuers: Issuers) -> AuthorityRecord:
    """Make the CA, or finish one that was cut off; AlreadyExistsError when there is a complete one."""
    authority = _unfinished(session.log.inventory(), session.cluster)
    if authority is None:
        check = partial(_refuse_another, cluster=session.cluster)
        authority = create(session, plan, keys, check, issuers.adopt)
    issuers(authority)
    activated = Draft(CA_ACTIVATED, {"generation": authority.generation})

    def decide(inventory: Inventory) -> list[Draft]:
        known = {entry.generation: entry.status for entry in inventory.authorities()}
        return [activated] if known[authority.generation] == CA_CREATED else []

    session.commit(decide, session.stamp())
    publish(session, issuers)
    return authority._replace(status=CA_ACTIVATED)


def _unfinished(inventory: Inventory, cluster: str) -> AuthorityRecord | None:
    """A CA that was made but is in no trust document yet; AlreadyExistsError for one that is."""
    made = [entry for entry in inventory.authorities() if entry.status not in (CA_RESERVED, CA_RETIRED)]
    if made and inventory.published:
        raise _exists(made[-1], cluster)
    return made[-1] if made else None


def _refuse_another(inventory: Inventory, cluster: str) -> None:
    """Of two `init-ca` at once, one makes the CA."""
    if made := [entry for entry in inventory.authorities() if entry.status not in (CA_RESERVED, CA_RETIRED)]:
        raise _exists(made[-1], cluster)


def _exists(authority: AuthorityRecord, cluster: str) -> AlreadyExistsError:
    return AlreadyExistsError(
        f"cluster {cluster!r} has a CA already (generation {authority.generation})",
        hint="daskpki issue makes leaves from it; another cluster takes --cluster NAME; rotate-ca replaces a CA",
    )
