"""Key pairs: the four kinds, their PKCS#8 form, and raw signatures with them.

Abstract key types are used throughout, so a key whose private half is elsewhere (Cloud KMS) works as well.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from daskpki.confidential import Confidential
from daskpki.errors import CorruptError, NotTrustedError, UsageError
from daskpki.pki.pem import MAX_INPUT, check_size, is_pem

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class KeyType(StrEnum):
    """The kinds of keys that a CA or leaf may have; P-256 is the default."""

    P256 = "p256"
    P384 = "p384"
    RSA3072 = "rsa3072"
    ED25519 = "ed25519"


KINDS: Final = f"key types are {', '.join(KeyType)}"
"""The hint of an error about another type."""

ED25519_WARNING: Final = (
    "Ed25519 certificates are refused by some validators (NSS 3.87, browsers); p256 works everywhere"
)
_RSA_BITS: Final = 3072
_CURVES: Final = {"secp256r1": KeyType.P256, "secp384r1": KeyType.P384}


def generate_key(kind: KeyType) -> PrivateKey:
    """Generate a private key."""
    if kind is KeyType.P256:
        return ec.generate_private_key(ec.SECP256R1())
    if kind is KeyType.P384:
        return ec.generate_private_key(ec.SECP384R1())
    if kind is KeyType.RSA3072:
        return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    return ed25519.Ed25519PrivateKey.generate()


def key_type(key: object) -> KeyType:
    """Return the kind of a private or public key; UsageError for an unsupported one.

    RSA keys count from 3072 bits on: GnuTLS's profile `high` refuses 2048.
    """
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey) and _RSA_BITS <= key.key_size <= 2 * _RSA_BITS:
        return KeyType.RSA3072
    if isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
        return KeyType.ED25519
    raise UsageError(f"{_describe(key)} is not supported", hint=KINDS)


def _describe(key: object) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        return f"a key on the curve {key.curve.name}"
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        return f"an RSA key of {key.key_size} bits"
    return f"a key of the kind {type(key).__name__.removesuffix('Key')}"


def serialize_key(key: PrivateKey) -> Confidential:
    """Encode a key as unencrypted PKCS#8 DER, which stores encrypt."""
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Confidential(der)


def parse_key(data: Confidential, what: str = "the private key") -> PrivateKey:
    """Parse a private key in DER or PEM; CorruptError if unreadable, UsageError if encrypted or of another kind."""
    raw = check_size(data.reveal(), what, MAX_INPUT)
    load = serialization.load_pem_private_key if is_pem(raw) else serialization.load_der_private_key
    try:
        key = load(raw, password=None)
    except TypeError:
        raise UsageError(f"{what} is encrypted", hint="decrypt it first, for example with openssl pkey") from None
    except UnsupportedAlgorithm:
        raise UsageError(f"{what} is of a kind that is not supported", hint=KINDS) from None
    except ValueError:  # its message may quote the input, so it is not repeated
        raise CorruptError(f"{what} cannot be read: it is cut off, changed, or not a private key") from None
    key_type(key)
    assert isinstance(key, PrivateKey)
    return key


def signature_hash(key: PrivateKey | PublicKey) -> hashes.SHA256 | hashes.SHA384 | None:
    """Return the hash for signatures with a key; None for Ed25519, which has its own (RFC 8410)."""
    kind = key_type(key)
    if kind is KeyType.ED25519:
        return None
    return hashes.SHA384() if kind is KeyType.P384 else hashes.SHA256()


def sign(key: PrivateKey, data: bytes) -> bytes:
    """Sign `data`: ECDSA, RSASSA-PKCS1-v1_5 or Ed25519, with `signature_hash`."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    algorithm = signature_hash(key)
    assert algorithm is not None
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), algorithm)
    return key.sign(data, ec.ECDSA(algorithm))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off the handlers of SIGINT and SIGTERM to the end of the block.

    While `cryptography` verifies a path, a CRL or a request, it takes any exception for a wrong signature, so the
    KeyboardInterrupt of a handler as well.
    """
    if threading.current_thread() is not threading.main_thread():  # handlers run in that one alone
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in handlers.items() if callable(handler)}
    came: list[signal.Signals] = []
    try:
        for number in before:
            signal.signal(number, lambda number, _frame: came.append(signal.Signals(number)))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:  # not raised again: an event loop's handler would count it twice
            before[number](number, None)


def verify(key: PublicKey, signature: bytes, data: bytes, what: str = "the signature") -> None:
    """Raise NotTrustedError unless the key's other half made `signature` over `data`."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            return key.verify(signature, data)
        algorithm = signature_hash(key)
        assert algorithm is not None
        if isinstance(key, rsa.RSAPublicKey):
            return key.verify(signature, data, padding.PKCS1v15(), algorithm)
        return key.verify(signature, data, ec.ECDSA(algorithm))
    except InvalidSignature:
        raise NotTrustedError(f"{what} does not verify") from None
