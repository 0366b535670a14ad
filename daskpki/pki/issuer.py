"""Signs certificates: CAs of one tier or two, and the leaves of the three roles. No other module does.

It reads no clock and chooses no serial, and verifies every certificate before it returns it. Leaves follow
`daskpki.pki.profile`; of a request, only the public key is copied into them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache, cached_property
from typing import Final, NamedTuple, TypeAlias, final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from daskpki.errors import NotTrustedError, PolicyError, UsageError
from daskpki.identity import Identity, Role, parse_label
from daskpki.pki.certificates import load_certificate, permitted_dns, seconds, utc_time
from daskpki.pki.keys import KeyType, PrivateKey, PublicKey, key_type, signature_hash
from daskpki.pki.profile import (
    CA_BACKDATE,
    CA_LIFETIME,
    GRADE_OIDS,
    INTERMEDIATE_LIFETIME,
    MAX_SERIAL,
    LeafRequest,
    Lifetime,
    Policy,
    check_request,
    leaf_lifetime,
    leaf_names,
)
from daskpki.pki.verify import Parent, PathVerifier, check_ca, check_leaf, parent_of

Extension: TypeAlias = tuple[x509.ExtensionType, bool]
"""An extension, and whether it is critical."""

SERVER_AND_CLIENT: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
_CLIENT: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
_LEAF: Final = (x509.BasicConstraints(ca=False, path_length=None), True)


class Template(NamedTuple):
    """The fields of a certificate, before its issuer is known."""

    subject: x509.Name
    public_key: PublicKey
    serial: int
    lifetime: Lifetime
    extensions: tuple[Extension, ...]


@cache
def key_usage(*, signature: bool = False, encipherment: bool = False, certificates: bool = False) -> x509.KeyUsage:
    """Make the keyUsage from the given bits: digitalSignature, keyEncipherment, and keyCertSign with cRLSign."""
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


def ca_subject(cluster: str, kind: str, generation: int) -> x509.Name:
    """Make the subject of a CA; the generation distinguishes the CAs of a cluster."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster),
            x509.NameAttribute(NameOID.COMMON_NAME, f"daskpki {kind} {generation}"),
        ]
    )


_ROOT_EXTENSIONS: Final = (x509.BasicConstraints(ca=True, path_length=1), True), (key_usage(certificates=True), True)
"""Extensions of the offline root of two tiers: one CA below it, no name constraints, only certificates and CRLs."""


def ca_extensions(permitted_dns: tuple[str, ...]) -> tuple[Extension, ...]:
    """Extensions of a CA that issues leaves: no CA below it, constrained to these DNS subtrees.

    digitalSignature permits signing the trust document. There is no URI constraint, since pyca's verifier and
    rustls-webpki refuse every leaf below one; `daskpki.pki.verify` checks the trust domain.
    """
    constraints = x509.NameConstraints([x509.DNSName(domain) for domain in permitted_dns], None)
    usage = key_usage(signature=True, certificates=True)
    return (x509.BasicConstraints(ca=True, path_length=0), True), (usage, True), (constraints, True)


def leaf_subject(cluster: str, identity: Identity) -> x509.Name:
    """Make a leaf's subject: O is the cluster, OU the role, CN the name. Decisions depend only on the URI SAN."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, identity.role.value),
            x509.NameAttribute(NameOID.COMMON_NAME, identity.name),
        ]
    )


def leaf_extensions(request: LeafRequest, kind: KeyType) -> tuple[Extension, ...]:
    """Extensions of a leaf. RSA servers get keyEncipherment, without which TLS 1.2's RSA suites fail."""
    identity = request.identity
    dns, ips = leaf_names(request)
    serves = identity.role is not Role.CLIENT
    names = x509.SubjectAlternativeName(
        [
            *map(x509.DNSName, dns),
            x509.UniformResourceIdentifier(identity.uri),
            *map(x509.IPAddress, ips),
        ]
    )
    usage = key_usage(signature=True, encipherment=serves and kind is KeyType.RSA3072)
    grades = [x509.ObjectIdentifier(GRADE_OIDS[grade]) for grade in request.grades]
    purposes = x509.ExtendedKeyUsage([*(SERVER_AND_CLIENT if serves else _CLIENT), *grades])
    return _LEAF, (usage, True), (purposes, False), (names, False)


