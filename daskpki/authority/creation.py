"""Make one CA generation: reserve in the log → make the key, durably → sign the certificate → record it.

An offline root's key comes before all of it, since whatever is wrong with its file shall change nothing.

It issues nothing yet. What is cut off leaves a reservation without a certificate, which the next generation's
reservation closes; of two that are made at once, the later reservation wins and the other is refused.

Make a cluster's first CA: create it, activate it, publish the trust document.

Every step is found again: an `init-ca` that was cut off goes on with the CA it had made, or, when its key never
reached its place, begins a new generation. A CA that is complete is never overwritten.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from cryptography import x509

from daskpki.authority.ca_keys import CaKeys, OfflineRoot, parse_ca_key_type
from daskpki.authority.crl import first_root_crl
from daskpki.authority.lookup import anchor_der, policy_settings
from daskpki.authority.publication import OpenIssuer, publish
from daskpki.authority.session import Session
from daskpki.errors import AlreadyExistsError, ConflictError, UsageError
from daskpki.identity import default_trust_domain, parse_trust_domain
from daskpki.inventory import AuthorityRecord, Inventory, authority_after
from daskpki.pki.certificates import der, load_certificate
from daskpki.pki.issuer import Issuer, create_intermediate, create_offline_root, create_root
from daskpki.pki.keys import KeyType, PrivateKey, key_matches
from daskpki.pki.profile import Policy, make_policy, parse_ttl
from daskpki.records import CA_ACTIVATED, CA_CREATED, CA_RESERVED, CA_RETIRED, Draft

Check = Callable[[Inventory], None]
"""Raises unless a new generation may be made; asked of the very state of the log that it is recorded on."""


class Plan(NamedTuple):
    """What a new generation is to be; none of it can change later. `emergency` tells why it was made."""

    policy: Policy
    key_type: KeyType
    offline_root: OfflineRoot | None = None
    emergency: bool = False


def plan_ca(
    cluster: str,
    *,
    trust_domain: str | None = None,
    permit_dns: Iterable[str] = (),
    max_ttl: str | None = None,
    key_type: str = KeyType.P256,
    offline_root: OfflineRoot | None = None,
) -> Plan:
    """A cluster's first CA, as it was asked for; UsageError and PolicyError for what it cannot be."""
    domain = parse_trust_domain(trust_domain or default_trust_domain(cluster))
    policy = make_policy(domain, permit_dns, max_ttl=parse_ttl(max_ttl) if max_ttl else None)
    return Plan(policy, parse_ca_key_type(key_type), offline_root)


def create(session: Session, plan: Plan, keys: CaKeys, check: Check) -> AuthorityRecord:
    """The new generation, recorded as created."""
    keys.check()
    root_key = _root_key(session, plan)
    operation = session.operations()
    reserved = _reserve(session, plan, keys.uri, operation, check)
    issuer = _sign(session, plan, keys.make(reserved.generation, plan.key_type), root_key, reserved.generation)
    return _record(session, reserved, _certificates(issuer, root_key, session), operation, check)


def _reserve(session: Session, plan: Plan, key_uri: str, operation: str, check: Check) -> AuthorityRecord:
    settings = policy_settings(plan.policy) | ({"emergency": True} if plan.emergency else {})
    body = {"key_uri": key_uri, "trust_domain": plan.policy.trust_domain, "settings": settings}

    def decide(inventory: Inventory) -> list[Draft]:
        check(inventory)
        known = inventory.authorities()
        generation = max((entry.generation for entry in known), default=0) + 1
        cut_off = [entry for entry in known if entry.status == CA_RESERVED]
        closed = [Draft(CA_RETIRED, {"generation": entry.generation}) for entry in cut_off]
        return [*closed, Draft(CA_RESERVED, {"generation": generation} | body)]

    return authority_after(None, session.log.commit(decide, session.stamp(operation))[-1])


def _root_key(session: Session, plan: Plan) -> PrivateKey | None:
    """The key of a new offline root; UsageError when the file has that of another generation."""
    if plan.offline_root is None:
        return None
    key = plan.offline_root.make(plan.key_type)
    for entry in session.log.read_cached().authorities():
        if entry.certificate and key_matches(key, load_certificate(anchor_der(entry)).public_key()):
            raise UsageError(
                f"{plan.offline_root.path} holds the root key of CA {entry.generation}",
                hint="a new CA takes a new file",
            )
    return key


def _sign(session: Session, plan: Plan, key: PrivateKey, root_key: PrivateKey | None, generation: int) -> Issuer:
    cluster, now = session.cluster, session.now()
    if root_key is None:
        return create_root(cluster, plan.policy, key, generation=generation, serial=session.serials(), now=now)
    root = create_offline_root(cluster, root_key, generation=generation, serial=session.serials(), now=now)
    return create_intermediate(root, plan.policy, key, generation=generation, serial=session.serials(), now=now)


def _certificates(issuer: Issuer, root_key: PrivateKey | None, session: Session) -> dict[str, object]:
    """What is recorded of a CA that was just signed."""
    body: dict[str, object] = {"generation": issuer.generation, "certificate": _text(issuer.root)}
    if root_key is not None:
        body["chain"] = [_text(entry) for entry in issuer.chain]
        body["root_crl"] = base64.b64encode(first_root_crl(issuer, root_key, session.now())).decode()
    return body


def _record(
    session: Session, reserved: AuthorityRecord, body: Mapping[str, object], operation: str, check: Check
) -> AuthorityRecord:
    def decide(inventory: Inventory) -> list[Draft]:
        check(inventory)
        status = {entry.generation: entry.status for entry in inventory.authorities()}
        if status[reserved.generation] != CA_RESERVED:
            raise ConflictError("another command began a new CA meanwhile", hint="daskpki rotate-ca status")
        return [Draft(CA_CREATED, body)]

    (record,) = session.log.commit(decide, session.stamp(operation))
    return authority_after(reserved, record)


def _text(certificate: x509.Certificate) -> str:
    return base64.b64encode(der(certificate)).decode()


def init_ca(session: Session, plan: Plan, keys: CaKeys, issuers: OpenIssuer) -> AuthorityRecord:
    """Make the CA, or finish one that was cut off; AlreadyExistsError when there is a complete one."""
    authority = _unfinished(session.log.inventory(), session.cluster)
    if authority is None:
        authority = create(session, plan, keys, lambda inventory: _refuse_another(inventory, session.cluster))
    issuers(authority)
    activated = Draft(CA_ACTIVATED, {"generation": authority.generation})

    def decide(inventory: Inventory) -> list[Draft]:
        known = {entry.generation: entry.status for entry in inventory.authorities()}
        return [activated] if known[authority.generation] == CA_CREATED else []

    session.log.commit(decide, session.stamp())
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
