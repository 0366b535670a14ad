"""How the records log's payloads are read: decompressed within limits, each value of the type that was written. Pure.

Whoever compares one version with others relies on the types, and could not tell by then which version it was.
"""

from __future__ import annotations

import lzma
from typing import Final

from daskpki.errors import CorruptError
from daskpki.pki import fields
from daskpki.records import Head

_MAX_EXPANDED: Final = 16 << 20  # 64 KiB of honest records expand to less than 1 MiB
_MEMORY: Final = 64 << 20
_WHAT: Final = "a part of a records log"


def expand(data: bytes) -> bytes:
    """The text of an .xz file; CorruptError, lzma.LZMAError."""
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
    expanded = decompressor.decompress(data, _MAX_EXPANDED)
    if not decompressor.eof or decompressor.unused_data:
        raise CorruptError("not a part of a records log (truncated, too large, or followed by other bytes)")
    return expanded


def number(value: object) -> int:
    """`value` when it is an integer from 0 on; CorruptError."""
    return fields.integer({"number": value}, "number", _WHAT)


def text(value: object) -> str:
    """`value` when it is a text; CorruptError."""
    return fields.as_text(value, f"an entry of {_WHAT}")


def parse_end(seq: object, end: object) -> Head:
    """The record that these two name; CorruptError."""
    return Head(number(seq), text(end))
