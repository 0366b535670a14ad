"""Certificate requests (PKCS#10, RFC 2986): made for a key, and parsed with their proof of possession.

A signer copies the public key and nothing else. Extensions, alternative names and attributes of a request are ignored:
in Vault, a CA that copied them let a requester become somebody else (CVE-2026-105818).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from daskpki.errors import CorruptError, NotTrustedError, UsageError
from daskpki.identity import Identity, Role, parse_label
from daskpki.pki import keys
from daskpki.pki.issuer import leaf_subject
from daskpki.pki.keys import PrivateKey, PublicKey, key_type, signature_hash
from daskpki.pki.pem import check_size, encode_pem, is_pem, parse_pem

LABEL: Final = "CERTIFICATE REQUEST"
_OTHER_LABEL: Final = "NEW CERTIFICATE REQUEST"  # RFC 7468, 7: what some programs still write
_WHAT: Final = "the certificate request"
_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)


class CertificateRequest(NamedTuple):
    """The parts of a request that may be used: its key, proven by a signature, and the identity that it claims."""

    public_key: PublicKey
    cluster: str | None = None
    slug: tuple[Role, str] | None = None


def create_request(key: PrivateKey, cluster: str, identity: Identity) -> bytes:
    """The DER of a request for that identity; its subject is a proposal only."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(leaf_subject(cluster, identity))
    return builder.sign(key, signature_hash(key)).public_bytes(Encoding.DER)


def request_pem(der: bytes) -> str:
    """The request as PEM."""
    return encode_pem(der, LABEL)


def parse_request(data: bytes) -> CertificateRequest:
    """The request in PEM or DER; NotTrustedError unless it is signed by its own key (RFC 2986, 3).

    Raises CorruptError for other bytes, UsageError for several blocks, for a key that is not on offer.
    """
    request = _load(_der(data))
    public_key = request.public_key()
    key_type(public_key)
    assert isinstance(public_key, keys.PublicKey)
    try:
        proven = request.is_signature_valid
    except _UNREADABLE:
        proven = False
    if not proven:
        raise NotTrustedError(f"{_WHAT} is not signed by the key that it is for", hint="daskpki request makes one")
    return CertificateRequest(public_key, _text(request, NameOID.ORGANIZATION_NAME), _slug(request))


def _der(data: bytes) -> bytes:
    if not is_pem(data):
        return check_size(data, _WHAT)
    blocks = parse_pem(data, _WHAT)
    if len(blocks) != 1 or blocks[0][0] not in (LABEL, _OTHER_LABEL):
        found = ", ".join(label for label, _ in blocks)
        raise UsageError(f"the file contains {found}, where one {LABEL} is expected")
    return blocks[0][1]


def _load(der: bytes) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_der_x509_csr(der)
        request.subject, request.public_key()
    except _UNREADABLE:
        raise CorruptError(f"{_WHAT} cannot be read: it is cut off, changed, or not one") from None
    return request


def _text(request: x509.CertificateSigningRequest, oid: x509.ObjectIdentifier) -> str | None:
    values = [str(entry.value) for entry in request.subject.get_attributes_for_oid(oid)]
    return values[0] if len(values) == 1 else None


def _slug(request: x509.CertificateSigningRequest) -> tuple[Role, str] | None:
    """Role and name where the subject has both, well-formed."""
    role, name = _text(request, NameOID.ORGANIZATIONAL_UNIT_NAME), _text(request, NameOID.COMMON_NAME)
    try:
        return (Role(role), parse_label(name, "name")) if role and name else None
    except (ValueError, UsageError):
        return None
