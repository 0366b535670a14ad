"""Certificate requests (PKCS#10, RFC 2986): creates them, and parses them with their proof of possession.

A CA copies only the public key. Extensions, alternative names and attributes of a request are ignored: a CA
that copied them would let a requester become somebody else.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from daskpki.errors import CorruptError, NotTrustedError, UsageError
from daskpki.identity import Identity, Role, parse_label
from daskpki.pki import keys
from daskpki.pki.certificates import UNREADABLE
from daskpki.pki.issuer import leaf_subject
from daskpki.pki.keys import PrivateKey, PublicKey, key_type, signature_hash
from daskpki.pki.pem import encode_pem, single_der

LABEL: Final = "CERTIFICATE REQUEST"
_OTHER_LABEL: Final = "NEW CERTIFICATE REQUEST"  # RFC 7468, 7: what some programs still write
_WHAT: Final = "the certificate request"


class CertificateRequest(NamedTuple):
    """The parts of a request that may be used: its key, proven by a signature, and the identity that it claims."""

    public_key: PublicKey
    cluster: str | None = None
    slug: tuple[Role, str] | None = None


def create_request(key: PrivateKey, cluster: str, identity: Identity) -> bytes:
    """Create a request (DER) for that identity; its subject is only a proposal."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(leaf_subject(cluster, identity))
    return builder.sign(key, signature_hash(key)).public_bytes(Encoding.DER)


def request_pem(der: bytes) -> str:
    """Encode the request as PEM."""
    return encode_pem(der, LABEL)


def parse_request(data: bytes) -> CertificateRequest:
    """Parse a request in PEM or DER; NotTrustedError unless its own key signed it (RFC 2986, 3).

    Raises CorruptError for other bytes, UsageError for several blocks or an unsupported key.
    """
    request = _load(single_der(data, _WHAT, (LABEL, _OTHER_LABEL)))
    public_key = request.public_key()
    key_type(public_key)
    assert isinstance(public_key, keys.PublicKey)
    try:
        with keys.uninterrupted():
            proven = request.is_signature_valid
    except UNREADABLE:
        proven = False
    if not proven:
        raise NotTrustedError(f"{_WHAT} is not signed by its own key", hint="daskpki request creates one")
    return CertificateRequest(public_key, _text(request, NameOID.ORGANIZATION_NAME), _slug(request))


def _load(der: bytes) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_der_x509_csr(der)
        request.subject, request.public_key()
    except UNREADABLE:
        raise CorruptError(f"{_WHAT} cannot be read: it is cut off, changed, or not one") from None
    return request


def _text(request: x509.CertificateSigningRequest, oid: x509.ObjectIdentifier) -> str | None:
    values = [str(entry.value) for entry in request.subject.get_attributes_for_oid(oid)]
    return values[0] if len(values) == 1 else None


def _slug(request: x509.CertificateSigningRequest) -> tuple[Role, str] | None:
    """Return role and name if the subject has both, well-formed."""
    role, name = _text(request, NameOID.ORGANIZATIONAL_UNIT_NAME), _text(request, NameOID.COMMON_NAME)
    try:
        return (Role(role), parse_label(name, "name")) if role and name else None
    except (ValueError, UsageError):
        return None
