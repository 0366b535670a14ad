"""Revoked serials of a trust document: decompresses and verifies its CRLs. Pure.

nextUpdate limits the age of a CRL's signature, which is checked here; the caller checks when the document was fetched.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from datetime import datetime

from cryptography import x509

from daskpki.errors import CorruptError, NotTrustedError
from daskpki.pki.certificates import load_certificate, seconds
from daskpki.pki.crl import MAX_CRL, Crl, Revocation, parse_header, verify_crl
from daskpki.pki.pem import is_der
from daskpki.pki.trust_document import CrlPart, TrustDocument
from daskpki.quoting import rfc3339


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
        crl = verify_crl(crl_der(part), _issuer(part, document), now=None)
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
            f"the trust document's CRL ran out at {rfc3339(end)}, and it is {rfc3339(seconds(now))}",
            hint="any command that opens the CA key signs a new one; --stale-trust allow goes on without",
        )


def crl_due(part: CrlPart) -> int:
    """The time from which a command with the CA key open re-signs a CRL: after a third of its life (epoch seconds)."""
    return part.this_update + (part.next_update - part.this_update) // 3


def is_crl_due(document: TrustDocument, now: datetime) -> bool:
    """True if some CRL of the document is due."""
    return any(seconds(now) >= crl_due(part) for part in document.crls)
