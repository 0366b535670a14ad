"""One complete CRL, cut between its entries into pieces that fit a payload, and put together again byte for byte.

    CRL = head + entries in the order of their serials + tail

The entries are divided by the leading bits of their serials, halved until each piece is small enough, so the cut
depends on the entries alone: one more revocation changes one piece, or halves it. Pieces are zlib streams.
Standard library only.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from daskpki.errors import CorruptError

PIECE_LIMIT: Final = 60 * 1024
"""The size of a piece in bytes, compressed: below a payload's 64 KiB."""

MAX_CRL: Final = 64 << 20
"""The size of a complete CRL in bytes: 100,000 entries are 4.9 MB, and ten times that more than any cluster issues."""

_SERIAL_BITS: Final = 160  # RFC 5280, 4.1.2.2: at most 20 octets
# Deflate shortens by 1032 at most (zlib's own limit); honest entries, random serials and all, by 3.
_MAX_INFLATED: Final = 1032 * PIECE_LIMIT
# Entries of random serials shrink to about a half, so what is longer is halved without trying.
_HOPELESS: Final = 4
_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_LONG_FORM: Final = 0x80


class SplitCrl(NamedTuple):
    """What `join_crl` needs: the bytes before and after the entries, and the compressed pieces between."""

    head: bytes
    pieces: tuple[bytes, ...]
    tail: bytes


class _Entry(NamedTuple):
    serial: int
    start: int
    end: int


def split_crl(der: bytes, *, limit: int = PIECE_LIMIT) -> SplitCrl:
    """Cut a DER CRL whose entries are sorted by serial; CorruptError when it is not one."""
    try:
        start, end = _entries_span(der)
        entries = list(_scan(der, start, end))
    except IndexError:
        raise CorruptError("the CRL is cut off") from None
    if any(one.serial >= other.serial for one, other in pairwise(entries)):
        raise CorruptError("the CRL's entries are not in the order of their serials")
    return SplitCrl(der[:start], tuple(_cut(der, entries, _SERIAL_BITS, limit)), der[end:])


def join_crl(head: bytes, pieces: Iterable[bytes], tail: bytes) -> bytes:
    """The DER of the CRL; CorruptError when a piece is no zlib stream, or when they expand to more than MAX_CRL.

    What comes out is yet to be verified.
    """
    parts, room = [head], MAX_CRL
    for piece in pieces:
        parts.append(_inflate(piece, room))
        room -= len(parts[-1])
    return b"".join([*parts, tail])


def _inflate(piece: bytes, room: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(piece, min(_MAX_INFLATED, room + 1))  # 0 would be no limit at all
    except zlib.error as error:
        raise CorruptError(f"a piece of the CRL cannot be decompressed ({error})") from None
    if len(data) > room or not inflater.eof or inflater.unused_data:
        raise CorruptError("a piece of the CRL is cut off or too long")
    return data


def _cut(der: bytes, entries: Sequence[_Entry], bits: int, limit: int) -> list[bytes]:
    """Pieces of these entries, which agree in all but the last `bits` bits of their serials."""
    if not entries:
        return []
    raw = der[entries[0].start : entries[-1].end]
    if len(entries) == 1 or len(raw) <= _HOPELESS * limit:
        piece = zlib.compress(raw, 6)
        if len(entries) == 1 or len(piece) <= limit:
            return [piece]
    middle = _first_with_bit(entries, bits - 1)
    return _cut(der, entries[:middle], bits - 1, limit) + _cut(der, entries[middle:], bits - 1, limit)


def _first_with_bit(entries: Sequence[_Entry], bit: int) -> int:
    """How many of the entries have that bit of their serial clear; they are sorted and agree above it."""
    low, high = 0, len(entries)
    while low < high:
        middle = (low + high) // 2
        if entries[middle].serial >> bit & 1:
            high = middle
        else:
            low = middle + 1
    return low


def _entries_span(der: bytes) -> tuple[int, int]:
    """Where revokedCertificates' contents begin and end (RFC 5280, 5.1); the same place twice when there are none."""
    position, outer_end = _value(der, 0, _SEQUENCE)
    position, tbs_end = _value(der, position, _SEQUENCE)
    if outer_end != len(der):
        raise CorruptError("the CRL is cut off, or something follows it")
    for _ in range(5):  # version, signature, issuer, thisUpdate, nextUpdate
        _, position = _value(der, position)
    if position < tbs_end and der[position] == _SEQUENCE:
        return _value(der, position, _SEQUENCE)
    return position, position


def _scan(der: bytes, start: int, end: int) -> Iterable[_Entry]:
    while start < end:
        inner, stop = _value(der, start, _SEQUENCE)
        first, last = _value(der, inner, _INTEGER)
        yield _Entry(int.from_bytes(der[first:last], "big"), start, stop)
        start = stop


def _value(der: bytes, position: int, tag: int | None = None) -> tuple[int, int]:
    """Start and end of the contents of the DER element at `position` (X.690, 8.1)."""
    if tag is not None and der[position] != tag:
        raise CorruptError("the CRL is not the DER of a CRL")
    length = der[position + 1]
    position += 2
    if length >= _LONG_FORM:
        octets = length - _LONG_FORM
        length = int.from_bytes(der[position : position + octets], "big")
        position += octets
    if position + length > len(der):
        raise CorruptError("the CRL is cut off")
    return position, position + length
