"""A CA whose key never leaves Cloud KMS: its certificates, CRLs and trust documents, judged by others."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from daskpki.pki.keys import serialize_key
from daskpki.pki.pem import parse_certificates, parse_pem
from tests.emulator.kms import KmsServer
from tests.support.judges import lint_certificate, lint_crl, lint_pair, openssl_verify
from tests.support.key_search import Canary
from tests.support.running import Run, runner


@pytest.fixture
def local(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys, "--store", f"local:{tmp_path / 'store'}", "--key-file", str(tmp_path / "store.key"))


@pytest.mark.parametrize(
    ("tiers", "algorithm"), [(1, "EC_SIGN_P256_SHA256"), (1, "EC_SIGN_P384_SHA384"), (2, "EC_SIGN_P256_SHA256")]
)
def test_all_that_it_signs_passes_the_judges(
    kms: KmsServer, local: Run, tmp_path: Path, tiers: int, algorithm: str
) -> None:
    version = kms.create("ca", algorithm)
    (tmp_path / "passphrase").write_text("a long enough passphrase")
    (tmp_path / "passphrase").chmod(0o600)
    offline = ["--offline-root", str(tmp_path / "root.key"), "--root-passphrase-file", str(tmp_path / "passphrase")]
    common = ["--ca-key", f"gcpkms://{version.name}", *(offline if tiers > 1 else [])]
    made = local("init-ca", *common, "--with", "scheduler,client/alice", "--json").json()
    assert made["caKey"] == f"gcpkms://{version.name}"
    local("revoke", "client/alice")
    local("export", "scheduler", "--out", str(tmp_path / "out"))
    local("verify", str(tmp_path / "out" / "cert.pem"))
    leaf, *chain = parse_certificates((tmp_path / "out" / "cert.pem").read_bytes())
    (root,) = parse_certificates((tmp_path / "out" / "ca.pem").read_bytes())
    local("crl", "--out", str(tmp_path / "crl.pem"))
    (_, crl), *others = parse_pem((tmp_path / "crl.pem").read_bytes(), "the CRLs")
    assert len(others) == tiers - 1, "that of the offline root"
    assert len(chain) == tiers - 1
    path = [leaf, *chain, root]
    assert [lint_certificate(entry) for entry in path] == [[]] * len(path)
    assert [lint_pair(issuer, subject) for subject, issuer in pairwise(path)] == [[]] * tiers
    assert lint_crl(crl) == []
    assert openssl_verify(leaf, chain, root, purpose="sslserver", crl=crl, at=datetime.now(UTC)) == ""
    assert version.signatures >= 6  # leaves, CRLs, trust documents, and a CA of one tier


def test_the_key_is_nowhere_but_there(kms: KmsServer, local: Run, tmp_path: Path) -> None:
    version = kms.create("ca")
    local("init-ca", "--ca-key", f"gcpkms://{version.name}", "--with", "worker")
    canary = Canary({"ca": serialize_key(version.key)})
    assert not canary.in_files([tmp_path])
    (tmp_path / "planted").write_bytes(serialize_key(version.key).reveal())
    assert canary.in_files([tmp_path])


def test_the_key_outlives_the_cluster_and_is_named(kms: KmsServer, local: Run) -> None:
    version = kms.create("ca")
    local("init-ca", "--ca-key", f"gcpkms://{version.name}", "--with", "worker")
    done = local("delete-cluster", "--confirm", "default", "--wait", "0")
    assert f"not deleted: the CA's key gcpkms://{version.name}" in done.out
    assert {entry["state"] for entry in local("list", "--json").json()} == {"revoked"}


def test_a_key_that_is_of_no_use_changes_nothing(kms: KmsServer, local: Run) -> None:
    version = kms.create("ca")
    for uri, code, words in (
        (f"gcpkms://{kms.create('rsa', 'RSA_SIGN_PKCS1_3072_SHA256').name}", 2, "EC_SIGN_P256_SHA256"),
        (f"gcpkms://{version.name[:-1]}8", 4, "no key version"),
        ("gcpkms://ca", 2, "cryptoKeyVersions"),
    ):
        assert words in local("init-ca", "--ca-key", uri, code=code).err
    kms.deny = True
    assert "signerVerifier" in local("init-ca", "--ca-key", f"gcpkms://{version.name}", code=5).err
    kms.deny = False
    made = local("init-ca", "--ca-key", f"gcpkms://{version.name}", "--json").json()
    assert made["generation"] == 1


def test_rolling_over_to_another_version_and_back_to_the_store(kms: KmsServer, local: Run) -> None:
    first, second = kms.create("ca"), kms.create("ca")
    local("init-ca", "--ca-key", f"gcpkms://{first.name}", "--with", "worker")
    assert "another key version" in local("rotate-ca", "start", code=2).err
    local("rotate-ca", "start", "--ca-key", f"gcpkms://{second.name}")
    local("rotate-ca", "promote")
    local("rotate-ca", "finish")
    first.state = "DESTROYED"
    local("issue", "worker")
    assert "--lower-sealing" in local("rotate-ca", "start", "--ca-key", "store:", code=3).err
    local("rotate-ca", "start", "--ca-key", "store:", "--lower-sealing")
    local("rotate-ca", "promote")
    local("rotate-ca", "finish")
    second.state = "DESTROYED"
    local("issue", "worker")
    local("rotate-ca", "--emergency")


def test_while_kms_is_away_nothing_is_recorded(kms: KmsServer, local: Run) -> None:
    version = kms.create("ca")
    local("init-ca", "--ca-key", f"gcpkms://{version.name}", "--with", "worker")
    before = local("list", "--json").out
    kms.failures = ["RESOURCE_EXHAUSTED"]
    local("issue", "scheduler", code=75)
    kms.failures = ["RESOURCE_EXHAUSTED"]
    local("revoke", "worker", code=75)
    assert local("list", "--json").out == before
    local("issue", "scheduler")
