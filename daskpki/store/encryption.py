"""Seals bytes by AES-256-GCM with a key, or with a passphrase through scrypt (RFC 7914). Pure.

Every ciphertext is bound to its `context`, the associated data that identifies it: a payload that was moved to another
version, secret or store cannot be decrypted. Two forms:

- `encrypt` and `decrypt`: nonce and ciphertext with a 256-bit key, for payloads with their secret's data key.
- a *box* (`seal_with_passphrase`, `seal_with_key`) that carries its format and key derivation:

      magic  format  kdf  log2(N)  r  p  salt   check   nonce   ciphertext and tag   digest
      8      1       1    1        1  1  16     16      12      n + 16               8

  `digest` (SHA-256) distinguishes damage from a wrong key, before scrypt runs. `check` is derived with the key, so a
  wrong passphrase is distinguished from a forged ciphertext, and no two keys open one box (AES-GCM alone does not
  commit to its key). The parameters are limited on reading: a forged header must not cost gigabytes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import struct
from typing import Final, NamedTuple

from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError, CorruptError, DaskpkiError, NotTrustedError, UsageError

KEY_BYTES: Final = 32
_NONCE: Final = 12  # NIST SP 800-38D, 5.2.1.1: 96 bits; random ones are safe for 2^32 messages under one key
_TAG: Final = 16
_CHECK: Final = 16
_DIGEST: Final = 8

_MAGIC: Final = b"dpki-box"
_FORMAT: Final = 1
_KDF_HKDF: Final = 0  # the secret is already 256 random bits
_KDF_SCRYPT: Final = 1
_COMPACT: Final = json.JSONEncoder(separators=(",", ":"))
_HEADER: Final = struct.Struct(">8sBBBBB16s")


class Cost(NamedTuple):
    """scrypt's parameters: 128 * r * 2^log2n bytes of memory, p times the work."""

    log2n: int
    r: int
    p: int

    @property
    def memory(self) -> int:
        """Bytes that one derivation takes."""
        return 128 * self.r << self.log2n


DEFAULT_COST: Final = Cost(17, 8, 1)
"""128 MiB and about 0.3 s for a guess (OWASP's recommendation)."""

_MAX_MEMORY: Final = 512 << 20
_MAX_PARALLEL: Final = 4


def context(*parts: str | int) -> bytes:
    """Associated data of these parts; JSON keeps ("a", "bc") and ("ab", "c") apart."""
    return _COMPACT.encode(parts).encode()


def random_key() -> Confidential:
    """256 random bits."""
    return Confidential(os.urandom(KEY_BYTES))


def derive(key: Confidential, purpose: bytes, length: int = KEY_BYTES) -> bytes:
    """Derive a key for one purpose from a random one: HKDF-Expand with SHA-256 (RFC 5869, 2.3)."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

    return HKDFExpand(SHA256(), length, purpose).derive(key.reveal())


def encrypt(key: bytes, data: Confidential, context: bytes) -> bytes:
    """Encrypt with AES-256-GCM; the result begins with the random nonce."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, data.reveal(), context)


