"""The official client against a Cloud KMS of our own: signatures, checksums on both ways, refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from daskpki.errors import (
    AccessDeniedError,
    CorruptError,
    DaskpkiError,
    DisabledError,
    NotFoundError,
    UnavailableError,
    UsageError,
)
from daskpki.kms import VARIABLE, KmsClient, KmsPrivateKey, parse_kms_uri
from daskpki.pki import keys
from tests.emulator.kms import KmsServer
from tests.emulator.status import ApiError, error_info


@pytest.mark.parametrize(("algorithm", "kind"), [("EC_SIGN_P256_SHA256", "p256"), ("EC_SIGN_P384_SHA384", "p384")])
def test_what_it_signs_verifies(kms: KmsServer, client: KmsClient, algorithm: str, kind: str) -> None:
    key = KmsPrivateKey(client, kms.create("ca", algorithm).name)
    assert keys.key_type(key) == kind
    signature = keys.sign(key, b"data")
    keys.verify(key.public_key(), signature, b"data")
    assert copy.deepcopy(copy.copy(key)) is key


def test_the_private_half_is_not_to_be_had(kms: KmsServer, client: KmsClient) -> None:
    key = KmsPrivateKey(client, kms.create("ca").name)
    with pytest.raises(UsageError, match="never leaves Cloud KMS"):
        keys.serialize_key(key)
    with pytest.raises(UsageError, match="never leaves Cloud KMS"):
        key.private_numbers()
    with pytest.raises(UsageError, match="cannot agree on keys"):
        key.exchange(ec.ECDH(), key.public_key())
    with pytest.raises(UsageError, match="sha256 digests only"):
        key.sign(b"data", ec.ECDSA(hashes.SHA384()))


def flip_signature(answer: Any) -> None:
    if hasattr(answer, "signature"):
        answer.signature = bytes([answer.signature[0] ^ 1]) + answer.signature[1:]


def unverified_digest(answer: Any) -> None:
    if hasattr(answer, "signature"):
        answer.verified_digest_crc32c = False


def other_version(answer: Any) -> None:
    if hasattr(answer, "signature"):
        answer.name = answer.name[:-1] + "9"


@pytest.mark.parametrize("damage", [flip_signature, unverified_digest, other_version])
def test_a_damaged_answer_is_no_signature(kms: KmsServer, client: KmsClient, damage: Callable[[Any], None]) -> None:
    key = KmsPrivateKey(client, kms.create("ca").name)
    assert keys.sign(key, b"data")
    kms.damage = damage
    with pytest.raises(CorruptError, match="damaged on the way"):
        keys.sign(key, b"data")


def test_a_damaged_public_key_is_noticed(kms: KmsServer, client: KmsClient) -> None:
    name = kms.create("ca").name

    def swap(answer: Any) -> None:
        other = ec.generate_private_key(ec.SECP256R1()).public_key()
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        answer.pem = other.public_bytes(serialization.Encoding.PEM, form).decode()

    kms.damage = swap
    with pytest.raises(CorruptError, match="public key"):
        KmsPrivateKey(client, name)


def test_what_kms_refuses_is_said_with_the_way_out(kms: KmsServer, client: KmsClient) -> None:
    version = kms.create("ca")
    key = KmsPrivateKey(client, version.name)
    version.state = "DISABLED"
    with pytest.raises(DisabledError, match="current state is: DISABLED"):
        keys.sign(key, b"data")
    kms.deny = True
    with pytest.raises(AccessDeniedError, match="useToSign") as denied:
        keys.sign(key, b"data")
    assert "roles/cloudkms.signerVerifier" in str(denied.value.hint)
    kms.deny = False
    with pytest.raises(NotFoundError):
        KmsPrivateKey(client, version.name[:-1] + "7")
    with pytest.raises(UsageError, match="RSA_SIGN_PKCS1_3072_SHA256"):
        KmsPrivateKey(client, kms.create("rsa", "RSA_SIGN_PKCS1_3072_SHA256").name)
    kms.failures = ["INVALID_ARGUMENT"]
    with pytest.raises(DaskpkiError):
        KmsPrivateKey(client, version.name)


def test_a_short_outage_is_waited_for(kms: KmsServer, client: KmsClient) -> None:
    kms.failures = ["UNAVAILABLE", "UNAVAILABLE"]
    KmsPrivateKey(client, kms.create("ca").name)
    assert not kms.failures


def test_a_busy_kms_is_temporary(kms: KmsServer, client: KmsClient) -> None:
    kms.failures = ["RESOURCE_EXHAUSTED"]
    with pytest.raises(UnavailableError) as refusal:
        KmsPrivateKey(client, kms.create("ca").name)
    assert refusal.value.exit_code == 75


def test_an_api_that_is_off_is_named_with_its_project(kms: KmsServer, client: KmsClient) -> None:
    name = kms.create("ca").name
    for metadata in ({"consumer": "projects/7"}, {"consumer": "projects/7", "service": "cloudkms.googleapis.com"}):
        kms.failures = [ApiError("PERMISSION_DENIED", "off", error_info("SERVICE_DISABLED", **metadata))]
        with pytest.raises(AccessDeniedError, match=r"API cloudkms\.googleapis\.com is off in project 7") as denied:
            client.public_key(name)
        assert denied.value.hint == "gcloud services enable cloudkms.googleapis.com --project 7"


GOOD = "gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"


@pytest.mark.parametrize(
    "uri",
    [
        "gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/k",
        GOOD + "/",
        GOOD + "\n",
        GOOD.replace("gcpkms", "awskms"),
        GOOD.replace("/1", "/latest"),
        "",
    ],
)
def test_a_uri_names_a_key_version(uri: str) -> None:
    assert parse_kms_uri(GOOD) == GOOD.removeprefix("gcpkms://")
    with pytest.raises(UsageError, match="does not name a key version"):
        parse_kms_uri(uri)


def test_an_unencrypted_endpoint_is_on_this_machine() -> None:
    with pytest.raises(UsageError, match=f"{VARIABLE}='grpc://kms.example:1' is unencrypted"):
        KmsClient({VARIABLE: "grpc://kms.example:1"})
