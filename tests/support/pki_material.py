"""Keys, CAs and generated requests for the tests of this part. Keys are made once, since RSA takes its time."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple

from cryptography import x509
from hypothesis import strategies as st

from daskpki.authority.session import random_serial
from daskpki.identity import Identity, Role
from daskpki.pki import crl
from daskpki.pki.crl import Crl
from daskpki.pki.issuer import Issuer, create_intermediate, create_offline_root, create_root, issue_leaf
from daskpki.pki.keys import KeyType, PrivateKey, generate_key
from daskpki.pki.pem import single_der
from daskpki.pki.profile import DAY, MIN_TTL, LeafRequest, Policy, make_policy

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
TD = "default.daskpki.internal"
POLICY = make_policy(TD, ["example.org"])
CA_KINDS = [kind for kind in KeyType if kind is not KeyType.ED25519]
"""The kinds of keys that a CA may have."""


def key(kind: KeyType = KeyType.P256, which: str = "leaf") -> PrivateKey:
    """The key of that kind and purpose, the same one throughout a run."""
    return _key(kind, which)


@cache
def _key(kind: KeyType, which: str) -> PrivateKey:  # noqa: ARG001 - the purpose is for the cache
    return generate_key(kind)


def authority(
    *, tiers: int = 1, kind: KeyType = KeyType.P256, policy: Policy = POLICY, generation: int = 1, now: datetime = NOW
) -> Issuer:
    """A CA of one tier or two."""
    if tiers == 1:
        own = key(kind, f"ca{generation}")
        return create_root("default", policy, own, generation=generation, serial=random_serial(), now=now)
    root = create_offline_root(
        "default", key(kind, f"root{generation}"), generation=generation, serial=random_serial(), now=now
    )
    own = key(kind, f"issuing{generation}")
    return create_intermediate(root, policy, own, generation=generation, serial=random_serial(), now=now)


def identity(role: Role = Role.WORKER, name: str = "w-1", trust_domain: str = TD) -> Identity:
    """An identity of the test cluster."""
    return Identity(trust_domain, role, name)


def leaf(
    issuer: Issuer,
    request: LeafRequest | None = None,
    *,
    kind: KeyType = KeyType.P256,
    policy: Policy = POLICY,
    now: datetime = NOW,
    serial: int | None = None,
) -> x509.Certificate:
    """A leaf of that issuer."""
    wanted = request or LeafRequest(identity())
    number = serial or random_serial()
    return issue_leaf(issuer, wanted, key(kind).public_key(), serial=number, now=now, policy=policy)


def parse_crl(data: bytes) -> Crl:
    """A CRL in DER or PEM, not verified: what the parser alone makes of it."""
    return crl._contents(crl._load(single_der(data, "the CRL", (crl._LABEL,))))


labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
top_labels = st.from_regex(r"[a-z0-9][a-z0-9-]{0,10}[a-z]", fullmatch=True)
domains = st.tuples(st.lists(labels, min_size=1, max_size=3).map(".".join), top_labels).map(".".join)
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).filter(lambda address: not address.is_unspecified)


class World(NamedTuple):
    """A CA's policy and a request that it allows."""

    policy: Policy
    request: LeafRequest


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Any policy with any request within it."""
    policy = make_policy(draw(domains), draw(st.lists(domains, max_size=2)))
    dns = draw(st.lists(st.tuples(labels, st.sampled_from(policy.permitted_dns)).map(".".join), max_size=3))
    ips: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = draw(st.lists(addresses, max_size=2))
    who = Identity(policy.trust_domain, draw(st.sampled_from(Role)), draw(labels))
    ttl = draw(st.none() | st.integers(MIN_TTL, 397 * DAY))
    return World(policy, LeafRequest(who, tuple(dns), tuple(ips), ttl))