def decrypt(key: bytes, sealed: bytes, context: bytes) -> Confidential:
    """Decrypt a result of `encrypt`; CorruptError if a byte, the key or the context differs."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(sealed) < _NONCE + _TAG:
        raise CorruptError(f"sealed data is cut off after {len(sealed)} bytes")
    try:
        return Confidential(AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], context))
    except InvalidTag:
        raise CorruptError("sealed data does not open: it was changed, or belongs elsewhere") from None


def seal_with_passphrase(
    data: Confidential, passphrase: Confidential, *, context: bytes, cost: Cost = DEFAULT_COST
) -> bytes:
    """Make a box that the passphrase opens; UsageError for an empty one."""
    if not passphrase:
        raise UsageError("an empty passphrase protects nothing")
    return _seal(data, passphrase, context, _KDF_SCRYPT, cost)


def seal_with_key(data: Confidential, key: Confidential, *, context: bytes) -> bytes:
    """Make a box that opens with `key`, which has to be random; UsageError if it is shorter than 128 bits."""
    if len(key) < KEY_BYTES // 2:
        raise UsageError(f"a key of {len(key)} bytes is too short")
    return _seal(data, key, context, _KDF_HKDF, Cost(0, 0, 0))


def _seal(data: Confidential, secret: Confidential, context: bytes, kdf: int, cost: Cost) -> bytes:
    salt = os.urandom(16)
    header = _HEADER.pack(_MAGIC, _FORMAT, kdf, *cost, salt)
    key, check = _keys(secret, kdf, cost, salt)
    body = header + check + encrypt(key, data, header + context)
    return body + _digest(body)


def open_with_passphrase(box: bytes, passphrase: Confidential, *, context: bytes) -> Confidential:
    """Open the box; AccessDeniedError for a wrong passphrase, CorruptError, NotTrustedError for a newer format."""
    return _open(box, _KDF_SCRYPT, passphrase, context, "the passphrase is wrong")


def open_with_key(box: bytes, key: Confidential, *, context: bytes) -> Confidential:
    """Open the box; AccessDeniedError for a wrong key, CorruptError, NotTrustedError for a newer format."""
    return _open(box, _KDF_HKDF, key, context, "the key is not the right one")


def _open(box: bytes, kdf: int, secret: Confidential, context: bytes, refusal: str) -> Confidential:
    if not box.startswith(_MAGIC) or len(box) < _HEADER.size + _CHECK + _NONCE + _TAG + _DIGEST:
        raise CorruptError("this is not sealed data, or its end is missing")
    if box[len(_MAGIC)] > _FORMAT:
        raise NotTrustedError(
            f"sealed data has format {box[len(_MAGIC)]}; this daskpki reads {_FORMAT}", hint="upgrade daskpki"
        )
    body = box[:-_DIGEST]
    if _digest(body) != box[-_DIGEST:]:
        raise CorruptError("sealed data is damaged: its digest does not fit", hint="restore it from a backup")
    _, version, found, log2n, r, p, salt = _HEADER.unpack_from(box)
    if version != _FORMAT or found != kdf:
        raise CorruptError("sealed data is of another kind than was asked for")
    key, check = _keys(secret, kdf, Cost(log2n, r, p), salt)
    sealed = _HEADER.size + _CHECK
    if not hmac.compare_digest(check, body[_HEADER.size : sealed]):
        raise AccessDeniedError(refusal)
    return decrypt(key, body[sealed:], box[: _HEADER.size] + context)


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_DIGEST]


def _keys(secret: Confidential, kdf: int, cost: Cost, salt: bytes) -> tuple[bytes, bytes]:
    """The box's key and its check."""
    seed = Confidential(_scrypt(secret, cost, salt)) if kdf == _KDF_SCRYPT else secret
    keys = derive(seed, b"daskpki box" + salt, KEY_BYTES + _CHECK)
    return keys[:KEY_BYTES], keys[KEY_BYTES:]


def _scrypt(passphrase: Confidential, cost: Cost, salt: bytes) -> bytes:
    # RFC 7914, section 2: N < 2**(128 * r / 8). And from 2**31 on, the memory is no number that hashlib takes.
    if not (1 <= cost.log2n < min(31, 16 * cost.r) and 1 <= cost.p <= _MAX_PARALLEL):
        raise CorruptError(f"sealed data asks for scrypt parameters out of range: {cost}")
    if cost.memory > _MAX_MEMORY:
        raise CorruptError(f"sealed data asks for {cost.memory >> 20} MiB of memory, over {_MAX_MEMORY >> 20}")
    try:
        return hashlib.scrypt(
            passphrase.reveal(), salt=salt, n=1 << cost.log2n, r=cost.r, p=cost.p, maxmem=2 * cost.memory + (1 << 20)
        )
    except (MemoryError, ValueError) as error:
        raise DaskpkiError(f"scrypt with {cost.memory >> 20} MiB of memory failed: {error}") from error
