"""A credential: key, leaf and chain of one identity, as the payload of its secret (JSON, format 1), PEM and PKCS#12.

    {"format": 1, "cluster": "...", "id": "spiffe://...", "generation": 1, "key": base64 or null, "leaf": base64,
     "chain": [base64, ...]}

`generation` is that of the CA. It is for people, and no decision depends on it.

Standard library only, but for PKCS#12, since a VM reads one at every boot. `daskpki.pki.verify` verifies the
certificates.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from daskpki.confidential import Confidential
from daskpki.errors import CorruptError, UsageError
from daskpki.identity import Identity, Role, parse_identity, parse_label
from daskpki.pki import json_fields, pem

FORMAT: Final = 1
_WHAT: Final = "the credential"
_MAX_CHAIN: Final = 8
MIN_PASSWORD: Final = 12


class Credential(NamedTuple):
    """A leaf with its chain and key. Certificates are DER; the key is PKCS#8 DER, or None if its owner kept it.

    `chain` leads from the issuer up to below the trust anchor.
    """

    cluster: str
    identity: Identity
    key: Confidential | None
    leaf: bytes
    chain: tuple[bytes, ...]


def encode_credential(credential: Credential, generation: int) -> Confidential:
    """Encode the payload to store, with the generation of the CA that issued it."""
    key = credential.key
    return json_fields.compact_json(
        {
            "format": FORMAT,
            "cluster": credential.cluster,
            "id": credential.identity.uri,
            "generation": generation,
            "key": None if key is None else json_fields.base64_text(key.reveal()),
            "leaf": json_fields.base64_text(credential.leaf),
            "chain": [json_fields.base64_text(certificate) for certificate in credential.chain],
        }
    )


def parse_credential(data: Confidential) -> Credential:
    """Parse a payload; CorruptError for other bytes, NotTrustedError for a newer format."""
    document = json_fields.parse_json(data.reveal(), _WHAT)
    json_fields.check_format(document, _WHAT, reader=FORMAT)
    json_fields.integer(document, "generation", _WHAT, least=1)
    chain = json_fields.array(document, "chain", _WHAT)
    if len(chain) > _MAX_CHAIN:
        raise CorruptError(f"{_WHAT}: a chain of {len(chain)} certificates, more than {_MAX_CHAIN}")
    key = document.get("key")
    try:
        return Credential(
            cluster=parse_label(json_fields.string(document, "cluster", _WHAT), "cluster"),
            identity=parse_identity(json_fields.string(document, "id", _WHAT)),
            key=None if key is None else Confidential(json_fields.octets(key, f"{_WHAT}'s key")),
            leaf=json_fields.octets(document.get("leaf"), f"{_WHAT}'s leaf"),
            chain=tuple(json_fields.octets(entry, f"{_WHAT}'s chain") for entry in chain),
        )
    except UsageError as error:  # a malformed name: nobody typed it here
        raise CorruptError(f"{_WHAT}: {error}") from None


def parse_own_credential(data: Confidential, cluster: str, role: Role, name: str) -> Credential:
    """Parse the payload of a credential's secret; CorruptError if it is of another identity."""
    credential = parse_credential(data)
    if (credential.cluster, credential.identity.role, credential.identity.name) != (cluster, role, name):
        raise CorruptError(f"the secret of {role.value}/{name} of cluster {cluster} contains {credential.identity.uri}")
    return credential


def certificate_pem(credential: Credential) -> str:
    """Encode the leaf and its chain as PEM, leaf first, as TLS sends them (RFC 8446, 4.4.2)."""
    return "".join(pem.encode_pem(der, pem.CERTIFICATE) for der in (credential.leaf, *credential.chain))


def key_pem(credential: Credential) -> Confidential:
    """Encode the private key as unencrypted PKCS#8 PEM; UsageError if its owner kept it."""
    if credential.key is None:
        raise UsageError(
            f"the credential of {credential.identity.slug} has no key: it stayed where the request was made"
        )
    return Confidential(pem.encode_pem(credential.key.reveal(), pem.PRIVATE_KEY))


def encode_pkcs12(credential: Credential, anchors: tuple[bytes, ...], password: Confidential) -> Confidential:
    """Encode a credential and the trust anchors (DER) as PKCS#12; UsageError without a key or for a short password.

    Readers require the format's MAC, for which the library uses 2,048 rounds, even if the cipher has more. So guessing
    the password is cheap: only a strong one protects the file, and a short one is refused. AES-256-CBC with
    PBKDF2 and HMAC-SHA-256 is read by OpenSSL from 1.1, Java from 8u301, Windows from 10 1709, macOS from 15, Firefox
    and Chromium; older readers need RC2 or 3DES, which is not offered.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import PrivateFormat, pkcs12

    from daskpki.pki.certificates import load_certificate
    from daskpki.pki.keys import parse_key

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
