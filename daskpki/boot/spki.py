"""The public key of a certificate and what goes with it, without `cryptography.x509`, whose import takes 30 to 50 ms.

A certificate is walked only as far as its seventh field. Keys on P-256 and P-384, the usual ones, are read from there;
everything else is left to whoever has the time for the whole library.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_FIELDS_BEFORE: Final = 6  # version, serial, signature, issuer, validity, subject (RFC 5280, 4.1)

# SubjectPublicKeyInfo of an uncompressed point (RFC 5480, 2) up to the point itself, in DER.
_P256: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
_P384: Final = bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200")

# PKCS#8 around an ECPrivateKey (RFC 5958, RFC 5915): before the secret, its octets, from there to the point.
_PRIVATE: Final = {
    _P256: ("308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420", 32, "a144034200"),
    _P384: ("3081b6020100301006072a8648ce3d020106052b8104002204819e30819b0201010430", 48, "a164036200"),
}


class _Ecdsa(ec.ECDSA):
    """ECDSA for verifying, past a constructor that loads all of the backend (7 ms) for a question about signing."""

    def __init__(self, algorithm: hashes.HashAlgorithm) -> None:
        self._hash = algorithm

    @property
    def algorithm(self) -> hashes.HashAlgorithm:
        """The hash that is signed."""
        return self._hash


def verifies(certificate: bytes, signature: bytes, data: bytes) -> bool:
    """Whether the key of `certificate` (DER) signed `data`, by ECDSA; ValueError for another kind of key or no DER."""
    curve, algorithm, point = _parse_key(subject_public_key_info(certificate))
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(curve, point).verify(signature, data, _Ecdsa(algorithm))
    except InvalidSignature:
        return False
    return True


def is_plain_key(key: bytes, certificate: bytes) -> bool:
    """Whether `key` (PKCS#8, DER) is written as usual for the public key of `certificate` (DER); ValueError for no DER.

    The secret number is not judged here. OpenSSL loads keys that are damaged elsewhere, and `cryptography` does not.
    """
    info = subject_public_key_info(certificate)
    for kind, (before, octets, between) in _PRIVATE.items():
        if info.startswith(kind):
            head, tail = bytes.fromhex(before), bytes.fromhex(between) + info[len(kind) :]
            return key.startswith(head) and key[len(head) + octets :] == tail
    return False


def _parse_key(info: bytes) -> tuple[ec.EllipticCurve, hashes.HashAlgorithm, bytes]:
    if info.startswith(_P256):
        return ec.SECP256R1(), hashes.SHA256(), info[len(_P256) :]
    if info.startswith(_P384):
        return ec.SECP384R1(), hashes.SHA384(), info[len(_P384) :]
    raise ValueError("not a key on P-256 or P-384")


def subject_public_key_info(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo (DER) of a certificate (DER) of version 3; ValueError when there is none."""
    _, start, _ = _element(certificate, 0, _SEQUENCE)
    _, at, end = _element(certificate, start, _SEQUENCE)
    for field in range(_FIELDS_BEFORE):
        _, _, at = _element(certificate, at, _VERSION if field == 0 else None)
    _, _, after = _element(certificate, at, _SEQUENCE)
    if after > end:
        raise ValueError("a field is longer than what holds it")
    return certificate[at:after]


def _element(data: bytes, at: int, tag: int | None) -> tuple[int, int, int]:
    """Tag, start and end of the contents of the DER element at `at` (X.690, 8.1); ValueError."""
    if len(data) < at + 2 or (tag is not None and data[at] != tag):
        raise ValueError("not the DER that was expected")
    length, start = data[at + 1], at + 2
    if length & 0x80:
        octets = length & 0x7F
        if not 1 <= octets <= 2:  # noqa: PLR2004 - 64 KiB are more than any certificate of ours
            raise ValueError("a length that no certificate of ours has")
        length, start = int.from_bytes(data[start : start + octets]), start + octets
    if start + length > len(data):
        raise ValueError("cut off")
    return data[at], start, start + length
