"""A scheduler and a worker of a cluster that exists for the length of the self-test only."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography.hazmat.primitives.serialization import Encoding

from daskpki.cluster.audit import Audit
from daskpki.cluster.contexts import KeyPair
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.policy import WorkerClients
from daskpki.cluster.trust import Trust, ca_name
from daskpki.identity import Identity, Role, default_trust_domain
from daskpki.pki.credential import Credential, certificate_pem, key_pem
from daskpki.pki.issuer import Issuer, create_root, issue_leaf
from daskpki.pki.keys import KeyType, generate_key, serialize_key
from daskpki.pki.profile import LeafRequest, Policy, make_policy

_CLUSTER = "rehearsal"


def rehearsal_pair() -> tuple[Enforcement, Enforcement]:
    """The Enforcements of a scheduler and of a worker that trust one another, with keys made just now."""
    now = datetime.now(UTC)
    policy = make_policy(default_trust_domain(_CLUSTER))
    issuer = create_root(_CLUSTER, policy, generate_key(KeyType.P256), generation=1, serial=1, now=now)
    return _enforcement(issuer, policy, Role.SCHEDULER, now), _enforcement(issuer, policy, Role.WORKER, now)


def _enforcement(issuer: Issuer, policy: Policy, role: Role, now: datetime) -> Enforcement:
    identity = Identity(policy.trust_domain, role, role.value)
    key = generate_key(KeyType.P256)
    leaf = issue_leaf(issuer, LeafRequest(identity), key.public_key(), serial=2, now=now, policy=policy)
    credential = Credential(_CLUSTER, identity, 1, serialize_key(key), leaf.public_bytes(Encoding.DER), ())
    root = issuer.root.public_bytes(Encoding.DER)
    trust = Trust(_CLUSTER, policy.trust_domain, 1, (root,), frozenset({ca_name(root)}))
    pair = KeyPair(certificate_pem(credential), key_pem(credential))
    return Enforcement(identity, pair, trust, mode=WorkerClients.LIMITED, audit=Audit(log=None))
