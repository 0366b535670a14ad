"""The profiles' extensions as X.509 objects, and the one place where a certificate is signed."""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple, TypeAlias

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from daskpki.errors import UsageError
from daskpki.identity import Identity, Role
from daskpki.pki.certificates import moment
from daskpki.pki.keys import KeyType, PrivateKey, PublicKey, signature_hash
from daskpki.pki.profile import MAX_SERIAL, IpAddress, Lifetime

Entry: TypeAlias = tuple[x509.ExtensionType, bool]
"""An extension, and whether it is critical."""

_SERVER_AND_CLIENT: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
_CLIENT: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
_LEAF: Final = (x509.BasicConstraints(ca=False, path_length=None), True)


class Template(NamedTuple):
    """All that is said in a certificate, before its issuer is known."""

    subject: x509.Name
    public_key: PublicKey
    serial: int
    lifetime: Lifetime
    extensions: tuple[Entry, ...]


@cache
def key_usage(*, signature: bool = False, encipherment: bool = False, certificates: bool = False) -> x509.KeyUsage:
    """digitalSignature, keyEncipherment, and keyCertSign with cRLSign, as asked."""
    return x509.KeyUsage(
        digital_signature=signature,
        content_commitment=False,
        key_encipherment=encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def ca_name(cluster: str, kind: str, generation: int) -> x509.Name:
    """The subject of a CA; the generation keeps the names of a cluster's CAs apart."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster),
            x509.NameAttribute(NameOID.COMMON_NAME, f"daskpki {kind} {generation}"),
        ]
    )


def root_extensions() -> tuple[Entry, ...]:
    """The offline root of two tiers: one CA below it, no name constraints, signs certificates and CRLs only."""
    return (x509.BasicConstraints(ca=True, path_length=1), True), (key_usage(certificates=True), True)


def ca_extensions(permitted_dns: tuple[str, ...]) -> tuple[Entry, ...]:
    """A CA that issues leaves: none below it, constrained to these DNS subtrees.

    digitalSignature is there to sign the trust document. There is no URI constraint, since pyca's verifier and
    rustls-webpki refuse every leaf under one; the trust domain is checked by us.
    """
    constraints = x509.NameConstraints([x509.DNSName(domain) for domain in permitted_dns], None)
    usage = key_usage(signature=True, certificates=True)
    return (x509.BasicConstraints(ca=True, path_length=0), True), (usage, True), (constraints, True)


def intermediate_extensions(permitted_dns: tuple[str, ...]) -> tuple[Entry, ...]:
    """The issuing CA of two tiers; its EKU bounds that of its leaves."""
    return (*ca_extensions(permitted_dns), (_SERVER_AND_CLIENT, False))


def leaf_subject(cluster: str, identity: Identity) -> x509.Name:
    """O is the cluster, OU the role and CN the name; decisions are never made on it, only on the URI SAN."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, identity.role.value),
            x509.NameAttribute(NameOID.COMMON_NAME, identity.name),
        ]
    )


def leaf_extensions(
    identity: Identity, dns: tuple[str, ...], ips: tuple[IpAddress, ...], kind: KeyType
) -> tuple[Entry, ...]:
    """A leaf of the identity's role. RSA servers carry keyEncipherment, without which TLS 1.2's RSA suites fail."""
    serves = identity.role is not Role.CLIENT
    names = x509.SubjectAlternativeName(
        [
            *map(x509.DNSName, dns),
            x509.UniformResourceIdentifier(identity.uri),
            *map(x509.IPAddress, ips),
        ]
    )
    usage = key_usage(signature=True, encipherment=serves and kind is KeyType.RSA3072)
    return _LEAF, (usage, True), (_SERVER_AND_CLIENT if serves else _CLIENT, False), (names, False)


def sign_template(
    template: Template, issuer: x509.Name, key: PrivateKey, issuer_key_id: x509.AuthorityKeyIdentifier
) -> x509.Certificate:
    """The signed certificate; UsageError for a serial that RFC 5280, 4.1.2.2 or other readers do not take."""
    if not 0 < template.serial <= MAX_SERIAL:
        raise UsageError(f"serial {template.serial:x} is not positive, or longer than 16 octets (RFC 5280, 4.1.2.2)")
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(template.subject)
        .public_key(template.public_key)
        .serial_number(template.serial)
        .not_valid_before(moment(template.lifetime.not_before))
        .not_valid_after(moment(template.lifetime.not_after))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(template.public_key), critical=False)
        .add_extension(issuer_key_id, critical=False)
    )
    for value, critical in template.extensions:
        builder = builder.add_extension(value, critical=critical)
    return builder.sign(key, signature_hash(key))
