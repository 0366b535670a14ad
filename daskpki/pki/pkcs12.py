"""PKCS#12 for browsers and Java: a key, its leaf and chain, encrypted as strongly as current readers allow.

Readers require the format's MAC, which the library computes with 2,048 rounds, whatever the cipher's number is. So
guessing the password is cheap: only a strong one protects the file, and a short one is refused. AES-256-CBC with PBKDF2
and HMAC-SHA-256 is read by OpenSSL from 1.1, Java from 8u301, Windows from 10 1709, macOS from 15, Firefox and
Chromium; older readers need RC2 or 3DES, which is not offered.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import PrivateFormat, pkcs12

from daskpki.confidential import Confidential
from daskpki.errors import UsageError
from daskpki.pki.certificates import load_certificate
from daskpki.pki.credential import Credential
from daskpki.pki.keys import parse_key

MIN_PASSWORD: Final = 12


def encode_pkcs12(credential: Credential, anchors: tuple[bytes, ...], password: Confidential) -> Confidential:
    """Encode a credential and the trust anchors (DER) as PKCS#12; UsageError without a key or for a short password."""
    if credential.key is None:
        raise UsageError(f"the credential of {credential.identity.slug} has no key, so there is nothing to export")
    if len(password) < MIN_PASSWORD:
        raise UsageError(f"a PKCS#12 password needs at least {MIN_PASSWORD} bytes: the file can be guessed at offline")
    encryption = (
        PrivateFormat.PKCS12.encryption_builder()
        .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA256())
        .build(password.reveal())
    )
    return Confidential(
        pkcs12.serialize_key_and_certificates(
            credential.identity.slug.encode(),
            parse_key(credential.key),
            load_certificate(credential.leaf),
            [load_certificate(der) for der in (*credential.chain, *anchors)],
            encryption,
        )
    )
