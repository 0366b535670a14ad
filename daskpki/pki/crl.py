"""Certificate revocation lists: signed in one step, verified before use (RFC 5280, 5).

One complete CRL for each issuer, of version 2, with CRLNumber, AKI and reasons. There are no delta CRLs: a certificate
on hold that is released, and one that is long expired, are simply absent from the next list.

A trust document has the CRL of each of its CAs, compressed. nextUpdate limits the age of a CRL's signature
(`check_fresh`); the caller checks when the document was fetched.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from daskpki.errors import CorruptError, NotTrustedError, UsageError
from daskpki.pki.certificates import UNREADABLE, extension, load_certificate, seconds, utc_time
from daskpki.pki.keys import signature_hash, uninterrupted
from daskpki.pki.pem import check_size, encode_pem, is_der
from daskpki.pki.profile import CRL_LIFETIME, MAX_SERIAL, MINUTE
from daskpki.pki.trust_document import CrlPart, TrustDocument
from daskpki.quoting import rfc3339

if TYPE_CHECKING:  # a node verifies, and does not issue
    from daskpki.pki.issuer import Issuer

UNSPECIFIED: Final = "unspecified"
REASONS: Final = (
    UNSPECIFIED,
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "privilegeWithdrawn",
    "aACompromise",
)
"""RFC 5280, 5.3.1, without removeFromCRL, which only a delta CRL may have."""

MAX_CRL: Final = 1 << 20
"""The size of a CRL in bytes: 20,000 entries, ten times as many as a trust document has room for."""

CLOCK_SKEW: Final = 5 * MINUTE
"""Seconds that thisUpdate may be ahead of this machine's clock."""

_LABEL: Final = "X509 CRL"


class Revocation(NamedTuple):
    """One entry of a CRL; `at` in seconds since the epoch, `reason` one of REASONS."""

    serial: int
    at: int
    reason: str = UNSPECIFIED


class Crl(NamedTuple):
    """A CRL's contents; times in seconds since the epoch, revocations by serial."""

    number: int
    this_update: int
    next_update: int
    revoked: Mapping[int, Revocation]


def parse_reason(text: str) -> str:
    """Parse a reason of RFC 5280; UsageError lists them."""
    if text not in REASONS:
        raise UsageError(f"{text!r} is not a reason (RFC 5280, 5.3.1)", hint=f"reasons are {', '.join(REASONS)}")
    return text


def sign_crl(
    issuer: Issuer,
    revocations: Iterable[Revocation],
    *,
    number: int,
    now: datetime,
    lifetime: int = CRL_LIFETIME,
) -> bytes:
    """Sign the issuer's complete CRL (DER), sorted by serial; `lifetime` in seconds until nextUpdate.

    UsageError for a serial that is out of range or repeated, an unknown reason, or a number below 1.
    """
    if number < 1:
        raise UsageError(f"CRL number {number} is not positive (RFC 5280, 5.2.3)")
    entries = sorted(revocations)
    serials = [entry.serial for entry in entries]
    if len(set(serials)) != len(serials):
        raise UsageError("a serial is twice among the revocations of one CRL")
    this_update = utc_time(seconds(now))
    extensions: list[x509.Extension[x509.ExtensionType]] = []
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=issuer.certificate.subject,
        last_update=this_update.replace(tzinfo=None),
        next_update=(this_update + timedelta(seconds=lifetime)).replace(tzinfo=None),
        extensions=extensions,
        # Adding them one by one copies the list each time, which is quadratic.
        revoked_certificates=[_entry(entry) for entry in entries],
    )
    builder = builder.add_extension(issuer.key_identifier, critical=False)
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    return builder.sign(issuer.key, signature_hash(issuer.key)).public_bytes(Encoding.DER)


def _entry(revocation: Revocation) -> x509.RevokedCertificate:
    if not 0 < revocation.serial <= MAX_SERIAL:
        raise UsageError(f"serial {revocation.serial:x} is not one of daskpki's: below 1, or longer than 16 octets")
    builder = x509.RevokedCertificateBuilder().serial_number(revocation.serial).revocation_date(utc_time(revocation.at))
    if parse_reason(revocation.reason) != UNSPECIFIED:  # RFC 5280, 5.3.1: absent rather than unspecified
        builder = builder.add_extension(x509.CRLReason(x509.ReasonFlags(revocation.reason)), critical=False)
    return builder.build()


def crl_pem(der: bytes) -> str:
    """Encode the CRL as PEM."""
    return encode_pem(der, _LABEL)


def verify_crl(der: bytes, issuer: x509.Certificate) -> Crl:
    """Parse a CRL; NotTrustedError unless `issuer` signed it.

    The dates are left to the caller: the revocations of an expired list are still true.
    """
    crl = _load(check_size(der, "the CRL", MAX_CRL))
    if crl.issuer != issuer.subject:
        raise NotTrustedError(f"the CRL is of {crl.issuer.rfc4514_string()}, not of {issuer.subject.rfc4514_string()}")
    try:
        with uninterrupted():
            genuine = crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # one that cannot sign raises
    except UNREADABLE:
        genuine = False
    if not genuine:
        raise NotTrustedError("the CRL's signature does not verify with its issuer's key")
    return _contents(crl)


