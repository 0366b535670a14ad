"""Certificate requests: what is taken from one, and the proof of possession."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from daskpki.errors import DaskpkiError, NotTrustedError, UsageError
from daskpki.identity import Identity, Role
from daskpki.pki.csr import create_request, parse_request, request_pem
from daskpki.pki.keys import KeyType, generate_key

ALICE = Identity("c.daskpki.internal", Role.CLIENT, "alice")
KEY = ec.generate_private_key(ec.SECP256R1())
DER = create_request(KEY, "c", ALICE)


@pytest.mark.parametrize("kind", KeyType)
def test_a_request_is_read_back_and_openssl_accepts_it(kind: KeyType, tmp_path: Path) -> None:
    key = generate_key(kind)
    file = tmp_path / "alice.csr"
    file.write_text(request_pem(create_request(key, "c", ALICE)))
    request = parse_request(file.read_bytes())
    assert request.public_key == key.public_key()
    assert (request.cluster, request.slug) == ("c", (Role.CLIENT, "alice"))
    command = ["openssl", "req", "-in", str(file), "-noout", "-verify", "-subject"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "verify OK" in shown.stdout + shown.stderr


def test_openssls_own_request_is_read(tmp_path: Path) -> None:
    file = tmp_path / "x.csr"
    command = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", str(tmp_path / "key"), "-out", str(file), "-subj", "/CN=Somebody"]
    subprocess.run(command, check=True, capture_output=True)
    assert parse_request(file.read_bytes()).slug is None


def test_a_request_for_somebody_elses_key_is_refused() -> None:
    """As by a requester who copies the public key out of another's certificate."""
    own = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    theirs = KEY.public_key().public_bytes(serialization.Encoding.DER, form)
    forged = create_request(own, "c", ALICE).replace(
        own.public_key().public_bytes(serialization.Encoding.DER, form), theirs
    )
    with pytest.raises(NotTrustedError, match="not signed by its own key"):
        parse_request(forged)
    parse_request(DER)


def test_weak_keys_are_refused() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(weak, hashes.SHA256())
    with pytest.raises(UsageError, match="2048 bits"):
        parse_request(request.public_bytes(serialization.Encoding.PEM))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"garbage", "cannot be read"),
        (DER[:-1], "cannot be read"),
        ((request_pem(DER) * 2).encode(), "one CERTIFICATE REQUEST is expected"),
        (request_pem(DER).replace("CERTIFICATE REQUEST", "CERTIFICATE").encode(), "one CERTIFICATE REQUEST"),
        (b"x" * (1 << 17), "more than"),
    ],
    ids=["empty", "garbage", "torn", "two", "another kind", "oversized"],
)
def test_what_is_no_request_is_told(data: bytes, words: str) -> None:
    with pytest.raises(DaskpkiError, match=words):
        parse_request(data)


@given(st.integers(0, len(DER) - 1), st.integers(1, 255))
def test_one_flipped_byte_never_passes_for_the_same_request(at: int, flip: int) -> None:
    changed = DER[:at] + bytes([DER[at] ^ flip]) + DER[at + 1 :]
    with contextlib.suppress(DaskpkiError):
        pytest.fail(f"accepted: {parse_request(changed)}")
