"""Certificates for the tests of the running cluster: a real CA, and leaves that are right or wrong on purpose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from distributed import Security

from daskpki.authority.crl import DROPPED_LIMIT
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.peer import TrustState, trust_of
from daskpki.cluster.policy import WorkerClients
from daskpki.cluster.tls import KeyPair
from daskpki.confidential import Confidential
from daskpki.identity import Identity, Role, default_trust_domain
from daskpki.pki.certificates import der, name_text
from daskpki.pki.credential import Credential, certificate_pem, key_pem
from daskpki.pki.crl import Revocation, crl_part, sign_crl
from daskpki.pki.issuer import Issuer, create_intermediate, create_offline_root, create_root, issue_leaf, key_usage
from daskpki.pki.keys import KeyType, PrivateKey, generate_key, serialize_key
from daskpki.pki.pem import CERTIFICATE, encode_pem
from daskpki.pki.profile import Grade, LeafRequest, make_policy
from daskpki.pki.trust import sign_trust
from daskpki.pki.trust_document import ACTIVE, NEXT, RETIRING, Anchor, DroppedCa, TrustDocument

DAY = timedelta(days=1)
NOW = timedelta(0)


class Leaf(NamedTuple):
    """A credential, its serial, and the generation of its CA."""

    credential: Credential
    serial: int
    generation: int

    @property
    def identity(self) -> Identity:
        return self.credential.identity

    @property
    def pair(self) -> KeyPair:
        return KeyPair(certificate_pem(self.credential), key_pem(self.credential))


class Files(NamedTuple):
    """The same as PEM files, for stock Dask and for handovers."""

    cert: str
    key: str
    ca: str


class Authority:
    """One cluster's CA, made five days ago; each later CA has as many tiers."""

    def __init__(self, cluster: str = "default", *, tiers: int = 1) -> None:
        self.cluster = cluster
        self.trust_domain = default_trust_domain(cluster)
        self.policy = make_policy(self.trust_domain)
        self._serial = 1
        self._tiers = tiers
        self.issuer = self._create(1, datetime.now(UTC) - 5 * DAY)
        self.der = der(self.issuer.root)
        self.authorities = [(self.issuer, ACTIVE)]
        self._signers = list(self.authorities)
        self._revoked: dict[int, list[Revocation]] = {}
        self._dropped: list[Issuer] = []
        self._epoch = 0
        self.revoked = self.leaf(Role.WORKER, "stolen")
        self.revoke(self.revoked)

    def leaf(
        self,
        role: Role,
        name: str | None = None,
        *,
        at: timedelta = timedelta(0),
        ttl: int | None = None,
        grades: tuple[Grade, ...] = (),
    ) -> Leaf:
        """A leaf issued `at` from now: a past or future one is expired or not yet valid."""
        identity = Identity(self.trust_domain, role, name or role.value)
        key, serial = generate_key(KeyType.P256), self._next_serial()
        request = LeafRequest(identity, ttl=ttl, grades=grades)
        now = datetime.now(UTC) + at
        certificate = issue_leaf(self.issuer, request, key.public_key(), serial=serial, now=now, policy=self.policy)
        return self._leaf(identity, key, certificate)

    def forged(self, role: Role, uris: Sequence[str] | None = None, *, without: str = "", ca: bool = False) -> Leaf:
        """A leaf that our profile would refuse to issue: with these URIs for its identity, or as the options say."""
        model = self.leaf(role)
        certificate = x509.load_der_x509_certificate(model.credential.leaf)
        key = generate_key(KeyType.P256)
        builder = x509.CertificateBuilder(
            issuer_name=certificate.issuer,
            subject_name=certificate.subject,
            public_key=key.public_key(),
            serial_number=self._next_serial(),
            not_valid_before=certificate.not_valid_before_utc.replace(tzinfo=None),
            not_valid_after=certificate.not_valid_after_utc.replace(tzinfo=None),
        )
        for extension in certificate.extensions:
            value = extension.value
            if extension.oid._name == without:
                continue
            if ca and isinstance(value, x509.BasicConstraints):
                value = x509.BasicConstraints(ca=True, path_length=None)
            if ca and isinstance(value, x509.KeyUsage):
                value = key_usage(signature=True, certificates=True)
            if uris is not None and isinstance(value, x509.SubjectAlternativeName):
                names = [x509.UniformResourceIdentifier(uri) for uri in uris]
                value = x509.SubjectAlternativeName([*names, x509.DNSName(model.identity.dns)])
            if isinstance(value, x509.SubjectKeyIdentifier):
                value = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
            builder = builder.add_extension(value, critical=extension.critical)
        return self._leaf(model.identity, key, builder.sign(self.issuer.key, hashes.SHA256()))

    def revoke(self, leaf: Leaf) -> None:
        entry = Revocation(leaf.serial, int(datetime.now(UTC).timestamp()), "keyCompromise")
        self._revoked.setdefault(leaf.generation, []).append(entry)

    def revoke_serials(self, serials: Iterable[int], generation: int | None = None) -> None:
        """Revoke leaves that nobody has, of the active CA or another."""
        now = int(datetime.now(UTC).timestamp())
        entries = self._revoked.setdefault(generation or self.issuer.generation, [])
        entries.extend(Revocation(serial, now, "superseded") for serial in serials)

    def document(self, *, lifetime: timedelta = 35 * DAY, at: timedelta = timedelta(0)) -> TrustDocument:
        """The next trust document."""
        self._epoch += 1
        now = datetime.now(UTC) + at
        seconds = int(lifetime.total_seconds())
        return TrustDocument(
            format=1,
            min_reader=1,
            cluster=self.cluster,
            trust_domain=self.trust_domain,
            epoch=self._epoch,
            prev=self._epoch - 1,
            operation=f"test-{self._epoch}",
            issued_at=int(now.timestamp()),
            authorities=tuple(
                Anchor(issuer.generation, state, der(issuer.root), tuple(map(der, issuer.chain)))
                for issuer, state in self.authorities
            ),
            crls=tuple(
                crl_part(issuer.generation, self._crl(issuer, now, seconds)) for issuer, _state in self.authorities
            ),
            log=(self._epoch, "0" * 64),
            revoked_dropped=tuple(
                DroppedCa(issuer.generation, name_text(issuer.certificate.subject), self._revoked_under(issuer))
                for issuer in self._dropped
                if issuer.generation in self._revoked
            ),
        )

    def _crl(self, issuer: Issuer, now: datetime, lifetime: int) -> bytes:
        revoked = self._revoked.get(issuer.generation, [])
        return sign_crl(issuer, revoked, number=self._epoch, now=now, lifetime=lifetime)

    def _revoked_under(self, issuer: Issuer) -> tuple[int, ...] | None:
        serials = tuple(entry.serial for entry in self._revoked[issuer.generation])
        return serials if len(serials) <= DROPPED_LIMIT else None

    def signed(self, document: TrustDocument) -> Confidential:
        return sign_trust(document, [issuer for issuer, _state in self._signers])

    def add_authority(self) -> None:
        """A rollover, first: the next CA is known."""
        following = self._create(self.issuer.generation + 1, datetime.now(UTC))
        self.authorities.append((following, NEXT))
        self._signers = list(self.authorities)

    def activate_authority(self) -> None:
        """Second: it issues, and the old one retires."""
        (old, _), (new, _) = self.authorities
        self.authorities = [(old, RETIRING), (new, ACTIVE)]
        self.issuer = new

    def finish_rollover(self) -> None:
        """Third: the old one is no longer trusted."""
        (old, _), *self.authorities = self.authorities
        self._dropped.append(old)

    def rotate(self) -> Iterator[TrustDocument]:
        """A whole rollover, and the document of each step."""
        for step in (self.add_authority, self.activate_authority, self.finish_rollover):
            step()
            yield self.document()

    def _create(self, generation: int, now: datetime) -> Issuer:
        key, serial = generate_key(KeyType.P256), self._next_serial()
        if self._tiers == 1:
            return create_root(self.cluster, self.policy, key, generation=generation, serial=serial, now=now)
        root = create_offline_root(self.cluster, key, generation=generation, serial=serial, now=now)
        below, serial = generate_key(KeyType.P256), self._next_serial()
        return create_intermediate(root, self.policy, below, generation=generation, serial=serial, now=now)

    def sign_by_active_alone(self) -> None:
        """As it is once the rollover is over: the CA that was dropped signs nothing any more."""
        self._signers = [(issuer, state) for issuer, state in self.authorities if state == ACTIVE]

    def replace_authority(self) -> None:
        """The emergency form: a new CA at once, and the old one is no longer trusted."""
        self.add_authority()
        ((old, _), (new, _)) = self.authorities
        self._dropped.append(old)
        self.authorities = [(new, ACTIVE)]
        self.issuer = new

    def trust(self) -> TrustState:
        return trust_of(self.document())

    def enforcement(self, leaf: Leaf, mode: WorkerClients = WorkerClients.LIMITED) -> Enforcement:
        return Enforcement(leaf.identity, leaf.pair, self.trust(), mode=mode)

    def files(self, leaf: Leaf, directory: Path) -> Files:
        directory.mkdir(parents=True, exist_ok=True)
        cert, key, ca = directory / "cert.pem", directory / "key.pem", directory / "ca.pem"
        cert.write_text(leaf.pair.certificates)
        key.touch(mode=0o600)
        key.write_bytes(leaf.pair.key.reveal())
        ca.write_text(encode_pem(self.der, CERTIFICATE))
        return Files(str(cert), str(key), str(ca))

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def _leaf(self, identity: Identity, key: PrivateKey, certificate: x509.Certificate) -> Leaf:
        chain = tuple(map(der, self.issuer.chain))
        return Leaf(
            Credential(self.cluster, identity, serialize_key(key), der(certificate), chain),
            certificate.serial_number,
            self.issuer.generation,
        )


def stock_security(authority: Authority, leaf: Leaf, directory: Path) -> Security:
    """Dask's own Security for a leaf, as any role: what an attacker has."""
    files = authority.files(leaf, directory)
    fields = {f"tls_{role.value}_{part}": getattr(files, part) for role in Role for part in ("cert", "key")}
    return Security(tls_ca_file=files.ca, require_encryption=True, **fields)