def _load(der: bytes) -> x509.CertificateRevocationList:
    try:
        crl = x509.load_der_x509_crl(der)
        crl.issuer, crl.extensions  # noqa: B018 - parsed lazily; damage is to be found here
    except UNREADABLE:
        raise CorruptError("the CRL cannot be read: it is cut off, changed, or not a CRL") from None
    return crl


def parse_header(der: bytes) -> Crl:
    """Parse number and dates of a CRL, **not verified**, without its entries; CorruptError."""
    return _header(_load(der))


def _header(crl: x509.CertificateRevocationList) -> Crl:
    number = extension(crl, x509.CRLNumber)
    if number is None or crl.next_update_utc is None:
        raise CorruptError("the CRL has no number or no nextUpdate (RFC 5280, 5.1.2.5 and 5.2.3)")
    return Crl(number.value.crl_number, seconds(crl.last_update_utc), seconds(crl.next_update_utc), {})


def _contents(crl: x509.CertificateRevocationList) -> Crl:
    header = _header(crl)
    try:
        revoked = {entry.serial_number: _revocation(entry) for entry in crl}
    except UNREADABLE:
        raise CorruptError("an entry of the CRL cannot be read") from None
    return header._replace(revoked=revoked)


def _revocation(entry: x509.RevokedCertificate) -> Revocation:
    reason = UNSPECIFIED
    for found in entry.extensions:
        if isinstance(found.value, x509.CRLReason):
            reason = found.value.reason.value
        elif found.critical:
            raise CorruptError(f"an entry of the CRL has a critical extension {found.oid.dotted_string}")
    return Revocation(entry.serial_number, seconds(entry.revocation_date_utc), reason)


# --- CRLs in a trust document


def crl_part(generation: int, der: bytes) -> CrlPart:
    """Make the CRL's part of a trust document."""
    header = parse_header(der)
    return CrlPart(generation, header.number, header.this_update, header.next_update, zlib.compress(der, 9))


def crl_der(part: CrlPart) -> bytes:
    """Decompress a CRL, **not verified**; CorruptError if the stream is damaged, or expands to more than MAX_CRL."""
    inflater = zlib.decompressobj()
    try:
        der = inflater.decompress(part.compressed, MAX_CRL + 1)
    except zlib.error as error:
        raise CorruptError(f"the CRL of CA generation {part.generation} cannot be decompressed ({error})") from None
    if len(der) > MAX_CRL or not inflater.eof or inflater.unused_data:
        raise CorruptError(f"the CRL of CA generation {part.generation} is cut off or too long")
    if not is_der(der):
        raise CorruptError(f"the CRL of CA generation {part.generation} is not DER")
    return der


def verified_crls(document: TrustDocument) -> dict[int, Crl]:
    """Return the CRLs by CA generation, verified; NotTrustedError or CorruptError.

    Expired CRLs count too, since their revocations are still true; `check_fresh` raises if later ones may be missing.
    """
    found = {}
    for part in document.crls:
        crl = verify_crl(crl_der(part), _issuer(part, document))
        if crl[:3] != (part.number, part.this_update, part.next_update):
            raise NotTrustedError(
                f"the CRL of CA generation {part.generation} is not the one that the document announces"
            )
        found[part.generation] = crl
    return found


def revoked_serials(document: TrustDocument) -> dict[int, Mapping[int, Revocation]]:
    """Return the revocations by CA generation and serial, from `verified_crls`."""
    return {generation: crl.revoked for generation, crl in verified_crls(document).items()}


def every_revoked_serial(document: TrustDocument) -> frozenset[int]:
    """Return the serials of `revoked_serials`, and those of dropped CAs, in one set.

    Serials are random, so one set is as good as a set for each generation.
    """
    dropped = [entry.serials or () for entry in document.revoked_dropped]
    return frozenset().union(*revoked_serials(document).values(), *dropped)


def _issuer(part: CrlPart, document: TrustDocument) -> x509.Certificate:
    for anchor in document.authorities:
        if anchor.generation == part.generation:
            return load_certificate(anchor.issuing)
    raise NotTrustedError(f"the trust document has a CRL of CA generation {part.generation}, which it does not name")


def next_update(document: TrustDocument) -> int:
    """Return the earliest nextUpdate of its CRLs, in seconds since the epoch."""
    return min(part.next_update for part in document.crls)


def check_fresh(document: TrustDocument, now: datetime) -> None:
    """Raise NotTrustedError once a CRL has expired: revocations since then may be unknown here."""
    end = next_update(document)
    if seconds(now) > end:
        raise NotTrustedError(
            f"the trust document's CRL expired at {rfc3339(end)}; it is now {rfc3339(seconds(now))}",
            hint="any daskpki command that opens the CA's key signs a new one; a node: --stale-trust allow",
        )


def crl_due(part: CrlPart) -> int:
    """The time from which a command with the CA key open re-signs a CRL: after a third of its life (epoch seconds)."""
    return part.this_update + (part.next_update - part.this_update) // 3


def is_crl_due(document: TrustDocument, now: datetime) -> bool:
    """True if some CRL of the document is due."""
    return any(seconds(now) >= crl_due(part) for part in document.crls)
