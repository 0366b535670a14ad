"""Where a CA's key may lie: below an offline root, in another store, sealed by a passphrase of its own."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daskpki.pki.pem import parse_certificates, parse_pem
from tests.emulator import SecretManagerServer
from tests.emulator.names import project_number
from tests.support.judges import lint_certificate, lint_crl, lint_pair, openssl_verify
from tests.support.running import Result, Run, runner


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    file = tmp_path / "root.passphrase"
    file.touch(0o600)
    file.write_text("correct horse battery staple\n")
    return file


@pytest.fixture
def two_tiers(tmp_path: Path, passphrase: Path) -> tuple[str, ...]:
    return ("--offline-root", str(tmp_path / "root.key"), "--root-passphrase-file", str(passphrase))


def test_two_tiers_pass_the_judges(run: Run, tmp_path: Path, two_tiers: tuple[str, ...]) -> None:
    made = run("init-ca", *two_tiers, "--with", "scheduler,client/alice")
    assert "root.key away" in made.err
    run("revoke", "client/alice")
    run("export", "scheduler", "--out", str(tmp_path / "out"))
    run("verify", str(tmp_path / "out" / "cert.pem"))
    leaf, intermediate = parse_certificates((tmp_path / "out" / "cert.pem").read_bytes())
    (root,) = parse_certificates((tmp_path / "out" / "ca.pem").read_bytes())
    run("crl", "--out", str(tmp_path / "crl.pem"))
    (_, crl), (_, root_crl) = parse_pem((tmp_path / "crl.pem").read_bytes(), "the CRLs")
    assert [lint_certificate(entry) for entry in (root, intermediate, leaf)] == [[]] * 3
    assert [lint_pair(root, intermediate), lint_pair(intermediate, leaf), lint_crl(crl), lint_crl(root_crl)] == [[]] * 4
    for purpose in ("sslserver", "sslclient"):
        assert openssl_verify(leaf, [intermediate], root, purpose=purpose, crl=crl, at=datetime.now(UTC)) == ""


def test_the_roots_key_is_in_its_file_only_and_never_needed(
    local: Run, tmp_path: Path, two_tiers: tuple[str, ...]
) -> None:
    local("init-ca", *two_tiers)
    file = tmp_path / "root.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_bytes().startswith(b"dpki-box")
    file.rename(tmp_path / "put away")
    local("issue", "worker")
    local("revoke", "worker")
    local("issue", "worker")


def test_a_successor_has_a_root_of_its_own(local: Run, tmp_path: Path, two_tiers: tuple[str, ...]) -> None:
    local("init-ca", *two_tiers, "--with", "worker")
    assert "--offline-root NEWFILE" in local("rotate-ca", "start", code=2).err
    before = local("audit", "--json").out
    assert "is the root key of CA 1" in local("rotate-ca", "start", *two_tiers, code=2).err
    assert local("audit", "--json").out == before
    new = ("--offline-root", str(tmp_path / "second.key"), *two_tiers[2:])
    local("rotate-ca", "start", *new)
    local("rotate-ca", "promote")
    local("rotate-ca", "finish")
    local("export", "worker", "--out", str(tmp_path / "out"))
    local("verify", str(tmp_path / "out" / "cert.pem"))
    assert (tmp_path / "out" / "cert.pem").read_text().count("BEGIN CERTIFICATE") == 2


def test_a_file_that_exists_is_never_overwritten(
    local: Run, tmp_path: Path, two_tiers: tuple[str, ...], passphrase: Path
) -> None:
    file = tmp_path / "root.key"
    file.touch(0o600)
    file.write_bytes(b"something else")
    assert "not sealed data" in local("init-ca", *two_tiers, code=3).err
    assert file.read_bytes() == b"something else"
    file.unlink()
    local("--cluster", "other", "init-ca", *two_tiers)
    kept = file.read_bytes()
    passphrase.write_text("a wrong one\n")
    local("init-ca", *two_tiers, code=5)
    assert file.read_bytes() == kept


def test_without_a_terminal_the_passphrases_option_is_named(local: Run, tmp_path: Path) -> None:
    refused = local("init-ca", "--offline-root", str(tmp_path / "root.key"), code=5)
    assert "--root-passphrase-file FILE" in refused.err
    assert not (tmp_path / "root.key").exists()


def test_the_key_lies_in_another_project(
    server: SecretManagerServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASKPKI_SECRET_MANAGER_ENDPOINT", f"grpc://{server.grpc_target}")
    run = runner(capsys, "--store", "gsm://my-project")
    run("init-ca", "--ca-key", "gsm://vault-project", "--with", "worker")
    run("issue", "scheduler")
    run("revoke", "worker")
    run("rotate-ca", "start")
    assert [name.split("/")[1] for name in ca_keys(server)] == [str(project_number("vault-project"))] * 2
    run("rotate-ca", "promote")
    run("rotate-ca", "finish")
    assert [name.rpartition("_")[2] for name in ca_keys(server)] == ["2"]


def ca_keys(server: SecretManagerServer) -> list[str]:
    return [str(stored.name) for stored in server.catalogue.everything() if "cakey" in str(stored.name)]


def test_whoever_reads_the_store_only_cannot_sign(local: Run, tmp_path: Path) -> None:
    elsewhere = f"local:{tmp_path / 'elsewhere'}"
    local("init-ca", "--ca-key", elsewhere, "--with", "worker")
    local("issue", "scheduler")
    (tmp_path / "elsewhere").rename(tmp_path / "unplugged")
    assert "elsewhere" in local("issue", "scheduler", code=4).err
    assert "scheduler" in local("list").out


def test_a_new_passphrase_is_asked_for_twice_and_a_known_one_once(tmp_path: Path) -> None:
    """A slip of the finger in the first would lose the CA's key."""
    typed = ("New passphrase of the CA's key: ", "Once more: ")
    begin = ("init-ca", "--ca-passphrase", "--with", "worker")
    slipped = on_a_terminal(tmp_path, begin, {typed[0]: "correct horse", typed[1]: "correct hrose"})
    assert slipped.code == 2
    assert "the two passphrases differ" in slipped.err
    assert on_a_terminal(tmp_path, begin, dict.fromkeys(typed, "correct horse")).code == 0
    known = {"Passphrase of the CA's key: ": "correct horse"}
    for command in (("issue", "scheduler"), ("rotate-ca", "start"), ("rotate-ca", "--emergency")):
        done = on_a_terminal(tmp_path, command, known)
        assert done.code == 0, done


def on_a_terminal(root: Path, command: Sequence[str], answers: Mapping[str, str]) -> Result:
    """Run it with a terminal for its input; each question is answered once it was asked, and no other is."""
    ours, terminal = pty.openpty()
    common = ("--store", f"local:{root / 'store'}", "--key-file", str(root / "store.key"))
    arguments = ["timeout", "60", sys.executable, "-m", "daskpki", *common, *command]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdin=terminal, stdout=pipe, stderr=pipe, start_new_session=True) as process:
        assert process.stdout
        assert process.stderr
        said, pending = "", dict(answers)
        while letter := process.stderr.read(1):
            said += letter.decode()
            for question in [known for known in pending if said.endswith(known)]:
                os.write(ours, pending.pop(question).encode() + b"\n")
        out = process.stdout.read().decode()
    os.close(ours)
    os.close(terminal)
    assert not pending, said
    return Result(process.returncode, out, said)
