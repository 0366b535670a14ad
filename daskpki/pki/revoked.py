"""Who is revoked, according to a trust document: its CRLs, inline or in pieces, put together and verified.

Two limits are apart: how long ago the document was fetched is known to whoever fetched it, and how old the CRL's
signature is follows from nextUpdate, which is looked at here. Pure: pieces come from a function that is handed in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from cryptography import x509

from daskpki.errors import CorruptError, NotTrustedError, UsageError
from daskpki.pki.certificates import load_certificate, seconds
from daskpki.pki.crl import Crl, Revocation, parse_header, verify_crl, verify_serials
from daskpki.pki.crl_pieces import SplitCrl, join_crl, split_crl
from daskpki.pki.profile import show
from daskpki.pki.trust_document import CrlPart, PieceRef, TrustDocument

INLINE_LIMIT: Final = 12 * 1024
"""Compressed CRL entries up to this size stand in the document: those of three generations still fit a payload."""

FetchPiece = Callable[[int], bytes]
"""Payload of the secret of pieces by its version number."""


def fits_inline(split: SplitCrl) -> bool:
    """Whether the CRL's entries may stand in the document itself."""
    return len(split.pieces) <= 1 and sum(map(len, split.pieces)) <= INLINE_LIMIT


def crl_part(generation: int, der: bytes, versions: Sequence[int] = (), *, split: SplitCrl | None = None) -> CrlPart:
    """A CRL as it stands in the document: inline, or its pieces kept under these version numbers, in order.

    UsageError when the numbers do not match the pieces that `split_crl` makes of it (or made, as `split`).
    """
    crl, split = parse_header(der), split or split_crl(der)
    inline = not versions and fits_inline(split)
    if not inline and len(versions) != len(split.pieces):
        raise UsageError(f"the CRL has {len(split.pieces)} pieces, and {len(versions)} version numbers are given")
    return CrlPart(
        generation=generation,
        number=crl.number,
        this_update=crl.this_update,
        next_update=crl.next_update,
        head=split.head,
        tail=split.tail,
        entries=b"".join(split.pieces) if inline else None,
        pieces=() if inline else tuple(map(piece_ref, versions, split.pieces)),
    )


def piece_ref(version: int, piece: bytes) -> PieceRef:
    """The reference to a piece that was stored under that version number."""
    return PieceRef(version, hashlib.sha256(piece).hexdigest())


def crl_der(part: CrlPart, fetch_piece: FetchPiece) -> bytes:
    """The complete CRL; CorruptError when a piece is not the one that the document names. Not verified yet."""
    if part.entries is not None:
        return join_crl(part.head, [part.entries] if part.entries else [], part.tail)
    return join_crl(part.head, [_fetch(piece, fetch_piece) for piece in part.pieces], part.tail)


def _fetch(piece: PieceRef, fetch_piece: FetchPiece) -> bytes:
    data = fetch_piece(piece.version)
    if hashlib.sha256(data).hexdigest() != piece.sha256:
        raise CorruptError(f"version {piece.version} of the CRL's pieces is not the one that the trust document names")
    return data


def revoked_serials(document: TrustDocument, fetch_piece: FetchPiece) -> dict[int, Mapping[int, Revocation]]:
    """The revocations by CA generation and serial, from CRLs whose signature and issuer were verified.

    CRLs that ran out still count, since they say truly who is revoked: `check_fresh` is the question whether they
    say enough. Raises NotTrustedError or CorruptError, and whatever fetching a piece raises.
    """
    revoked = {}
    for part in document.crls:
        crl = verify_crl(crl_der(part, fetch_piece), _issuer(part, document), now=None)
        _check_announced(crl, part)
        revoked[part.generation] = crl.revoked
    return revoked


def every_revoked_serial(document: TrustDocument, fetch_piece: FetchPiece) -> frozenset[int]:
    """The serials of `revoked_serials` together, for who only asks whether one is among them: this is faster.

    Serials are random, so the union is as good as one set for each generation.
    """
    serials: list[frozenset[int]] = []
    for part in document.crls:
        crl, listed = verify_serials(crl_der(part, fetch_piece), _issuer(part, document))
        _check_announced(crl, part)
        serials.append(listed)
    return serials[0].union(*serials[1:]) if serials else frozenset()


def _issuer(part: CrlPart, document: TrustDocument) -> x509.Certificate:
    for anchor in document.authorities:
        if anchor.generation == part.generation:
            return load_certificate(anchor.issuing)
    raise NotTrustedError(f"the trust document has a CRL of CA generation {part.generation}, which it does not name")


def _check_announced(crl: Crl, part: CrlPart) -> None:
    if crl[:3] != (part.number, part.this_update, part.next_update):
        raise NotTrustedError(f"the CRL of CA generation {part.generation} is not the one that the document announces")


def next_update(document: TrustDocument) -> int:
    """When the first of its CRLs runs out, in seconds since the epoch."""
    return min(part.next_update for part in document.crls)


def check_fresh(document: TrustDocument, now: datetime) -> None:
    """Raise NotTrustedError once a CRL has run out: revocations since then may be unknown here."""
    end = next_update(document)
    if seconds(now) > end:
        raise NotTrustedError(
            f"the trust document's CRL ran out at {show(end)}, and it is {show(seconds(now))}",
            hint="any command that opens the CA key signs a new one; --stale-trust allow goes on without",
        )


def is_due(document: TrustDocument, now: datetime) -> bool:
    """Whether a third of some CRL's life is past, so that a command that has the CA key open signs it anew."""
    return any(seconds(now) - part.this_update >= (part.next_update - part.this_update) // 3 for part in document.crls)
