"""Creates a CA generation, and a cluster's first CA.

A generation: reserve it in the log → make the key, durably → sign the certificate → record it. It issues nothing yet.
An offline root's key is made before all of that, so that a wrong file changes nothing. An interrupted command leaves a
reservation without a certificate, which the next reservation closes. Of two commands at once, the later reservation
wins and the other command is refused.

The first CA is created and activated, then the trust document is published. After an interruption, `init-ca` continues
with the CA that it had made, or begins a new generation if the key was never stored. It continues only with a CA that
fits its options: before the first trust document, anyone who can write to the log could plant a first CA with their own
key. A complete CA is never overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

from daskpki.authority.ca_keys import CaKeys, OfflineRoot, parse_ca_key_type
from daskpki.authority.publication import publish
from daskpki.authority.session import Session, new_operation, random_serial
from daskpki.errors import AlreadyExistsError, ConflictError, PolicyError, UsageError
from daskpki.identity import default_trust_domain, parse_trust_domain
from daskpki.inventory import AuthorityRecord, Inventory, authority_after
from daskpki.pki.certificates import der, load_certificate
from daskpki.pki.crl import sign_crl
from daskpki.pki.issuer import Issuer, create_intermediate, create_offline_root, create_root
from daskpki.pki.json_fields import base64_text
from daskpki.pki.keys import KeyType, PrivateKey
from daskpki.pki.profile import ROOT_CRL_LIFETIME, Policy, make_policy, parse_ttl
from daskpki.records import CA_ACTIVATED, CA_CREATED, CA_RESERVED, CA_RETIRED, Draft

Check = Callable[[Inventory], None]
"""Raises unless a new generation may be made in that state of the log, to which it is then appended."""


class Plan(NamedTuple):
    """The requested generation; none of it can change later. `emergency` records why it is made."""

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
    """Plan a cluster's first CA; UsageError and PolicyError for a value that is not allowed.

    With `offline_root` it has two tiers: the root's key goes into that file.
    """
    domain = parse_trust_domain(trust_domain or default_trust_domain(cluster))
    policy = make_policy(domain, permit_dns, max_ttl=parse_ttl(max_ttl) if max_ttl else None)
    return Plan(policy, parse_ca_key_type(key_type), offline_root)


def create(session: Session, plan: Plan, keys: CaKeys, check: Check) -> AuthorityRecord:
    """Create and record a generation, whose key is open from then on."""
    keys.check()
    root_key = _root_key(session, plan)
    operation = new_operation()
    reserved = _reserve(session, plan, keys, operation, check)
    key = keys.make(reserved.generation, plan.key_type)
    issuer, body = _sign(session, plan, key, root_key, reserved.generation)
    session.issuers.adopt(issuer)  # it may have to sign its own record
    return _record(session, reserved, body, operation, check)


def _reserve(session: Session, plan: Plan, keys: CaKeys, operation: str, check: Check) -> AuthorityRecord:
    settings = plan.policy.settings | ({"emergency": True} if plan.emergency else {})
    place = {"key_uri": keys.uri, "sealing": keys.sealing}
    body = place | {"trust_domain": plan.policy.trust_domain, "settings": settings}

    def decide(inventory: Inventory) -> list[Draft]:
        check(inventory)
        known = inventory.authorities()
        generation = max((entry.generation for entry in known), default=0) + 1
        cut_off = [entry for entry in known if entry.status == CA_RESERVED]
        closed = [Draft(CA_RETIRED, {"generation": entry.generation}) for entry in cut_off]
        return [*closed, Draft(CA_RESERVED, {"generation": generation} | body)]

    return authority_after(None, session.commit(decide, session.stamp(operation))[-1])


def _root_key(session: Session, plan: Plan) -> PrivateKey | None:
    """The key of a new offline root; UsageError when the file has that of another generation."""
    if plan.offline_root is None:
        return None
    key = plan.offline_root.make(plan.key_type)
    for entry in session.log.read_cached().authorities():
        if entry.certificate and key.public_key() == load_certificate(entry.anchor_der).public_key():
            raise UsageError(
                f"{plan.offline_root.path} is the root key of CA {entry.generation}",
                hint="a new CA takes a new file",
            )
    return key


def _sign(
    session: Session, plan: Plan, key: PrivateKey, root_key: PrivateKey | None, generation: int
) -> tuple[Issuer, dict[str, object]]:
    """Sign the CA's certificates; returns its issuer and the body of its record."""
    cluster, now = session.cluster, session.now()
    if root_key is None:
        issuer = create_root(cluster, plan.policy, key, generation=generation, serial=random_serial(), now=now)
        return issuer, {"generation": generation, "certificate": base64_text(der(issuer.root))}
    root = create_offline_root(cluster, root_key, generation=generation, serial=random_serial(), now=now)
    issuer = create_intermediate(root, plan.policy, key, generation=generation, serial=random_serial(), now=now)
    return issuer, {
        "generation": generation,
        "certificate": base64_text(der(issuer.root)),
        "chain": [base64_text(der(entry)) for entry in issuer.chain],
        "root_crl": base64_text(sign_crl(root, (), number=1, now=now, lifetime=ROOT_CRL_LIFETIME)),
    }


