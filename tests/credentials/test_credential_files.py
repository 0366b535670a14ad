"""A credential directory: what `export` writes, what others read of it, and what is refused."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from daskpki.confidential import Confidential
from daskpki.credentials.credential_files import check_file, export_directory
from daskpki.credentials.source_selection import CredentialSource, Wanted
from daskpki.credentials.sources import Environment, obtain
from daskpki.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    CorruptError,
    DaskpkiError,
    NotFoundError,
    NotTrustedError,
    UsageError,
)
from daskpki.identity import Role
from daskpki.pki.credential import encode_pkcs12
from tests.support.login_material import Founded


def test_a_directory_is_a_source(mounted: Environment) -> None:
    verified, choice, schedulers, _ = obtain(Wanted(), mounted)
    assert verified.credential.identity.slug == "client/alice"
    assert (choice.source, choice.why) == (CredentialSource.DIRECTORY, "DASKPKI_CREDENTIAL_DIR is set")
    assert schedulers == ("tls://10.1.1.1:8786",)


def test_what_export_writes_is_private_where_it_must_be(exported: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in exported.iterdir()}
    assert modes == {"ca.pem": 0o644, "cert.pem": 0o644, "trust.json": 0o644, "key.pem": 0o600}
    assert exported.stat().st_mode & 0o777 == 0o700


def test_export_never_overwrites_unless_forced(exported: Path) -> None:
    cluster = Founded()
    verified = cluster.hold(cluster.issue(Role.WORKER, "worker"))
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    (exported / "ca.pem").unlink()
    with pytest.raises(AlreadyExistsError, match=r"key\.pem would be overwritten"):
        export_directory(verified, exported)
    assert not (exported / "ca.pem").exists()
    assert (exported / "key.pem").read_bytes() == before["key.pem"]
    export_directory(verified, exported, force=True)
    assert (exported / "key.pem").read_bytes() != before["key.pem"]


def test_openssl_reads_what_export_writes(exported: Path) -> None:
    verify = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca.pem", "cert.pem"]
    assert subprocess.run(verify, cwd=exported, capture_output=True, check=False).returncode == 0
    key = subprocess.run(
        ["openssl", "pkey", "-in", "key.pem", "-pubout"], cwd=exported, capture_output=True, check=True
    )
    cert = subprocess.run(
        ["openssl", "x509", "-in", "cert.pem", "-noout", "-pubkey"], cwd=exported, capture_output=True, check=True
    )
    assert key.stdout == cert.stdout


def test_openssl_reads_a_pkcs12_file(tmp_path: Path) -> None:
    cluster = Founded()
    verified = cluster.hold(cluster.issue(Role.CLIENT, "alice"))
    file = tmp_path / "alice.p12"
    file.write_bytes(encode_pkcs12(verified.credential, verified.trust.roots, Confidential("correct horse")).reveal())
    command = ["openssl", "pkcs12", "-in", str(file), "-passin", "pass:correct horse", "-nodes"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert text.count("BEGIN CERTIFICATE") == 2
    assert "BEGIN PRIVATE KEY" in text


@pytest.mark.parametrize(
    ("file", "mode"), [("key.pem", 0o640), ("key.pem", 0o604), ("ca.pem", 0o664), ("trust.json", 0o646), (".", 0o770)]
)
def test_loose_permissions_are_refused(mounted: Environment, exported: Path, file: str, mode: int) -> None:
    (exported / file).chmod(mode)
    with pytest.raises(AccessDeniedError, match=f"open to others .mode {mode:04o}.") as refusal:
        obtain(Wanted(), mounted)
    assert "chmod" in str(refusal.value.hint)


@pytest.mark.parametrize("file", ["ca.pem", "cert.pem", "key.pem", "trust.json"])
def test_every_file_is_needed_and_has_to_be_whole(mounted: Environment, exported: Path, file: str) -> None:
    whole = (exported / file).read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"\x00" * 100, b"x" * (2 << 20)):
        (exported / file).write_bytes(damaged)
        with pytest.raises(DaskpkiError) as refusal:
            obtain(Wanted(), mounted)
        assert isinstance(refusal.value, CorruptError | NotTrustedError | UsageError)
    (exported / file).unlink()
    with pytest.raises(NotFoundError, match=file):
        obtain(Wanted(), mounted)


def test_a_key_of_another_certificate_is_refused(mounted: Environment, exported: Path, tmp_path: Path) -> None:
    cluster = Founded()
    export_directory(cluster.hold(cluster.issue(Role.CLIENT, "alice")), tmp_path / "second")
    (exported / "key.pem").write_bytes((tmp_path / "second" / "key.pem").read_bytes())
    with pytest.raises(NotTrustedError, match="does not belong to its certificate"):
        obtain(Wanted(), mounted)


@pytest.mark.parametrize("file", ["ca.pem", "trust.json", "cert.pem"])
def test_parts_of_another_cluster_are_refused(mounted: Environment, exported: Path, tmp_path: Path, file: str) -> None:
    cluster = Founded()
    export_directory(cluster.hold(cluster.issue(Role.CLIENT, "alice")), tmp_path / "second")
    (exported / file).write_bytes((tmp_path / "second" / file).read_bytes())
    with pytest.raises(NotTrustedError):
        obtain(Wanted(), mounted)


def _status(uid: int, mode: int) -> os.stat_result:
    return os.stat_result((stat.S_IFREG | mode, 1, 1, 1, uid, 0, 0, 0, 0, 0))


def test_a_key_that_root_mounted_may_be_read_by_our_group() -> None:
    """Kubernetes: the volume's files are root's, 0440, and the pod's fsGroup is ours."""
    path = Path("/run/secrets/key.pem")
    check_file(path, _status(0, 0o440), own_uid=1000, secret=True)
    for uid, mode in ((0, 0o444), (0, 0o460), (1000, 0o440), (1001, 0o400)):
        with pytest.raises(AccessDeniedError):
            check_file(path, _status(uid, mode), own_uid=1000, secret=True)


def test_what_is_public_may_be_read_and_not_written_by_others() -> None:
    path = Path("/run/secrets/ca.pem")
    check_file(path, _status(0, 0o444), own_uid=1000, secret=False)
    check_file(path, _status(1000, 0o644), own_uid=1000, secret=False)
    for uid, mode in ((0, 0o464), (1000, 0o646), (1001, 0o444)):
        with pytest.raises(AccessDeniedError):
            check_file(path, _status(uid, mode), own_uid=1000, secret=False)
