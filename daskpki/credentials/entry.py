"""What a login keeps in the keyring: the private key, the digest of the public file, and the newest trust epoch seen.

One line of ASCII, `1.EPOCH.DIGEST.KIND.BASE64`, that fits the smallest keyring (Windows: 1,280 characters). A P-256
key is 184 characters of PKCS#8; an RSA key does not fit and is kept as its two primes (512 characters for RSA-3072),
from which all of it follows.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final, NamedTuple

from daskpki.confidential import Confidential
from daskpki.credentials.os_keyring import MAX_CHARACTERS
from daskpki.errors import CorruptError, NotTrustedError, UsageError

FORMAT: Final = "1"
_PKCS8: Final = "pkcs8"
_PRIMES: Final = "primes"
_RSA_EXPONENT: Final = 65_537
# RSA keys count from 3072 bits on, so each of their primes has half of that (daskpki.pki.keys).
_LEAST_PRIME: Final = 3072 // 2 // 8
_LINE: Final = re.compile(r"1\.(\d{1,18})\.([0-9a-f]{64})\.(pkcs8|primes)\.([A-Za-z0-9+/]+=*)\Z")


class Entry(NamedTuple):
    """`epoch` never goes back; `digest` is the SHA-256, in hex, of the context file; `key` is PKCS#8 in DER."""

    epoch: int
    digest: str
    key: Confidential


def encode_entry(entry: Entry) -> Confidential:
    """The line to keep; UsageError when even the short form of the key does not fit every keyring."""
    line = _line(entry, _PKCS8, entry.key.reveal())
    if len(line) > MAX_CHARACTERS:
        line = _line(entry, _PRIMES, _primes(entry.key))
    if len(line) > MAX_CHARACTERS:
        raise UsageError(f"the key needs {len(line)} characters, and a keyring entry holds {MAX_CHARACTERS}")
    return line


def _line(entry: Entry, kind: str, key: bytes) -> Confidential:
    return Confidential(f"{FORMAT}.{entry.epoch}.{entry.digest}.{kind}.{base64.b64encode(key).decode()}")


def parse_entry(line: Confidential) -> Entry:
    """What `encode_entry` wrote; CorruptError, or NotTrustedError for a newer format."""
    text = line.reveal().decode("ascii", "replace")
    match = _LINE.match(text)
    if match is None:
        if re.match(r"\d+\.", text) and not text.startswith(f"{FORMAT}."):
            raise NotTrustedError(f"the keyring entry has format {text.partition('.')[0]}, this daskpki reads {FORMAT}")
        raise CorruptError("the keyring entry is not one that daskpki wrote", hint="daskpki login writes it anew")
    epoch, digest, kind, encoded = match.groups()
    try:
        key = base64.b64decode(encoded, validate=True)
        whole = Confidential(key) if kind == _PKCS8 else _from_primes(key)
    except (binascii.Error, ValueError, ArithmeticError):
        raise CorruptError("the keyring entry's key is damaged", hint="daskpki login writes it anew") from None
    return Entry(int(epoch), digest, whole)


def _primes(key: Confidential) -> bytes:
    """The factors of an RSA key, big-endian, in equal halves."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    loaded = load_der_private_key(key.reveal(), None)
    if not isinstance(loaded, RSAPrivateKey) or loaded.public_key().public_numbers().e != _RSA_EXPONENT:
        raise UsageError("this kind of key does not fit a keyring entry", hint="issue the client with a P-256 key")
    numbers = loaded.private_numbers()
    half = (max(numbers.p, numbers.q).bit_length() + 7) // 8
    return numbers.p.to_bytes(half, "big") + numbers.q.to_bytes(half, "big")


def _from_primes(data: bytes) -> Confidential:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    half = len(data) // 2
    if half < _LEAST_PRIME:
        raise ValueError("no prime of a key that is issued here")
    p, q = int.from_bytes(data[:half], "big"), int.from_bytes(data[half:], "big")
    d = rsa.rsa_recover_private_exponent(_RSA_EXPONENT, p, q)
    numbers = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=rsa.rsa_crt_dmp1(d, p),
        dmq1=rsa.rsa_crt_dmq1(d, q),
        iqmp=rsa.rsa_crt_iqmp(p, q),
        public_numbers=rsa.RSAPublicNumbers(_RSA_EXPONENT, p * q),
    )
    return Confidential(
        numbers.private_key().private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