def sign_template(
    template: Template, issuer: x509.Name, key: PrivateKey, issuer_key_id: x509.AuthorityKeyIdentifier
) -> x509.Certificate:
    """Sign a certificate; UsageError for a serial that RFC 5280, 4.1.2.2 or other readers do not accept."""
    if not 0 < template.serial <= MAX_SERIAL:
        raise UsageError(f"serial {template.serial:x} is not positive, or longer than 16 octets (RFC 5280, 4.1.2.2)")
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(template.subject)
        .public_key(template.public_key)
        .serial_number(template.serial)
        .not_valid_before(utc_time(template.lifetime.not_before))
        .not_valid_after(utc_time(template.lifetime.not_after))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(template.public_key), critical=False)
        .add_extension(issuer_key_id, critical=False)
    )
    for value, critical in template.extensions:
        builder = builder.add_extension(value, critical=critical)
    return builder.sign(key, signature_hash(key))


@final
class Issuer:
    """A CA that can sign: its certificate and key, and the path of its leaves to the trust anchor.

    `chain` has the intermediates from this issuer up to below `root`, and is empty for a CA of one tier.
    """

    def __init__(
        self,
        certificate: x509.Certificate,
        key: PrivateKey,
        *,
        generation: int,
        root: x509.Certificate,
        chain: Sequence[x509.Certificate] = (),
    ) -> None:
        self.certificate = certificate
        self.key = key
        self.generation = generation
        self.root = root
        self.chain = tuple(chain)

    @cached_property
    def as_parent(self) -> Parent:
        """Subject, validity and key id; NotTrustedError if the certificate has no SKI."""
        return parent_of(self.certificate)

    @property
    def lifetime(self) -> Lifetime:
        """The validity of the issuer itself."""
        return self.as_parent.lifetime

    @cached_property
    def permitted_dns(self) -> tuple[str, ...]:
        """The DNS subtrees of its name constraints; empty for an offline root, which issues no leaves."""
        return permitted_dns(self.certificate) or ()

    @cached_property
    def key_identifier(self) -> x509.AuthorityKeyIdentifier:
        """The AKI of its leaves and CRLs: the key id alone (RFC 5280, 4.2.1.1)."""
        return x509.AuthorityKeyIdentifier(self.as_parent.key_id, None, None)

    @cached_property
    def cluster(self) -> str:
        """The cluster, which is the organisation in its subject; UsageError if the certificate is not ours."""
        names = self.certificate.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
        return parse_label(str(names[0].value) if names else "", "the CA's organisation")

    @cached_property
    def verifier(self) -> PathVerifier:
        """Verifier of its leaves' paths, prepared once for many."""
        return PathVerifier([self.root], self.chain)


def open_issuer(root: bytes, chain: Sequence[bytes], key: PrivateKey, *, generation: int) -> Issuer:
    """Make the issuer of stored certificates (DER) and a key; NotTrustedError if they do not belong together."""
    anchor = load_certificate(root, "the CA's certificate")
    intermediates = [load_certificate(entry, "the CA's chain") for entry in chain]
    certificate = intermediates[0] if intermediates else anchor
    if key.public_key() != certificate.public_key():
        raise NotTrustedError(f"the key of CA generation {generation} does not belong to its certificate")
    return Issuer(certificate, key, generation=generation, root=anchor, chain=intermediates)


