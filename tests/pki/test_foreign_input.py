"""Input that is cut off, changed, huge or of another kind raises our own errors, always."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa, x25519
from hypothesis import example, given
from hypothesis import strategies as st

from daskpki.confidential import Confidential
from daskpki.errors import CorruptError, DaskpkiError, NotTrustedError, UsageError
from daskpki.pki import pem
from daskpki.pki.certificates import der, load_certificate
from daskpki.pki.credential import (
    Credential,
    certificate_pem,
    encode_credential,
    encode_pkcs12,
    key_pem,
    parse_credential,
)
from daskpki.pki.crl import Revocation, crl_der, crl_pem, sign_crl, verify_crl
from daskpki.pki.keys import KeyType, PrivateKey, parse_key, serialize_key, sign, verify
from daskpki.pki.trust_document import CrlPart, parse_trust
from daskpki.pki.verify import key_fits, verify_leaf
from tests.support.pki_material import NOW, TD, World, authority, identity, key, labels, leaf, parse_crl, worlds


def credential(*, tiers: int = 1, kind: KeyType = KeyType.P256, with_key: bool = True) -> Credential:
    issuer = authority(tiers=tiers)
    certificate = leaf(issuer, kind=kind)
    own = serialize_key(key(kind)) if with_key else None
    return Credential("default", identity(), own, der(certificate), tuple(map(der, issuer.chain)))


ISSUER = authority()
ROOT = der(ISSUER.root)
LEAF = der(leaf(ISSUER))
CRL = sign_crl(ISSUER, [Revocation(5, 0, "superseded")], number=1, now=NOW)
PAYLOAD = encode_credential(credential(tiers=2), 1).reveal()

PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "certificate": (load_certificate, LEAF),
    "certificates": (pem.parse_certificates, pem.encode_pem(LEAF, pem.CERTIFICATE).encode()),
    "key DER": (lambda data: parse_key(Confidential(data)), serialize_key(key()).reveal()),
    "key PEM": (lambda data: parse_key(Confidential(data)), key_pem(credential()).reveal()),
    "credential": (lambda data: parse_credential(Confidential(data)), PAYLOAD),
    "trust": (lambda data: parse_trust(Confidential(data)), b'{"format":1,"payload":"{}","signatures":[]}'),
    "crl": (parse_crl, CRL),
    "crl pem": (parse_crl, crl_pem(CRL).encode()),
    "crl in the trust document": (lambda data: crl_der(CrlPart(1, 1, 1, 1, data)), zlib.compress(CRL)),
}


@pytest.mark.parametrize("name", PARSERS)
def test_no_bytes_whatever_raise_anything_but_our_errors(name: str) -> None:
    parse, valid = PARSERS[name]

    @given(st.binary(max_size=300))
    @example(b"")
    @example(b"-----BEGIN CERTIFICATE-----")
    @example(b"-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----")
    @example(b"[" * 100_000)
    @example(b'{"format":1e999}')
    def from_nothing(data: bytes) -> None:
        attempt(parse, data)

    @given(st.data())
    def from_valid(data: st.DataObject) -> None:
        attempt(parse, mutated(data, valid))

    from_nothing()
    from_valid()


def mutated(data: st.DataObject, valid: bytes) -> bytes:
    """`valid`, cut off or with some bytes replaced."""
    changed = bytearray(valid[: data.draw(st.integers(0, len(valid)), label="length")])
    for position in data.draw(st.lists(st.integers(0, len(valid) - 1), max_size=3), label="positions"):
        if position < len(changed):
            changed[position] = data.draw(st.integers(0, 255))
    return bytes(changed)


def attempt(parse: Callable[[bytes], object], data: bytes) -> None:
    try:
        parse(data)
    except DaskpkiError as error:
        assert str(error)


VERIFIERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "leaf": (lambda data: verify_leaf(data, [], [ROOT], now=NOW, trust_domain=TD), LEAF),
    "root": (lambda data: verify_leaf(LEAF, [], [data], now=NOW, trust_domain=TD), ROOT),
    "chain": (lambda data: verify_leaf(LEAF, [data], [ROOT], now=NOW, trust_domain=TD), LEAF),
    "crl": (lambda data: verify_crl(data, load_certificate(ROOT)), CRL),
    "crl's issuer": (lambda data: verify_crl(CRL, load_certificate(data)), ROOT),
}


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("name", VERIFIERS)
def test_no_changed_byte_raises_anything_but_our_errors(name: str) -> None:
    """Every byte in turn, by its lowest bit and by all of them: refused, or without effect."""
    verify, valid = VERIFIERS[name]
    verify(valid)
    for position in range(len(valid)):
        for flip in (0x01, 0xFF):
            changed = bytearray(valid)
            changed[position] ^= flip
            attempt(verify, bytes(changed))


@pytest.mark.parametrize("cut", [1, 100, 300])
def test_truncated_input_is_corrupt(cut: int) -> None:
    for parse, valid in (
        (load_certificate, LEAF),
        (parse_crl, CRL),
        (lambda data: parse_credential(Confidential(data)), PAYLOAD),
        (pem.parse_certificates, pem.encode_pem(LEAF, pem.CERTIFICATE).strip().encode()),
    ):
        parse(valid)
        with pytest.raises(CorruptError):
            parse(valid[:-cut])


def test_bytes_behind_a_certificate_are_refused() -> None:
    with pytest.raises(CorruptError):
        load_certificate(LEAF + b"\0")


@pytest.mark.parametrize("name", ["certificate", "certificates", "key DER"])
def test_oversized_input_is_refused_by_its_size(name: str) -> None:
    parse, _ = PARSERS[name]
    with pytest.raises(UsageError, match="65537 bytes"):
        parse(b"\x30" * 65_537)


def test_foreign_pem_is_named() -> None:
    mixed = pem.encode_pem(LEAF, pem.CERTIFICATE).encode() + key_pem(credential()).reveal()
    with pytest.raises(UsageError, match="PRIVATE KEY"):
        pem.parse_certificates(mixed)
    assert pem.parse_certificates(pem.encode_pem(LEAF, pem.CERTIFICATE).encode() * 2) == [LEAF, LEAF]


def foreign_keys() -> list[tuple[str, PrivateKey]]:
    return [
        ("RSA key of 2048 bits", rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        ("curve secp521r1", ec.generate_private_key(ec.SECP521R1())),
        ("X25519", x25519.X25519PrivateKey.generate()),  # type: ignore[list-item]  # what is refused here
        ("DSA", dsa.generate_private_key(2048)),  # type: ignore[list-item]  # likewise
    ]


def test_keys_of_other_kinds_are_named() -> None:
    for words, foreign in foreign_keys():
        with pytest.raises(UsageError, match=words):
            parse_key(serialize_key(foreign))


def test_an_encrypted_key_says_so() -> None:
    sealed = key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )
    with pytest.raises(UsageError, match="is encrypted"):
        parse_key(Confidential(sealed))


@pytest.mark.parametrize("kind", KeyType)
def test_keys_round_trip_and_sign(kind: KeyType) -> None:
    own = parse_key(serialize_key(key(kind)))
    assert serialize_key(own) == serialize_key(key(kind))
    signature = sign(own, b"text")
    verify(own.public_key(), signature, b"text")
    for other, text in ((own, b"texts"), (key(kind, "other"), b"text")):
        with pytest.raises(NotTrustedError):
            verify(other.public_key(), signature, text)


def test_a_key_and_its_certificate() -> None:
    assert key_fits(serialize_key(key()), LEAF)
    assert not key_fits(serialize_key(key(which="other")), LEAF)


@pytest.mark.parametrize("tiers", [1, 2])
@pytest.mark.parametrize("with_key", [True, False])
def test_credentials_round_trip(tiers: int, with_key: bool) -> None:  # noqa: FBT001
    original = credential(tiers=tiers, with_key=with_key)
    assert parse_credential(encode_credential(original, 1)) == original


@given(worlds(), labels, st.integers(1, 10**6), st.lists(st.binary(), min_size=2, max_size=10))
def test_any_credential_round_trips(world: World, cluster: str, generation: int, raw: list[bytes]) -> None:
    original = Credential(cluster, world.request.identity, Confidential(raw[0]), raw[1], tuple(raw[2:]))
    encoded = encode_credential(original, generation)
    assert parse_credential(encoded) == original
    assert json.loads(encoded.reveal())["generation"] == generation


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2; this daskpki reads up to 1"),
        ({"format": True}, "'format' is not an integer"),
        ({"cluster": "no_label"}, "cluster 'no_label' is not a DNS label"),
        ({"id": "spiffe://td.example/admin/x"}, "'admin' is not a role"),
        ({"id": None}, "'id' is not a text"),
        ({"generation": 0}, "'generation' is not an integer from 1"),
        ({"key": "*"}, "key is not base64"),
        ({"leaf": None}, "leaf is not base64"),
        ({"chain": "x"}, "'chain' is not a list"),
        ({"chain": ["AA=="] * 9}, "a chain of 9 certificates"),
    ],
)
def test_a_changed_credential_names_the_field(change: dict[str, object], message: str) -> None:
    document = json.loads(PAYLOAD)
    parse_credential(Confidential(json.dumps(document)))
    with pytest.raises(NotTrustedError, match=message):
        parse_credential(Confidential(json.dumps(document | change)))


def test_a_later_minor_version_may_add_fields() -> None:
    document = json.loads(PAYLOAD) | {"comment": "new"}
    assert parse_credential(Confidential(json.dumps(document))) == parse_credential(Confidential(PAYLOAD))


def test_an_oversized_credential_is_corrupt() -> None:
    with pytest.raises(CorruptError, match="65537 bytes"):
        parse_credential(Confidential(b" " * 65_537))


def test_a_credential_shows_no_key() -> None:
    shown = credential()
    assert shown.key is not None
    assert base64.b64encode(shown.key.reveal())[:40].decode() not in repr(shown)
    assert "confidential" in repr(shown)


def test_pem_is_what_openssl_reads(tmp_path: Path) -> None:
    shown = credential(tiers=2)
    (tmp_path / "cert.pem").write_text(certificate_pem(shown))
    (tmp_path / "key.pem").write_bytes(key_pem(shown).reveal())
    assert pem.parse_certificates(certificate_pem(shown).encode()) == [shown.leaf, *shown.chain]
    command = ["openssl", "x509", "-in", str(tmp_path / "cert.pem"), "-noout", "-pubkey"]
    of_leaf = subprocess.run(command, capture_output=True, check=True).stdout
    command = ["openssl", "pkey", "-in", str(tmp_path / "key.pem"), "-pubout"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == of_leaf


def test_a_key_that_never_travelled_cannot_be_written() -> None:
    with pytest.raises(UsageError, match="has no key"):
        key_pem(credential(with_key=False))
    with pytest.raises(UsageError, match="has no key"):
        encode_pkcs12(credential(with_key=False), (), Confidential("correct horse"))


@pytest.mark.parametrize("kind", KeyType)
def test_pkcs12_is_what_openssl_reads(kind: KeyType, tmp_path: Path) -> None:
    file = tmp_path / "alice.p12"
    shown, password = credential(tiers=2, kind=kind), "correct horse"
    file.write_bytes(encode_pkcs12(shown, (der(authority().root),), Confidential(password)).reveal())
    command = ["openssl", "pkcs12", "-in", str(file), "-info", "-nodes", "-passin", f"pass:{password}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "AES-256-CBC" in done.stderr
    assert done.stdout.count("BEGIN CERTIFICATE") == 3
    assert "friendlyName: worker/w-1" in done.stdout
    wrong = subprocess.run([*command[:-1], "pass:wrong horse"], capture_output=True, text=True, check=False)
    assert wrong.returncode != 0


def test_a_short_pkcs12_password_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 12"):
        encode_pkcs12(credential(), (), Confidential("short"))


def test_the_boot_paths_modules_need_the_standard_library_only() -> None:
    program = "import sys, daskpki.pki.credential, daskpki.pki.trust_document; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "cryptography" not in done.stdout.split()
    assert "daskpki.pki.credential" in done.stdout.split()
