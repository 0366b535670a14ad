"""Reads fields of our JSON documents strictly: each must exist and have its type.

Unknown fields are ignored, so a later minor version may add some; fields that must not be ignored come with a higher
format number. Standard library only, for the boot path.
"""

from __future__ import annotations

import binascii
import json
from contextlib import suppress
from typing import Any, Final

from daskpki.confidential import Confidential
from daskpki.errors import CorruptError, NotTrustedError
from daskpki.secret_names import MAX_PAYLOAD

_LAST_MOMENT: Final = 253_402_300_799


def parse_json(data: bytes, what: str, most: int = MAX_PAYLOAD) -> dict[str, Any]:
    """Parse a JSON object; CorruptError if `data` is too long, not JSON, or not an object."""
    if len(data) > most:
        raise CorruptError(f"{what} has {len(data)} bytes, more than the {most} that it may have")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise CorruptError(f"{what} is not JSON, so it was cut off, changed, or is not ours") from None
    return as_object(document, what)


def as_object(value: object, what: str) -> dict[str, Any]:
    """Return `value` if it is a JSON object; CorruptError."""
    if not isinstance(value, dict):
        raise CorruptError(f"{what} is not a JSON object")
    return value


def check_format(document: dict[str, Any], what: str, *, reader: int, field: str = "format") -> int:
    """Return the number in `field` (a format, or the least reader); NotTrustedError if it is newer than `reader`."""
    number = integer(document, field, what)
    if number > reader:
        raise NotTrustedError(f"{what} has {field} {number}; this daskpki reads up to {reader}", hint="upgrade daskpki")
    return number


def integer(document: dict[str, Any], field: str, what: str, *, least: int = 0) -> int:
    """Return an integer field of at least `least`; CorruptError."""
    value = document.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 1 << 63:
        raise CorruptError(f"{what}: {field!r} is not an integer from {least} on")
    return value


def moment(document: dict[str, Any], field: str, what: str) -> int:
    """Return a time in seconds since the epoch, before the year 10000 (RFC 5280, 4.1.2.5); CorruptError."""
    value = integer(document, field, what)
    if value > _LAST_MOMENT:
        raise CorruptError(f"{what}: {field!r} is a time after the year 9999")
    return value


def string(document: dict[str, Any], field: str, what: str) -> str:
    """Return a text field; CorruptError."""
    return as_text(document.get(field), f"{what}: {field!r}")


def as_text(value: object, what: str) -> str:
    """Return `value` if it is a text without lone surrogates, which cannot be encoded; CorruptError."""
    if not isinstance(value, str) or value.encode(errors="ignore").decode() != value:
        raise CorruptError(f"{what} is not a text")
    return value


def array(document: dict[str, Any], field: str, what: str) -> list[Any]:
    """Return a list field; CorruptError."""
    value = document.get(field)
    if not isinstance(value, list):
        raise CorruptError(f"{what}: {field!r} is not a list")
    return value


def octets(value: object, what: str) -> bytes:
    """Decode a base64 text; CorruptError."""
    with suppress(ValueError):  # also binascii.Error
        if isinstance(value, str):
            return binascii.a2b_base64(value, strict_mode=True)
    raise CorruptError(f"{what} is not base64")


def base64_text(data: bytes) -> str:
    """Encode as base64 without line breaks."""
    return binascii.b2a_base64(data, newline=False).decode()


def compact_json(value: object) -> Confidential:
    """Encode `value` as JSON without blanks: as Confidential, since it may contain a key."""
    return Confidential(json.dumps(value, separators=(",", ":")))


def signing_input(kind: bytes, body: bytes) -> bytes:
    """Make the bytes that a signature covers: DSSE's pre-authentication encoding (PAE) of type and body."""
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)
