"""The public key of a certificate and what goes with it, without `cryptography.x509`, whose import takes 30 to 50 ms.

A certificate is walked only as far as its seventh field. Keys on P-256 and P-384, the usual ones, are read from there;
everything else is left to whoever has the time for the whole library.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_FIELDS_BEFORE: Final = 6  # version, serial, signature, issuer, validity, subject (RFC 5280, 4.1)


class _Kind(NamedTuple):
    """A kind of key, and how its DER is written around the numbers.

    `public` is SubjectPublicKeyInfo (RFC 5480, 2) up to the point, which is not compressed; `private` is PKCS#8 around
    an ECPrivateKey (RFC 5958, RFC 5915) up to the secret of that many `octets`, `between` what stands from there to the
    point.
    """

    curve: ec.EllipticCurve
    algorithm: hashes.HashAlgorithm
    public: bytes
    private: bytes
    octets: int
    between: bytes


_KINDS: Final = (
    _Kind(
        ec.SECP256R1(),
        hashes.SHA256(),
        public=bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200"),
        private=bytes.fromhex("308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420"),
        octets=32,
        between=bytes.fromhex("a144034200"),
    ),
    _Kind(
        ec.SECP384R1(),
        hashes.SHA384(),
        public=bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200"),
        private=bytes.fromhex("3081b6020100301006072a8648ce3d020106052b8104002204819e30819b0201010430"),
        octets=48,
        between=bytes.fromhex("a164036200"),
    ),
)


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
    kind, point = _parse_key(subject_public_key_info(certificate))
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(kind.curve, point).verify(signature, data, _Ecdsa(kind.algorithm))
    except InvalidSignature:
        return False
    return True


def is_plain_key(key: bytes, certificate: bytes) -> bool:
    """Whether `key` (PKCS#8, DER) is written as usual for the key of `certificate` (DER); ValueError as `verifies`.

    The secret number is not judged here. OpenSSL loads keys that are damaged elsewhere, and `cryptography` does not.
    """
    kind, point = _parse_key(subject_public_key_info(certificate))
    return key.startswith(kind.private) and key[len(kind.private) + kind.octets :] == kind.between + point


def _parse_key(info: bytes) -> tuple[_Kind, bytes]:
    for kind in _KINDS:
        if info.startswith(kind.public):
            return kind, info[len(kind.public) :]
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
