"""Verifies certificates by path validation (RFC 5280, 6.1) and by their profile; a failure raises.

`verify_leaf` is for relying parties: path, dates, purpose and identity. `check_ca` and `check_leaf` compare a new
certificate with the profile's table, which is written down here a second time, apart from the code that signs.

pyca's verifier decides the path: in server mode, with the leaf's own name, for a leaf that serves, in client mode for
the others. Its two modes differ only in the expected purpose, and this module checks that every leaf may be a client,
so the costly part, the signatures, is verified once. pyca implements the algorithms of the web PKI, which allow Ed25519
in a leaf but not in a CA; so no CA of ours has such a key (`daskpki.authority.ca_keys`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple, cast, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, PublicKeyAlgorithmOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from daskpki.confidential import Confidential
from daskpki.errors import NotTrustedError, UsageError
from daskpki.identity import Identity, Role
from daskpki.pki import keys
from daskpki.pki.certificates import (
    UNREADABLE,
    ExtensionT,
    certificate_identity,
    extension,
    lifetime,
    load_certificate,
    seconds,
)
from daskpki.pki.profile import GRADE_OIDS, MAX_SERIAL, LeafRequest, Lifetime, leaf_names
from daskpki.quoting import rfc3339

# Leaf, intermediate, root: nothing longer is ever issued (the root's path length is 1).
_INTERMEDIATES: Final = 1


@final
class PathVerifier:
    """Trust anchors and intermediates, prepared once for many leaves."""

    def __init__(self, roots: Sequence[x509.Certificate], chain: Sequence[x509.Certificate] = ()) -> None:
        self._store = Store(list(roots)) if roots else None
        self._chain = list(chain)

    def verify(self, leaf: x509.Certificate, now: datetime) -> None:
        """Raise NotTrustedError with the reason unless the leaf leads to an anchor and has its purposes at `now`."""
        check_time(leaf, now)
        check_purpose(leaf)
        if self._store is None:
            raise NotTrustedError("there is no CA with which to verify the certificate")
        builder = PolicyBuilder().store(self._store).time(now).max_chain_depth(_INTERMEDIATES)
        try:
            with keys.uninterrupted():
                if ExtendedKeyUsageOID.SERVER_AUTH in _purposes(leaf) and (names := _dns_names(leaf)):
                    builder.build_server_verifier(x509.DNSName(names[0])).verify(leaf, self._chain)
                else:
                    builder.build_client_verifier().verify(leaf, self._chain)
        except (*UNREADABLE, VerificationError) as error:
            raise NotTrustedError(f"the certificate does not lead to the cluster's CA: {error}") from None


def check_time(certificate: x509.Certificate, now: datetime) -> None:
    """Raise NotTrustedError unless `now` is within the validity, both ends included (RFC 5280, 4.1.2.5)."""
    valid, moment = lifetime(certificate), seconds(now)
    if moment < valid.not_before:
        raise NotTrustedError(
            f"the certificate is not valid before {rfc3339(valid.not_before)}; it is now {rfc3339(moment)}",
            hint="check this machine's clock",
        )
    if moment > valid.not_after:
        raise NotTrustedError(
            f"the certificate expired at {rfc3339(valid.not_after)}; it is now {rfc3339(moment)}",
            hint=_renewal(certificate),
        )


def _renewal(certificate: x509.Certificate) -> str:
    try:
        return f"daskpki renew {certificate_identity(certificate).slug}"
    except NotTrustedError:  # a CA's certificate has no identity
        return "daskpki rotate-ca start"


def _dns_names(leaf: x509.Certificate) -> list[str]:
    names = extension(leaf, x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.DNSName) if names else []


def _purposes(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    usage = extension(certificate, x509.ExtendedKeyUsage)
    return set(usage.value) if usage else set()


def check_purpose(leaf: x509.Certificate) -> None:
    """Raise NotTrustedError for a CA's certificate, and for one without clientAuth, which all our leaves have."""
    constraints = extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.value.ca:
        raise NotTrustedError("the certificate is a CA's, not a leaf")
    usage = extension(leaf, x509.KeyUsage)
    if usage is not None and (usage.value.key_cert_sign or usage.value.crl_sign):  # X509-SVID, 5.2
        raise NotTrustedError("the certificate may sign others or revocation lists, as only a CA's may")
    if ExtendedKeyUsageOID.CLIENT_AUTH not in _purposes(leaf):
        raise NotTrustedError("the certificate is not for TLS clients (its extended key usage lacks clientAuth)")


