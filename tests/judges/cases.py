"""What the judges are shown: every kind of leaf, chain and revocation list, and what has to be refused.

All of it is made for this hour, since not every judge lets its clock be set.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import product
from typing import Any, Final, NamedTuple

from cryptography import x509
from cryptography.x509.oid import NameOID

from daskpki.authority.session import random_serial
from daskpki.identity import Role
from daskpki.pki.certificates import der, seconds
from daskpki.pki.crl import Revocation, sign_crl
from daskpki.pki.issuer import Issuer, create_intermediate, create_offline_root, create_root
from daskpki.pki.keys import KeyType, PrivateKey, signature_hash
from daskpki.pki.profile import HOUR, LOOPBACK, ROOT_CRL_LIFETIME, Grade, LeafRequest
from tests.support.pki_material import CA_KINDS, POLICY, identity, key, leaf

NOW: Final = datetime.now(UTC).replace(microsecond=0)
LONG_AGO: Final = NOW - timedelta(days=20)
DNS: Final = "w-1.example.org"
FOREIGN: Final = "w-1.example.com"
REVOKED_SERIAL: Final = random_serial()
UNUSED, STOLEN = 3, 4
CLIENT: Final = "client"
SERVER: Final = "server"

ACCEPTED: Final = "accepted"
EXPIRED: Final = "expired"
REVOKED: Final = "revoked"
PURPOSE: Final = "wrong purpose"
CONSTRAINT: Final = "constraint violated"
STRANGER: Final = "another CA's"


class Case(NamedTuple):
    """One leaf for one purpose, all in DER; `crls` are of its issuer and of the root where that is another one."""

    name: str
    kind: KeyType
    leaf: bytes
    chain: tuple[bytes, ...]
    root: bytes
    crls: tuple[bytes, ...]
    purpose: str
    verdict: str


class Authority(NamedTuple):
    """A CA of one tier or two, and its revocation lists."""

    issuer: Issuer
    crls: tuple[bytes, ...]

    def case(
        self, name: str, certificate: x509.Certificate, purpose: str, verdict: str, kind: KeyType = KeyType.P256
    ) -> Case:
        """A case of this CA."""
        chain, root = tuple(map(der, self.issuer.chain)), der(self.issuer.root)
        return Case(name, kind, der(certificate), chain, root, self.crls, purpose, verdict)


@cache
def authority(tiers: int, kind: KeyType, *, generation: int = 1) -> Authority:
    """The CA that issues the cases of that kind; one generation has revoked nothing, another one is itself revoked."""
    numbers: dict[str, Any] = {"generation": generation, "now": LONG_AGO}
    serials = () if generation == UNUSED else (random_serial(), REVOKED_SERIAL)
    entries = [Revocation(serial, seconds(NOW) - HOUR, "keyCompromise") for serial in serials]
    if tiers == 1:
        own = key(kind, f"judged{generation}")
        issuer = create_root("default", POLICY, own, serial=random_serial(), **numbers)
        return Authority(issuer, (sign_crl(issuer, entries, number=7, now=NOW),))
    root = create_offline_root("default", key(kind, f"judged root{generation}"), serial=random_serial(), **numbers)
    own = key(kind, f"judged issuing{generation}")
    issuer = create_intermediate(root, POLICY, own, serial=random_serial(), **numbers)
    itself = Revocation(issuer.certificate.serial_number, seconds(NOW) - HOUR, "cACompromise")
    root_crl = sign_crl(root, [itself] if generation == STOLEN else [], number=3, now=NOW, lifetime=ROOT_CRL_LIFETIME)
    return Authority(issuer, (sign_crl(issuer, entries, number=7, now=NOW), root_crl))


def accepted() -> Iterator[Case]:
    """Every kind of leaf, for what it is for."""
    for tiers, kind, role in product((1, 2), KeyType, Role):
        ca = authority(tiers, kind if kind in CA_KINDS else KeyType.P256)
        certificate = leaf(ca.issuer, LeafRequest(identity(role, "w-1"), (DNS,)), kind=kind, now=NOW)
        for purpose in (CLIENT,) if role is Role.CLIENT else (CLIENT, SERVER):
            name = f"{role.value} of {kind.value}, {tiers} tiers, as {purpose}"
            yield ca.case(name, certificate, purpose, ACCEPTED, kind)
    for tiers in (1, 2):
        ca = authority(tiers, KeyType.P256)
        admin = LeafRequest(identity(Role.CLIENT, "admin"), (DNS,), grades=(Grade.ADMIN,))
        yield ca.case(f"an administrator, {tiers} tiers", leaf(ca.issuer, admin, now=NOW), CLIENT, ACCEPTED)
        addressed = LeafRequest(identity(Role.SCHEDULER, "s"), (DNS,), LOOPBACK)
        yield ca.case(f"with IP addresses, {tiers} tiers", leaf(ca.issuer, addressed, now=NOW), SERVER, ACCEPTED)
        unused = authority(tiers, KeyType.P256, generation=UNUSED)
        usual = leaf(unused.issuer, LeafRequest(identity(), (DNS,)), now=NOW)
        yield unused.case(f"beside an empty revocation list, {tiers} tiers", usual, CLIENT, ACCEPTED)


def refused() -> Iterator[Case]:
    """What no judge may accept, under a CA of one tier and one of two."""
    for tiers in (1, 2):
        ca = authority(tiers, KeyType.P256)
        issuer = ca.issuer
        request = LeafRequest(identity(), (DNS,))
        old = leaf(issuer, LeafRequest(identity(), (DNS,), ttl=HOUR), now=NOW - timedelta(days=2))
        yield ca.case(f"expired, {tiers} tiers", old, CLIENT, EXPIRED)
        bad = leaf(issuer, request, now=NOW, serial=REVOKED_SERIAL)
        yield ca.case(f"revoked, {tiers} tiers", bad, CLIENT, REVOKED)
        alice = leaf(issuer, LeafRequest(identity(Role.CLIENT, "alice"), (DNS,)), now=NOW)
        yield ca.case(f"a client as server, {tiers} tiers", alice, SERVER, PURPOSE)
        yield ca.case(f"a foreign name, {tiers} tiers", foreign_name(bad, issuer.key), SERVER, CONSTRAINT)
        other = authority(tiers, KeyType.P256, generation=2)
        yield ca.case(f"another CA's, {tiers} tiers", leaf(other.issuer, request, now=NOW), CLIENT, STRANGER)
    stolen = authority(2, KeyType.P256, generation=STOLEN)
    yield stolen.case("of a revoked CA", leaf(stolen.issuer, LeafRequest(identity(), (DNS,)), now=NOW), CLIENT, REVOKED)


def foreign_name(like: x509.Certificate, signer: PrivateKey) -> x509.Certificate:
    """A leaf like that one for a name outside the CA's constraints, which daskpki itself would not sign."""
    builder = x509.CertificateBuilder(
        issuer_name=like.issuer,
        subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "worker w-1")]),
        public_key=like.public_key(),
        serial_number=random_serial(),
        not_valid_before=like.not_valid_before_utc,
        not_valid_after=like.not_valid_after_utc,
    )
    for entry in like.extensions:
        if isinstance(entry.value, x509.SubjectAlternativeName):
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(FOREIGN)]), critical=False)
        else:
            builder = builder.add_extension(entry.value, critical=entry.critical)
    return builder.sign(signer, signature_hash(signer))


@cache
def cases() -> tuple[Case, ...]:
    """All of them."""
    return (*accepted(), *refused())