def create_root(
    cluster: str, policy: Policy, key: PrivateKey, *, generation: int, serial: int, now: datetime
) -> Issuer:
    """Create a CA of one tier, which is its own trust anchor and issues leaves."""
    name = ca_subject(parse_label(cluster, "cluster"), "CA", generation)
    return _self_signed(name, ca_extensions(policy.permitted_dns), key, generation=generation, serial=serial, now=now)


def create_offline_root(cluster: str, key: PrivateKey, *, generation: int, serial: int, now: datetime) -> Issuer:
    """Create the root of two tiers, which signs intermediates and their CRL, and is kept offline."""
    name = ca_subject(parse_label(cluster, "cluster"), "root CA", generation)
    return _self_signed(name, _ROOT_EXTENSIONS, key, generation=generation, serial=serial, now=now)


def create_intermediate(
    root: Issuer, policy: Policy, key: PrivateKey, *, generation: int, serial: int, now: datetime
) -> Issuer:
    """Create the issuing CA below an offline root; it ends no later than the root.

    Raises PolicyError if the root is not valid now, or is not an offline root.
    """
    if root.permitted_dns:
        raise PolicyError("a CA that issues leaves cannot have another CA below it (its path length is 0)")
    wanted = _ca_lifetime(now, INTERMEDIATE_LIFETIME)
    if not root.lifetime.not_before <= seconds(now) <= root.lifetime.not_after:
        raise PolicyError("the offline root is not valid now")
    period = Lifetime(max(wanted.not_before, root.lifetime.not_before), min(wanted.not_after, root.lifetime.not_after))
    name = ca_subject(root.cluster, "issuing CA", generation)
    extensions = (*ca_extensions(policy.permitted_dns), (SERVER_AND_CLIENT, False))  # the EKU limits that of its leaves
    template = Template(name, key.public_key(), serial, period, extensions)
    certificate = sign_template(template, root.certificate.subject, root.key, root.key_identifier)
    check_ca(certificate, root.certificate)
    return Issuer(certificate, key, generation=generation, root=root.root, chain=(certificate, *root.chain))


def _ca_lifetime(now: datetime, ttl: int) -> Lifetime:
    start = seconds(now) - CA_BACKDATE
    return Lifetime(start, start + ttl - 1)


def _self_signed(
    name: x509.Name, extensions: tuple[Extension, ...], key: PrivateKey, *, generation: int, serial: int, now: datetime
) -> Issuer:
    template = Template(name, key.public_key(), serial, _ca_lifetime(now, CA_LIFETIME), extensions)
    own_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(template.public_key)
    certificate = sign_template(template, name, key, own_id)
    check_ca(certificate, certificate)
    return Issuer(certificate, key, generation=generation, root=certificate)


def issue_leaf(
    issuer: Issuer,
    request: LeafRequest,
    public_key: PublicKey,
    *,
    serial: int,
    now: datetime,
    policy: Policy,
) -> x509.Certificate:
    """Issue a leaf for `public_key`; it is verified against its profile and its path before it is returned.

    Raises PolicyError (names, lifetime, a CA that may not issue it) and UsageError (malformed names, serial or key),
    each with the value and the rule; NotTrustedError if the signed certificate fails its verification.
    """
    if not issuer.permitted_dns:
        raise PolicyError("a CA without name constraints, as an offline root is, issues no leaves")
    check_request(request, policy._replace(permitted_dns=issuer.permitted_dns))
    kind = key_type(public_key)
    if public_key == issuer.key.public_key():
        raise PolicyError("a leaf cannot have the CA's own key")
    template = Template(
        subject=leaf_subject(issuer.cluster, request.identity),
        public_key=public_key,
        serial=serial,
        lifetime=leaf_lifetime(request, policy, issuer.lifetime, seconds(now)),
        extensions=leaf_extensions(request, kind),
    )
    leaf = sign_template(template, issuer.as_parent.subject, issuer.key, issuer.key_identifier)
    check_leaf(leaf, request, issuer.as_parent)
    issuer.verifier.verify(leaf, now)
    return leaf
