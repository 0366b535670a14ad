"""The recovery code: 160 random bits that someone writes down, and a checksum that notices a slip of the pen. Pure.

Written in Crockford's base 32, without I, L, O and U, in nine groups of four. Reading is forgiving: case, spaces and
dashes do not matter, O is read as 0, I and L as 1.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from daskpki.confidential import Confidential
from daskpki.errors import UsageError

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_BYTES: Final = 20
_CHECKSUM_BITS: Final = 20
_LENGTH: Final = (8 * _BYTES + _CHECKSUM_BITS) // 5
_FORGIVEN: Final = str.maketrans("OIL", "011", " -\t\r\n")


def generate_recovery_code() -> Confidential:
    """A new code, as it is printed once."""
    return format_recovery_code(Confidential(secrets.token_bytes(_BYTES)))


def format_recovery_code(key: Confidential) -> Confidential:
    """The printed form of 20 bytes."""
    number = int.from_bytes(key.reveal(), "big") << _CHECKSUM_BITS | _checksum(key)
    digits = [_ALPHABET[number >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5)]
    groups = ["".join(digits[at : at + 4]) for at in range(0, _LENGTH, 4)]
    return Confidential("-".join(groups))


def parse_recovery_code(code: Confidential) -> Confidential:
    """The 20 bytes of a printed code; UsageError that says what is wrong, without repeating the code."""
    text = code.reveal().decode("ascii", "replace").upper().translate(_FORGIVEN)
    if len(text) != _LENGTH:
        raise UsageError(f"a recovery code has {_LENGTH} letters and digits, this has {len(text)}")
    if not set(text) <= set(_ALPHABET):
        raise UsageError("a recovery code has only digits and letters, without U")
    number = 0
    for digit in text:
        number = number << 5 | _ALPHABET.index(digit)
    key = Confidential((number >> _CHECKSUM_BITS).to_bytes(_BYTES, "big"))
    if number & (1 << _CHECKSUM_BITS) - 1 != _checksum(key):
        raise UsageError("the recovery code does not fit its checksum: a letter is wrong")
    return key


def _checksum(key: Confidential) -> int:
    return int.from_bytes(hashlib.sha256(b"daskpki recovery code" + key.reveal()).digest()[:4], "big") >> 12
