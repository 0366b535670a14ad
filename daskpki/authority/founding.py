"""Make a cluster's first CA: reserve in the log → keep the key → sign → record → activate → publish the trust document.

Every step is found again: an `init-ca` that was cut off goes on with the CA it had made, or, when its key never
reached the store, begins a new generation. A CA that is complete is never overwritten.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import NamedTuple

from cryptography.hazmat.primitives.serialization import Encoding

from daskpki.authority.custody import CaKeys
from daskpki.authority.policy import issuer_of, policy_settings
from daskpki.authority.publishing import publish
from daskpki.authority.session import Session
from daskpki.errors import AlreadyExistsError
from daskpki.pki.issuer import create_root
from daskpki.pki.keys import KeyType, generate_key
from daskpki.pki.profile import Policy
from daskpki.records import (
    CA_ACTIVATED,
    CA_CREATED,
    CA_RESERVED,
    AuthorityRecord,
    Draft,
    Inventory,
    authority_after,
)


class Founding(NamedTuple):
    """What a new CA is to be; none of it can change later."""

    policy: Policy
    key_type: KeyType


def found(session: Session, founding: Founding, keys: CaKeys) -> AuthorityRecord:
    """Make the CA, or finish one that was cut off; AlreadyExistsError when there is a complete one."""
    authority = _unfinished(session.log.inventory(), session.cluster)
    if authority is None:
        authority = _create(session, founding, keys)
    issuer = issuer_of(authority, keys.open(authority.generation))
    activated = Draft(CA_ACTIVATED, {"generation": authority.generation})

    def decide(inventory: Inventory) -> Sequence[Draft]:
        known = {entry.generation: entry.status for entry in inventory.authorities()}
        return [activated] if known[authority.generation] == CA_CREATED else []

    session.log.commit(decide, session.stamp())
    publish(session, [issuer])
    return authority._replace(status=CA_ACTIVATED)


def _unfinished(inventory: Inventory, cluster: str) -> AuthorityRecord | None:
    """A CA that was made but is in no trust document yet; AlreadyExistsError for one that is."""
    made = [entry for entry in inventory.authorities() if entry.certificate is not None]
    if made and inventory.published:
        raise AlreadyExistsError(
            f"cluster {cluster!r} has a CA already (generation {made[-1].generation})",
            hint="daskpki issue makes leaves from it; another cluster takes --cluster NAME; rotate-ca replaces a CA",
        )
    return made[-1] if made else None


def _create(session: Session, founding: Founding, keys: CaKeys) -> AuthorityRecord:
    operation = session.operations()
    reserved = _reserve(session, founding, keys.uri, operation)
    key = generate_key(founding.key_type)
    keys.keep(reserved.generation, key)
    issuer = create_root(
        session.cluster,
        founding.policy,
        key,
        generation=reserved.generation,
        serial=session.serials(),
        now=session.now(),
    )
    certificate = base64.b64encode(issuer.root.public_bytes(Encoding.DER)).decode()
    created = Draft(CA_CREATED, {"generation": reserved.generation, "certificate": certificate})
    (record,) = session.log.commit(lambda _inventory: [created], session.stamp(operation))
    return authority_after(reserved, record)


def _reserve(session: Session, founding: Founding, key_uri: str, operation: str) -> AuthorityRecord:
    policy = founding.policy

    def decide(inventory: Inventory) -> Sequence[Draft]:
        _unfinished(inventory, session.cluster)
        generation = max((entry.generation for entry in inventory.authorities()), default=0) + 1
        body = {"generation": generation, "key_uri": key_uri, "trust_domain": policy.trust_domain}
        return [Draft(CA_RESERVED, body | {"settings": policy_settings(policy)})]

    (record,) = session.log.commit(decide, session.stamp(operation))
    return authority_after(None, record)
