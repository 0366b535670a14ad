"""Parses X.509 certificates, and reads the fields on which decisions depend."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, TypeVar, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from daskpki.errors import CorruptError, NotTrustedError, UsageError
from daskpki.identity import Identity, parse_identity
from daskpki.pki.pem import check_size
from daskpki.pki.profile import GRADE_OIDS, Grade, Lifetime

UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""Exceptions of pyca for bytes that are no well-formed certificate or CRL."""

ExtensionT = TypeVar("ExtensionT", bound=x509.ExtensionType)


def load_certificate(der: bytes, what: str = "the certificate") -> x509.Certificate:
    """Parse a certificate in DER; CorruptError unless all of it can be read, with names, key and extensions."""
    try:
        certificate = x509.load_der_x509_certificate(check_size(der, what))
        # pyca parses lazily; damage is to be found here, and not where a field is used.
        certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key()
    except UNREADABLE:
        raise CorruptError(f"{what} cannot be read: it is cut off, changed, or not a certificate") from None
    if certificate.serial_number <= 0:
        raise CorruptError(f"{what} has a serial that is not positive (RFC 5280, 4.1.2.2)")
    return certificate


def der(certificate: x509.Certificate) -> bytes:
    """Encode a certificate as DER."""
    return certificate.public_bytes(Encoding.DER)


def extension(
    certificate: x509.Certificate | x509.CertificateRevocationList, kind: type[ExtensionT]
) -> x509.Extension[ExtensionT] | None:
    """Return the extension of that kind of a certificate or CRL, or None."""
    # By OID: pyca's own search by class calls isinstance with an ABC, which takes a tenth of a bulk issue.
    for found in certificate.extensions:
        if found.oid == kind.oid:
            return cast("x509.Extension[ExtensionT]", found)
    return None


def lifetime(certificate: x509.Certificate) -> Lifetime:
    """Return the certificate's validity in seconds since the epoch."""
    return Lifetime(seconds(certificate.not_valid_before_utc), seconds(certificate.not_valid_after_utc))


def seconds(now: datetime) -> int:
    """Convert to whole seconds since the epoch; ValueError without a time zone, since that would be local time."""
    if now.tzinfo is None:
        raise ValueError("a time needs its zone: datetime.now(UTC)")
    return int(now.timestamp() // 1)


def utc_time(since_epoch: int) -> datetime:
    """Convert seconds since the epoch to a time in UTC."""
    return datetime.fromtimestamp(since_epoch, UTC)


def certificate_grades(certificate: x509.Certificate) -> frozenset[Grade]:
    """Return the known grades among the extended key usages; they count only in a client's certificate."""
    usage = extension(certificate, x509.ExtendedKeyUsage)
    found = {purpose.dotted_string for purpose in usage.value} if usage is not None else set()
    return frozenset(grade for grade, oid in GRADE_OIDS.items() if oid in found)


def certificate_identity(certificate: x509.Certificate) -> Identity:
    """Read the identity in the certificate's URI SAN (X509-SVID, 2: exactly one), **not verified**.

    Raises NotTrustedError if there is no such name, more than one, or one that is not an identity.
    """
    names = extension(certificate, x509.SubjectAlternativeName)
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier) if names else []
    if len(uris) != 1:
        raise NotTrustedError(f"the certificate has {len(uris)} URI names instead of one")
    try:
        return parse_identity(uris[0])
    except UsageError as error:
        raise NotTrustedError(f"the certificate's identity: {error}") from None


def permitted_dns(certificate: x509.Certificate) -> tuple[str, ...] | None:
    """Return the DNS subtrees to which a CA is constrained; None if it has no name constraints."""
    constraints = extension(certificate, x509.NameConstraints)
    if constraints is None:
        return None
    subtrees = constraints.value.permitted_subtrees or []
    return tuple(str(subtree.value) for subtree in subtrees if isinstance(subtree, x509.DNSName))


def name_text(name: x509.Name) -> str:
    """Join a CA's name to one text; its generation distinguishes the CAs of a cluster (`daskpki.pki.issuer`)."""
    return "/".join(str(attribute.value) for attribute in name)
