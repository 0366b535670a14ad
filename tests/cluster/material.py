"""Certificates for the tests of the running cluster: a CA in memory, and leaves that are right or wrong on purpose."""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from daskpki.cluster.contexts import KeyPair
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.policy import WorkerClients
from daskpki.cluster.trust import Trust
from daskpki.confidential import Confidential
from daskpki.identity import Identity, Role, default_trust_domain

DAY = dt.timedelta(days=1)
_KEY_USAGES = [
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
]


class Leaf(NamedTuple):
    identity: Identity
    serial: int
    pair: KeyPair


class Authority:
    """One cluster's CA."""

    def __init__(self, cluster: str = "default") -> None:
        self.cluster = cluster
        self.trust_domain = default_trust_domain(cluster)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._self_signed()
        self.der = self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def trust(self, *, epoch: int = 1, revoked: frozenset[int] = frozenset(), next_update: int | None = None) -> Trust:
        return Trust(self.cluster, self.trust_domain, epoch, (self.der,), revoked, next_update)

    def _self_signed(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{self.cluster} CA")])
        now = dt.datetime.now(dt.UTC)
        ski = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 30 * DAY)
            .not_valid_after(now + 30 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage("digital_signature", "key_cert_sign", "crl_sign"), critical=True)
            .add_extension(ski, critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def leaf(
        self,
        role: Role,
        name: str | None = None,
        *,
        begin: dt.timedelta = -DAY,
        end: dt.timedelta = DAY,
        trust_domain: str | None = None,
    ) -> Leaf:
        identity = Identity(trust_domain or self.trust_domain, role, name or role.value)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(identity, key.public_key(), begin, end)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        text = certificate.public_bytes(serialization.Encoding.PEM).decode()
        return Leaf(identity, certificate.serial_number, KeyPair(text, Confidential(pem)))

    def _sign(
        self, identity: Identity, key: ec.EllipticCurvePublicKey, begin: dt.timedelta, end: dt.timedelta
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if identity.role is not Role.CLIENT:
            purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri), x509.DNSName(identity.dns)])
        aki = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.slug)]))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begin)
            .not_valid_after(now + end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(names, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(aki, critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def enforcement(self, leaf: Leaf, mode: WorkerClients = WorkerClients.LIMITED) -> Enforcement:
        return Enforcement(leaf.identity, leaf.pair, self.trust(), mode=mode)


def _key_usage(*usages: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in usages for usage in _KEY_USAGES})
