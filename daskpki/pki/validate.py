"""Is a certificate what it has to be? Checked after signing, before use, and for every peer; a failure raises.

`verify_leaf` is for whoever relies on a leaf: path, dates and identity. `check_ca` and `check_leaf` hold what was just
signed against the profile's table, written down here once more and apart from the code that builds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from daskpki.confidential import Confidential
from daskpki.errors import NotTrustedError
from daskpki.identity import Identity, Role
from daskpki.pki.certificates import certificate_identity, extension, lifetime, load_certificate
from daskpki.pki.keys import KeyType, key_type
from daskpki.pki.path import PathVerifier
from daskpki.pki.pem import fingerprint
from daskpki.pki.profile import MAX_SERIAL, LeafRequest, leaf_names

__all__ = ["check_ca", "check_leaf", "fingerprint", "key_matches", "verify_identity", "verify_leaf"]

_LEAF_EXTENSIONS: Final = {
    ExtensionOID.BASIC_CONSTRAINTS: True,
    ExtensionOID.KEY_USAGE: True,
    ExtensionOID.EXTENDED_KEY_USAGE: False,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME: False,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
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
    """Whose leaf this is; NotTrustedError unless it leads to one of `roots`, is valid now, and is of those expected.

    All certificates are DER. Revocation is not looked at: `daskpki.pki.trust.revoked_serials` says what is revoked.
    """
    certificate = load_certificate(leaf, "the certificate")
    verifier = PathVerifier(
        [load_certificate(root, "the CA's certificate") for root in roots],
        [load_certificate(entry, "the certificate's chain") for entry in chain],
    )
    verifier.verify(certificate, now)
    return verify_identity(certificate_identity(certificate), trust_domain=trust_domain, role=role, name=name)


def verify_identity(
    identity: Identity, *, trust_domain: str, role: Role | None = None, name: str | None = None
) -> Identity:
    """`identity` itself; NotTrustedError unless its trust domain, and role and name where given, are those expected."""
    if identity.trust_domain != trust_domain:
        raise NotTrustedError(f"{identity.uri} is of another trust domain than {trust_domain}")
    if role is not None and identity.role is not role:
        raise NotTrustedError(f"{identity.uri} is a {identity.role.value}, where a {role.value} is expected")
    if name is not None and identity.name != name:
        raise NotTrustedError(f"{identity.uri} is named {identity.name}, where {name} is expected")
    return identity


def key_matches(key: Confidential, certificate: bytes) -> bool:
    """Whether a private key (DER or PEM) belongs to a certificate (DER); raises what parsing either raises."""
    from daskpki.pki.keys import key_matches as matches
    from daskpki.pki.keys import parse_key

    return matches(parse_key(key), load_certificate(certificate).public_key())


def check_ca(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Raise NotTrustedError unless a CA certificate that was just signed fits the profile, and its issuer's."""
    rules = _Rules("CA", certificate)
    _check_common(rules, issuer)
    basic = extension(certificate, x509.BasicConstraints)
    rules.require(basic is not None and basic.critical and basic.value.ca, "critical basicConstraints with CA")
    usage = extension(certificate, x509.KeyUsage)
    rules.require(usage is not None and usage.critical and usage.value.key_cert_sign, "critical keyCertSign")
    rules.require(usage is not None and usage.value.crl_sign, "cRLSign")
    constrained = extension(certificate, x509.NameConstraints)
    if basic is not None and basic.value.path_length == 0:
        rules.require(constrained is not None and constrained.critical, "critical nameConstraints")
    else:
        rules.require(constrained is None and certificate == issuer, "a root without nameConstraints")


def check_leaf(leaf: x509.Certificate, request: LeafRequest, issuer: x509.Certificate) -> None:
    """Raise NotTrustedError unless a leaf that was just signed fits its role's profile and what was asked for."""
    rules = _Rules(request.identity.slug, leaf)
    _check_common(rules, issuer)
    found = {entry.oid: entry.critical for entry in leaf.extensions}
    rules.require(found == _LEAF_EXTENSIONS, "the profile's extensions and no others")
    basic = extension(leaf, x509.BasicConstraints)
    rules.require(basic is not None and not basic.value.ca, "basicConstraints CA:FALSE")
    serves = request.identity.role is not Role.CLIENT
    _check_usage(rules, serves=serves)
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH] if serves else []
    usage = extension(leaf, x509.ExtendedKeyUsage)
    rules.require(usage is not None and list(usage.value) == [*purposes, ExtendedKeyUsageOID.CLIENT_AUTH], "its EKU")
    _check_names(rules, request)


class _Rules:
    """A certificate under check, and how it is called in messages."""

    def __init__(self, what: str, certificate: x509.Certificate) -> None:
        self.what = what
        self.certificate = certificate

    def require(self, holds: bool, rule: str) -> None:  # noqa: FBT001 - reads as a sentence
        if not holds:
            raise NotTrustedError(f"the {self.what} certificate that was just signed breaks its profile: {rule}")


def _check_common(rules: _Rules, issuer: x509.Certificate) -> None:
    certificate = rules.certificate
    rules.require(certificate.version is x509.Version.v3, "version 3")
    rules.require(0 < certificate.serial_number <= MAX_SERIAL, "a positive serial of at most 16 octets")
    rules.require(certificate.issuer == issuer.subject, "the issuer's name")
    own, outer = lifetime(certificate), lifetime(issuer)
    rules.require(own.not_before < own.not_after, "a lifetime")
    rules.require(outer.not_before <= own.not_before and own.not_after <= outer.not_after, "within the issuer's life")
    own_id, issuer_id = (
        extension(certificate, x509.AuthorityKeyIdentifier),
        extension(issuer, x509.SubjectKeyIdentifier),
    )
    expected = None if issuer_id is None else (issuer_id.value.digest, None, None)
    aki = None if own_id is None else own_id.value
    actual = aki and (aki.key_identifier, aki.authority_cert_issuer, aki.authority_cert_serial_number)
    rules.require(actual is not None and actual == expected, "AKI with the issuer's key id only")
    rules.require(extension(certificate, x509.SubjectKeyIdentifier) is not None, "SKI")


def _check_usage(rules: _Rules, *, serves: bool) -> None:
    usage = extension(rules.certificate, x509.KeyUsage)
    assert usage is not None
    value = usage.value
    rsa = key_type(rules.certificate.public_key()) is KeyType.RSA3072
    rules.require(value.digital_signature and value.key_encipherment == (serves and rsa), "its keyUsage")
    excess = (value.key_cert_sign, value.crl_sign, value.key_agreement, value.data_encipherment)
    rules.require(not any((*excess, value.content_commitment)), "no other keyUsage")


def _check_names(rules: _Rules, request: LeafRequest) -> None:
    dns, ips = leaf_names(request)
    names = extension(rules.certificate, x509.SubjectAlternativeName)
    assert names is not None
    rules.require(len(names.value) == len(dns) + len(ips) + 1, "the names asked for and no others")
    rules.require(names.value.get_values_for_type(x509.DNSName) == list(dns), "its DNS names")
    rules.require(names.value.get_values_for_type(x509.IPAddress) == list(ips), "its IP addresses")
    rules.require(certificate_identity(rules.certificate) == request.identity, "its identity")
