"""Parses PEM text and checks sizes of DER (standard library only, for the boot path).

Bytes that cannot be parsed raise CorruptError; well-formed ones of the wrong kind or size raise UsageError.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

from daskpki.errors import CorruptError, UsageError

MAX_INPUT: Final = 64 * 1024
"""Far above any certificate, key or chain of ours (a P-256 leaf has 700 bytes), in bytes."""

CERTIFICATE: Final = "CERTIFICATE"
PRIVATE_KEY: Final = "PRIVATE KEY"

_BEGIN: Final = b"-----BEGIN "
# Compiled at its first use: a boot reads no PEM.
_BLOCK: Final = rb"-----BEGIN ([A-Z0-9 ]{1,40})-----([^-]*)-----END \1-----"


def check_size(data: bytes, what: str, limit: int = MAX_INPUT) -> bytes:
    """Return `data`; CorruptError if it is blank, UsageError if it is longer than `limit` bytes."""
    if len(data) > limit:
        raise UsageError(f"{what} has {len(data)} bytes, more than the {limit} that are read")
    if not data.strip():
        raise CorruptError(f"{what} is empty")
    return data


def is_pem(data: bytes) -> bool:
    """True if a PEM block begins anywhere in `data` (RFC 7468, 2 allows text before it)."""
    return _BEGIN in data


def is_der(data: bytes) -> bool:
    """True if `data` begins like the DER of a signed object: a SEQUENCE with a long-form length."""
    return data[:1] == b"\x30" and data[1:2] > b"\x80"


def parse_pem(data: bytes, what: str) -> list[tuple[str, bytes]]:
    """Return label and DER of every block, in order; CorruptError if one is incomplete or not base64."""
    blocks = re.findall(_BLOCK, check_size(data, what))
    if not blocks or len(blocks) != data.count(_BEGIN):
        raise CorruptError(f"{what} is not complete PEM: the text was cut off or changed")
    return [(label.decode(), _decode(body, what)) for label, body in blocks]


def _decode(body: bytes, what: str) -> bytes:
    try:
        return binascii.a2b_base64(b"".join(body.split()), strict_mode=True)
    except binascii.Error as error:
        raise CorruptError(f"{what}: a PEM block is not base64 ({error})") from None


def single_der(data: bytes, what: str, labels: tuple[str, ...]) -> bytes:
    """Return DER itself, or that of one PEM block with one of `labels`; UsageError for other or several blocks."""
    if is_der(check_size(data, what)) or not is_pem(data):
        return data
    blocks = parse_pem(data, what)
    if len(blocks) != 1 or blocks[0][0] not in labels:
        found = ", ".join(label for label, _ in blocks)
        raise UsageError(f"the file contains {found}, where one {labels[0]} is expected")
    return blocks[0][1]


def encode_pem(der: bytes, label: str) -> str:
    """Encode one PEM block, in lines of 64 characters (RFC 7468, 2)."""
    text = binascii.b2a_base64(der, newline=False).decode()
    lines = (text[start : start + 64] for start in range(0, len(text), 64))
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def parse_certificates(data: bytes, what: str = "the certificate file") -> list[bytes]:
    """Return the DER of each certificate, from PEM blocks, or from one piece of DER, which is not parsed.

    Another kind of block (a private key, a request) raises UsageError that names it.
    """
    if not is_pem(data):
        return [check_size(data, what)]
    blocks = parse_pem(data, what)
    if other := next((label for label, _ in blocks if label != CERTIFICATE), None):
        raise UsageError(f"{what} contains a {other}, where only certificates are expected")
    return [der for _, der in blocks]


def parse_fingerprint(text: str) -> str:
    """Parse a SHA-256 with or without colons to lower-case hex; UsageError unless it has 64 digits."""
    digits = text.strip().replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise UsageError(
            f"{text.strip()[:100]!r} is not a SHA-256 fingerprint, which has 64 hexadecimal digits",
            hint="the commands init-ca and sign --out print it",
        )
    return digits


def fingerprint(der: bytes) -> str:
    """Return the SHA-256 of the whole certificate in lower-case hex, which identifies it (serial and key id do not)."""
    from hashlib import sha256  # a boot without a pin has no need of it

    return sha256(der).hexdigest()