def _record(
    session: Session, reserved: AuthorityRecord, body: Mapping[str, object], operation: str, check: Check
) -> AuthorityRecord:
    def decide(inventory: Inventory) -> list[Draft]:
        check(inventory)
        status = {entry.generation: entry.status for entry in inventory.authorities()}
        if status[reserved.generation] != CA_RESERVED:
            raise ConflictError("another command began a new CA meanwhile", hint="daskpki rotate-ca status")
        return [Draft(CA_CREATED, body)]

    (record,) = session.commit(decide, session.stamp(operation))
    return authority_after(reserved, record)


def init_ca(session: Session, plan: Plan, keys: CaKeys) -> AuthorityRecord:
    """Make the CA, or finish an interrupted one; AlreadyExistsError if there is a complete one, PolicyError."""
    inventory = session.log.inventory()
    made = _made(inventory)
    if made and inventory.published:
        raise _exists(made[-1], session.cluster)
    if made:
        authority = made[-1]
        _check_is_ours(authority, plan, keys, session.cluster)
    else:
        check = partial(_refuse_another, cluster=session.cluster)
        authority = create(session, plan, keys, check)
    session.issuers(authority)
    activated = Draft(CA_ACTIVATED, {"generation": authority.generation})

    def decide(inventory: Inventory) -> list[Draft]:
        known = {entry.generation: entry.status for entry in inventory.authorities()}
        return [activated] if known[authority.generation] == CA_CREATED else []

    session.commit(decide, session.stamp())
    publish(session)
    return authority._replace(status=CA_ACTIVATED)


def _made(inventory: Inventory) -> list[AuthorityRecord]:
    """The CAs whose creation was completed and that were not dropped."""
    return [entry for entry in inventory.authorities() if entry.status not in (CA_RESERVED, CA_RETIRED)]


def _check_is_ours(found: AuthorityRecord, plan: Plan, keys: CaKeys, cluster: str) -> None:
    """Raise PolicyError for an unfinished CA with another key, name or limit than this command asks for."""
    wanted = (keys.uri, keys.sealing, plan.policy.trust_domain, plan.policy.settings)
    if (found.key_uri, found.sealing, found.trust_domain, dict(found.settings)) != wanted:
        raise PolicyError(
            f"cluster {cluster!r} has an unfinished CA (generation {found.generation}, key in {found.key_uri}, sealing "
            f"{found.sealing}), which is not the one that these options make",
            hint="repeat init-ca with the options of the one that was cut off; if there was none, find out who can "
            "write to the store, and choose another --cluster",
        )


def _refuse_another(inventory: Inventory, cluster: str) -> None:
    """Raise AlreadyExistsError if another `init-ca` was first."""
    if made := _made(inventory):
        raise _exists(made[-1], cluster)


def _exists(authority: AuthorityRecord, cluster: str) -> AlreadyExistsError:
    return AlreadyExistsError(
        f"cluster {cluster!r} has a CA already (generation {authority.generation})",
        hint="daskpki issue makes leaves from it; another cluster takes --cluster NAME; rotate-ca replaces a CA",
    )
