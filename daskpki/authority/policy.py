"""What a CA's records say about its policy and certificates: the log's JSON ↔ the types of `daskpki.pki`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from daskpki.errors import CorruptError, NotFoundError, PolicyError
from daskpki.inventory import AuthorityRecord, Inventory
from daskpki.pki.anchor import ACTIVE, NEXT, RETIRING
from daskpki.pki.profile import Policy
from daskpki.records import CA_ACTIVATED, CA_CREATED, CA_RETIRING

if TYPE_CHECKING:
    from daskpki.pki.issuer import Issuer
    from daskpki.pki.keys import PrivateKey

STATES: Final = {CA_CREATED: NEXT, CA_ACTIVATED: ACTIVE, CA_RETIRING: RETIRING}
"""What the log's events make of a generation in the trust document."""


def policy_settings(policy: Policy) -> dict[str, Any]:
    """A policy as the log keeps it; the trust domain has a field of its own there."""
    return {"permit_dns": list(policy.permitted_dns), "max_ttl": policy.max_ttl}


def recorded_policy(authority: AuthorityRecord) -> Policy:
    """The policy that was fixed when the CA was made."""
    settings: Mapping[str, Any] = authority.settings
    return Policy(authority.trust_domain, tuple(settings["permit_dns"]), settings["max_ttl"])


def anchor_der(authority: AuthorityRecord) -> bytes:
    """The DER of the trust anchor; CorruptError when the log holds none."""
    if authority.certificate is None:
        raise CorruptError(f"CA {authority.generation} has no certificate in the log")
    return base64.b64decode(authority.certificate)


def chain_der(authority: AuthorityRecord) -> tuple[bytes, ...]:
    """The DER of the intermediates, the one that issues first; empty for a CA of one tier."""
    return tuple(base64.b64decode(entry) for entry in authority.chain)


def issuer_of(authority: AuthorityRecord, key: PrivateKey) -> Issuer:
    """The authority as something that signs; NotTrustedError when the key is not its own."""
    from daskpki.pki.issuer import open_issuer

    return open_issuer(anchor_der(authority), chain_der(authority), key, generation=authority.generation)


def active_authority(inventory: Inventory, cluster: str) -> AuthorityRecord:
    """The generation that issues; NotFoundError when the cluster has no CA yet."""
    for authority in inventory.authorities():
        if authority.status == CA_ACTIVATED:
            return authority
    raise NotFoundError(
        f"cluster {cluster!r} has no CA in this store", hint=f"daskpki --cluster {cluster} init-ca makes one"
    )


def living_authorities(inventory: Inventory) -> list[AuthorityRecord]:
    """The generations that stand in the trust document."""
    return [authority for authority in inventory.authorities() if authority.status in STATES]


def published_authorities(inventory: Inventory, adding: int | None = None) -> list[AuthorityRecord]:
    """The generations that the next trust document shows.

    A generation that `rotate-ca start` made and did not publish is left out by every other command: only the one that
    is `adding` it shows it for the first time.
    """
    shown = inventory.published.get("authorities")
    return [
        entry
        for entry in living_authorities(inventory)
        if entry.status != CA_CREATED or shown is None or entry.generation == adding or str(entry.generation) in shown
    ]


def check_no_emergency(inventory: Inventory) -> None:
    """Raise PolicyError while an emergency is cut off half-way: whatever is signed then may be the thief's."""
    shown = inventory.published.get("authorities", {})
    for entry in living_authorities(inventory):
        if entry.settings.get("emergency") and shown and str(entry.generation) not in shown:
            raise PolicyError(
                f"rotate-ca --emergency was cut off after it made CA {entry.generation}",
                hint="daskpki rotate-ca --emergency goes on with it",
            )
