"""A whole cluster's certificates for any test: CA, credentials, CRL and signed trust document, made in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from daskpki import secret_names
from daskpki.authority.session import random_serial
from daskpki.confidential import Confidential
from daskpki.identity import Identity, Role, default_trust_domain, parse_slug
from daskpki.pki import pem
from daskpki.pki.certificates import der, load_certificate
from daskpki.pki.credential import Credential, certificate_pem, encode_credential, key_pem
from daskpki.pki.crl import Revocation, crl_part, sign_crl
from daskpki.pki.issuer import Issuer, create_intermediate, create_offline_root, create_root, issue_leaf
from daskpki.pki.keys import KeyType, generate_key, serialize_key
from daskpki.pki.profile import LeafRequest, Policy
from daskpki.pki.trust import sign_trust
from daskpki.pki.trust_document import ACTIVE, Anchor, CrlPart, TrustDocument
from daskpki.records import GENESIS
from tests.emulator.server import SecretManagerServer

USUAL = ("scheduler", "worker", "client/alice")


@dataclass
class Cluster:
    """One CA generation with what it issued; `trust` is the newest signed document, of epoch `epoch`."""

    name: str
    policy: Policy
    issuer: Issuer
    epoch: int = 0
    trust: Confidential = field(default_factory=lambda: Confidential(b""))
    credentials: dict[str, Credential] = field(default_factory=dict)

    @property
    def anchor(self) -> bytes:
        return der(self.issuer.root)

    @property
    def trust_domain(self) -> str:
        return self.policy.trust_domain

    def issue(
        self, slug: str, *, now: datetime | None = None, ttl: timedelta | None = None, kind: KeyType = KeyType.P256
    ) -> Credential:
        """A credential for ROLE/NAME, which replaces an earlier one."""
        role, name = parse_slug(slug)
        identity = Identity(self.trust_domain, role, name)
        request = LeafRequest(identity, dns=(), ips=(), ttl=None if ttl is None else int(ttl.total_seconds()))
        key = generate_key(kind)
        leaf = issue_leaf(
            self.issuer,
            request,
            key.public_key(),
            serial=random_serial(),
            now=now or datetime.now(UTC),
            policy=self.policy,
        )
        chain = tuple(map(der, self.issuer.chain))
        credential = Credential(self.name, identity, serialize_key(key), der(leaf), chain)
        self.credentials[identity.slug] = credential
        return credential

    def publish(
        self,
        *,
        revoked: Sequence[Credential] = (),
        now: datetime | None = None,
        schedulers: Sequence[str] = (),
        signers: Sequence[Issuer] | None = None,
        prev: int | None = None,
    ) -> Confidential:
        """Sign the next trust document, whose CRL revokes these; it becomes `trust`."""
        now = now or datetime.now(UTC)
        self.epoch += 1
        return self._sign(self._crl(revoked, now), now, schedulers, signers, prev)

    def _sign(
        self,
        crl: CrlPart,
        now: datetime,
        schedulers: Sequence[str],
        signers: Sequence[Issuer] | None,
        prev: int | None,
    ) -> Confidential:
        document = TrustDocument(
            format=1,
            min_reader=1,
            cluster=self.name,
            trust_domain=self.trust_domain,
            epoch=self.epoch,
            prev=self.epoch - 1 if prev is None else prev,
            operation=f"operation-{self.epoch}",
            issued_at=int(now.timestamp()),
            authorities=(Anchor(self.issuer.generation, ACTIVE, self.anchor, tuple(map(der, self.issuer.chain))),),
            crls=(crl,),
            log=(0, GENESIS),
            schedulers=tuple(schedulers),
        )
        self.trust = sign_trust(document, [self.issuer] if signers is None else signers)
        return self.trust

    def _crl(self, revoked: Sequence[Credential], now: datetime) -> CrlPart:
        serials = [load_certificate(credential.leaf).serial_number for credential in revoked]
        entries = [Revocation(serial, int(now.timestamp()), "keyCompromise") for serial in serials]
        return crl_part(self.issuer.generation, sign_crl(self.issuer, entries, number=self.epoch, now=now))

    def seed(self, server: SecretManagerServer, parent: str) -> None:
        """Put all of it into a test server, below `projects/P` or `projects/P/locations/L`."""
        for slug, credential in self.credentials.items():
            role, name = parse_slug(slug)
            secret = secret_names.credential_id(self.name, role, name)
            payload = encode_credential(credential, 1).reveal()
            server.seed(f"{parent}/secrets/{secret}", payload, labels=self.labels(role.value, name))
        trust = secret_names.trust_id(self.name)
        server.seed(f"{parent}/secrets/{trust}", self.trust.reveal(), labels=self.labels(secret_names.TRUST))

    def labels(self, kind: str, name: str | None = None) -> Mapping[str, str]:
        return secret_names.labels(self.name, kind, name)

    def export(self, slug: str, directory: Path) -> Path:
        """A credential directory, as `daskpki export` writes it."""
        credential = self.credentials[slug]
        directory.mkdir(mode=0o700, parents=True)
        public = {
            "ca.pem": pem.encode_pem(self.anchor, pem.CERTIFICATE).encode(),
            "cert.pem": certificate_pem(credential).encode(),
            "trust.json": self.trust.reveal(),
        }
        for name, data in public.items():
            (directory / name).write_bytes(data)
            (directory / name).chmod(0o644)
        key = directory / "key.pem"
        key.touch(mode=0o600)
        key.write_bytes(key_pem(credential).reveal())
        return directory


def make_cluster(
    name: str = "c",
    slugs: Sequence[str] = USUAL,
    *,
    trust_domain: str | None = None,
    tiers: int = 1,
    now: datetime | None = None,
    generation: int = 1,
    kind: KeyType = KeyType.P256,
) -> Cluster:
    """A cluster with a CA of one tier or two, these credentials (ROLE/NAME) and a first trust document."""
    now = now or datetime.now(UTC)
    domain = trust_domain or default_trust_domain(name)
    policy = Policy(domain, (domain,))
    cluster = Cluster(name, policy, _make_issuer(name, policy, tiers, generation, now))
    for slug in slugs:
        cluster.issue(slug, now=now, kind=kind)
    cluster.publish(now=now)
    return cluster


def _make_issuer(name: str, policy: Policy, tiers: int, generation: int, now: datetime) -> Issuer:
    key = generate_key(KeyType.P256)
    if tiers == 1:
        return create_root(name, policy, key, generation=generation, serial=random_serial(), now=now)
    root = create_offline_root(name, key, generation=generation, serial=random_serial(), now=now)
    below = generate_key(KeyType.P256)
    return create_intermediate(root, policy, below, generation=generation, serial=random_serial(), now=now)


def slug_of(role: Role, name: str | None = None) -> str:
    """ROLE/NAME as the keys of `Cluster.credentials` have it."""
    return f"{role.value}/{name or role.value}"