def _is_issuer(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


def is_issued_by(leaf: bytes, issuer: bytes) -> bool:
    """True if that CA (DER) signed the leaf (DER); dates and purposes are not checked."""
    return _is_issuer(load_certificate(issuer), load_certificate(leaf))


def check_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Raise NotTrustedError unless `issuer` signed the CA certificate, and both are CAs; dates are not checked."""
    if not _is_issuer(issuer, certificate):
        raise NotTrustedError("a CA's certificate is not signed by the one above it")
    for entry in (certificate, issuer):
        _check_ca(entry)


def _check_ca(certificate: x509.Certificate) -> None:
    """Raise NotTrustedError unless the certificate is that of a CA, which may sign certificates."""
    constraints = extension(certificate, x509.BasicConstraints)
    usage = extension(certificate, x509.KeyUsage)
    if constraints is None or not constraints.value.ca or usage is None or not usage.value.key_cert_sign:
        raise NotTrustedError("the certificate's issuer is not a CA")


_LEAF_EXTENSIONS: Final = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
}


def verify_leaf(
    leaf: bytes,
    chain: Sequence[bytes],
    roots: Sequence[bytes],
    *,
    now: datetime,
    trust_domain: str,
    role: Role | None = None,
    name: str | None = None,
) -> Identity:
    """Return a leaf's identity; NotTrustedError unless it leads to one of `roots`, is valid, and is the expected one.

    All certificates are DER. Revocation is not checked: `daskpki.pki.crl` has the revoked serials.
    """
    certificate = load_certificate(leaf, "the certificate")
    verifier = PathVerifier(
        [load_certificate(root, "the CA's certificate") for root in roots],
        [load_certificate(entry, "the certificate's chain") for entry in chain],
    )
    verifier.verify(certificate, now)
    identity = certificate_identity(certificate)
    if identity.trust_domain != trust_domain:
        raise NotTrustedError(f"{identity.uri} is of another trust domain than {trust_domain}")
    if role is not None and identity.role is not role:
        raise NotTrustedError(f"{identity.uri} is a {identity.role.value}, where a {role.value} is expected")
    if name is not None and identity.name != name:
        raise NotTrustedError(f"{identity.uri} is named {identity.name}, where {name} is expected")
    return identity


def key_fits(key: Confidential, certificate: bytes) -> bool:
    """True if a private key (DER or PEM) belongs to a certificate (DER); raises the errors of parsing them."""
    return keys.parse_key(key).public_key() == load_certificate(certificate).public_key()


def verify_signature(certificate: bytes, signature: bytes, data: bytes, what: str = "the signature") -> None:
    """Raise NotTrustedError unless the key of that certificate (DER) made the signature over `data`."""
    key = load_certificate(certificate).public_key()
    try:
        keys.key_type(key)
    except UsageError as error:
        raise NotTrustedError(f"{what} is by {error}") from None
    assert isinstance(key, keys.PublicKey)
    keys.verify(key, signature, data, what)


class Parent(NamedTuple):
    """The issuer's fields that appear in signed certificates: subject, validity and key id."""

    subject: x509.Name
    lifetime: Lifetime
    key_id: bytes


def parent_of(issuer: x509.Certificate) -> Parent:
    """Read an issuer's fields, once for many leaves; NotTrustedError if it has no SKI."""
    own_id = extension(issuer, x509.SubjectKeyIdentifier)
    if own_id is None:
        raise NotTrustedError("the CA's certificate has no subject key identifier (RFC 5280, 4.2.1.2)")
    return Parent(issuer.subject, lifetime(issuer), own_id.value.digest)


def check_ca(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Raise NotTrustedError unless a new CA certificate matches the profile and its issuer."""
    rules = _Rules("CA", certificate)
    _check_common(rules, parent_of(issuer))
    basic = rules.value(x509.BasicConstraints, critical=True)
    usage = rules.value(x509.KeyUsage, critical=True)
    rules.require(basic.ca and usage.key_cert_sign and usage.crl_sign, "a CA that signs certificates and CRLs")
    if basic.path_length == 0:
        names = rules.value(x509.NameConstraints, critical=True)
        subtrees = names.permitted_subtrees or []
        only_dns = bool(subtrees) and all(isinstance(subtree, x509.DNSName) for subtree in subtrees)
        rules.require(only_dns and not names.excluded_subtrees, "permitted DNS subtrees and nothing else")
    else:
        rules.require(basic.path_length == 1 and certificate == issuer, "path length 1 for a root")
        rules.require(x509.NameConstraints.oid not in rules.found, "no nameConstraints in a root of two tiers")


def check_leaf(leaf: x509.Certificate, request: LeafRequest, issuer: Parent) -> None:
    """Raise NotTrustedError unless a new leaf matches its role's profile and the request."""
    rules = _Rules(request.identity.slug, leaf)
    _check_common(rules, issuer)
    rules.require(rules.found.keys() == _LEAF_EXTENSIONS, "the profile's extensions and no others")
    rules.require(not rules.value(x509.BasicConstraints, critical=True).ca, "basicConstraints CA:FALSE")
    serves = request.identity.role is not Role.CLIENT
    _check_usage(rules, serves=serves)
    purposes = [*([ExtendedKeyUsageOID.SERVER_AUTH] if serves else []), ExtendedKeyUsageOID.CLIENT_AUTH]
    purposes += [x509.ObjectIdentifier(GRADE_OIDS[grade]) for grade in request.grades]
    found = list(rules.value(x509.ExtendedKeyUsage, critical=False))
    rules.require(found == purposes, "its role's EKU")
    _check_names(rules, request)


class _Rules:
    """A certificate under check, and its name in messages."""

    def __init__(self, what: str, certificate: x509.Certificate) -> None:
        self.what = what
        self.certificate = certificate
        self.found = {entry.oid: entry for entry in certificate.extensions}

    def require(self, holds: bool, rule: str) -> None:  # noqa: FBT001 - reads as a sentence
        if not holds:
            raise NotTrustedError(f"the {self.what} certificate that was just signed breaks its profile: {rule}")

    def value(self, kind: type[ExtensionT], *, critical: bool) -> ExtensionT:
        """Return the value of a required extension, critical or not."""
        entry = self.found.get(kind.oid)
        if entry is None or entry.critical is not critical or not isinstance(entry.value, kind):
            self.require(False, f"{kind.__name__}, {'critical' if critical else 'not critical'}")
        return cast("x509.Extension[ExtensionT]", entry).value


def _check_common(rules: _Rules, issuer: Parent) -> None:
    certificate = rules.certificate
    rules.require(certificate.version is x509.Version.v3, "version 3")
    rules.require(0 < certificate.serial_number <= MAX_SERIAL, "a positive serial of at most 16 octets")
    rules.require(certificate.issuer == issuer.subject, "the issuer's name")
    own, outer = lifetime(certificate), issuer.lifetime
    rules.require(own.not_before < own.not_after, "a lifetime")
    rules.require(outer.not_before <= own.not_before and own.not_after <= outer.not_after, "within the issuer's life")
    aki = rules.value(x509.AuthorityKeyIdentifier, critical=False)
    only_key_id = aki.authority_cert_issuer is None and aki.authority_cert_serial_number is None
    rules.require(only_key_id and aki.key_identifier == issuer.key_id, "AKI with the issuer's key id only")
    rules.value(x509.SubjectKeyIdentifier, critical=False)


def _check_usage(rules: _Rules, *, serves: bool) -> None:
    usage = rules.value(x509.KeyUsage, critical=True)
    rsa = rules.certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5
    rules.require(usage.digital_signature and usage.key_encipherment == (serves and rsa), "its role's keyUsage")
    excess = (usage.key_cert_sign, usage.crl_sign, usage.key_agreement, usage.data_encipherment)
    rules.require(not any((*excess, usage.content_commitment)), "no other keyUsage")


def _check_names(rules: _Rules, request: LeafRequest) -> None:
    dns, ips = leaf_names(request)
    names = rules.value(x509.SubjectAlternativeName, critical=False)
    rules.require(len(names) == len(dns) + len(ips) + 1, "the names asked for and no others")
    rules.require(names.get_values_for_type(x509.DNSName) == list(dns), "its DNS names")
    rules.require(names.get_values_for_type(x509.IPAddress) == list(ips), "its IP addresses")
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    rules.require(uris == [request.identity.uri], "its identity as the only URI")
