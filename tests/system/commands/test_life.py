"""A cluster's certificates from `init-ca` to `revoke`, by the commands, the same on both stores and transports."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Callable
from datetime import datetime
from operator import le
from pathlib import Path
from typing import Any

import pytest

from tests.emulator import SecretManagerServer
from tests.support.paths import DOCS
from tests.support.running import Run, runner


def test_the_usual_leaves_in_one_go(run: Run) -> None:
    made = run("init-ca", "--with", "scheduler,worker,client/alice", "--json").json()
    assert made["trustDomain"] == "default.daskpki.internal"
    assert len(made["fingerprint"]) == 64
    assert [(leaf["role"], leaf["name"]) for leaf in made["issued"]] == [
        ("scheduler", "scheduler"),
        ("worker", "worker"),
        ("client", "alice"),
    ]
    listed = run("list", "--json").json()
    assert listed == made["issued"]
    for entry in listed:
        assert {"role", "name", "serial", "fingerprint", "notBefore", "notAfter", "state"} <= set(entry)
        assert entry["state"] == "issued"
        assert datetime.fromisoformat(entry["notBefore"]) < datetime.fromisoformat(entry["notAfter"])
    alice = listed[2]
    for name in ("client/alice", alice["serial"], alice["fingerprint"], alice["serial"].upper()):
        assert run("show", name, "--json").json() == alice


def test_init_ca_never_overwrites(run: Run) -> None:
    run("init-ca")
    before = run("list", "--json").out
    again = run("init-ca", "--with", "scheduler", code=1)
    assert "has a CA already" in again.err
    assert "--cluster NAME" in again.err
    assert run("list", "--json").out == before
    run("--cluster", "other", "init-ca")
    assert run("list", "--json").out == before


def test_what_is_exported_is_trusted_by_openssl_and_by_verify(run: Run, tmp_path: Path) -> None:
    run("init-ca", "--with", "client/alice")
    out = tmp_path / "alice"
    written = run("export", "client/alice", "--out", str(out), "--json").json()["files"]
    assert {Path(path).name for path in written} == {"ca.pem", "cert.pem", "key.pem", "trust.json"}
    assert stat.S_IMODE((out / "key.pem").stat().st_mode) == 0o600
    openssl = ["openssl", "verify", "-x509_strict", "-CAfile", str(out / "ca.pem"), str(out / "cert.pem")]
    subprocess.run([*openssl[:3], "-purpose", "sslclient", *openssl[3:]], check=True, capture_output=True)
    refused = subprocess.run(
        [*openssl[:3], "-purpose", "sslserver", *openssl[3:]], check=False, capture_output=True, text=True
    )
    assert "unsuitable certificate purpose" in refused.stderr + refused.stdout
    verified = run("verify", str(out / "cert.pem"), "--json").json()
    assert verified[0]["identity"] == "spiffe://default.daskpki.internal/client/alice"
    kept = (out / "key.pem").read_bytes()
    assert "would be overwritten" in run("export", "client/alice", "--out", str(out), code=1).err
    assert (out / "key.pem").read_bytes() == kept
    run("export", "client/alice", "--out", str(out), "--force")


def test_pkcs12_opens_with_its_passphrase_only(run: Run, tmp_path: Path) -> None:
    run("init-ca", "--with", "client/alice")
    passphrase = tmp_path / "passphrase"
    passphrase.touch(0o600)
    passphrase.write_text("correct horse\n")
    file = tmp_path / "alice.p12"
    run("export", "client/alice", "--p12", str(file), "--p12-passphrase-file", str(passphrase))
    command = ["openssl", "pkcs12", "-in", str(file), "-nodes", "-passin"]
    opened = subprocess.run([*command, "pass:correct horse"], check=True, capture_output=True, text=True)
    assert "BEGIN PRIVATE KEY" in opened.stdout
    assert opened.stdout.count("BEGIN CERTIFICATE") == 2
    assert subprocess.run([*command, "pass:wrong"], check=False, capture_output=True).returncode != 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_count_gives_each_a_secret_of_its_own_and_goes_on_where_it_ended(run: Run) -> None:
    run("init-ca")
    assert len(run("issue", "worker", "--name", "w", "--count", "3", "--json").json()) == 3
    first = {entry["name"]: entry["serial"] for entry in run("list", "--json").json()}
    more = run("issue", "worker", "--name", "w", "--count", "5", "--json").json()
    assert [entry["name"] for entry in more] == ["w-3", "w-4"]
    now = {entry["name"]: entry["serial"] for entry in run("list", "--json").json()}
    assert len(now) == 5
    assert now.items() >= first.items()


def test_dry_run_checks_and_changes_nothing(run: Run) -> None:
    run("init-ca")
    plan = run("issue", "worker", "--count", "2", "--dry-run", "--json").json()
    assert plan == {
        "issue": [f"spiffe://default.daskpki.internal/worker/worker-{number}" for number in range(2)],
        "kept": 0,
    }
    run("issue", "worker", "--dns", "elsewhere.example", "--dry-run", code=3)
    assert "'foo'" in run("issue", "worker", "--key-type", "foo", "--dry-run", code=2).err
    assert run("list", "--json").json() == []


def test_a_new_leaf_supersedes_and_a_revoked_one_is_not_trusted(run: Run, tmp_path: Path) -> None:
    run("init-ca", "--with", "client/alice,client/bob")
    run("export", "client/alice", "--out", str(tmp_path / "first"))
    run("renew", "client/alice")
    states = [entry["state"] for entry in run("list", "--name", "alice", "--json").json()]
    assert states == ["superseded", "issued"]
    run("verify", str(tmp_path / "first" / "cert.pem"))  # superseded is not revoked
    revoked = run("revoke", "client/alice", "--reason", "keyCompromise", "--json").json()
    assert [(entry["state"], entry["reason"]) for entry in revoked] == [("revoked", "keyCompromise")] * 2
    refused = run("verify", str(tmp_path / "first" / "cert.pem"), code=3)
    assert "was revoked" in refused.out
    run("export", "client/bob", "--out", str(tmp_path / "bob"))
    run("verify", str(tmp_path / "bob" / "cert.pem"))  # the control
    assert "revoked" in run("export", "client/alice", "--out", str(tmp_path / "again"), code=3).err
    assert not (tmp_path / "again").exists()


def test_a_hold_can_be_released_and_nothing_else(run: Run) -> None:
    run("init-ca", "--with", "worker,client/alice")
    run("revoke", "worker", "--reason", "certificateHold")
    assert run("show", "worker", "--json").json()["state"] == "revoked"
    run("revoke", "worker", "--release")
    assert run("show", "worker", "--json").json()["state"] == "issued"
    run("revoke", "client/alice")
    refused = run("revoke", "client/alice", "--release", code=3)
    assert "final (RFC 5280, 5.3.1)" in refused.err
    assert "no certificate 'client/carol' was issued here" in run("revoke", "client/carol", code=4).err
    run("revoke", "abcdef", code=4)
    run("revoke", "worker", "--reason", "boredom", code=2)


def test_what_was_revoked_is_not_renewed(run: Run) -> None:
    run("init-ca", "--with", "worker,client/bob")
    run("revoke", "client/bob")
    refused = run("renew", "client/bob", code=2).err
    assert "client/bob was revoked" in refused
    assert "hint: daskpki issue client/bob\n" in refused
    run("renew", "client/bob", "--dry-run", code=2)
    assert [entry["state"] for entry in run("list", "--role", "client", "--json").json()] == ["revoked"]
    run("revoke", "worker", "--reason", "certificateHold")
    assert "hint: daskpki revoke worker/worker --release\n" in run("renew", "worker/worker", code=2).err
    run("revoke", "worker", "--release")
    assert run("renew", "worker/worker", "--json").json()[0]["state"] == "issued"


def test_renew_due_has_exit_codes_for_cron(run: Run) -> None:
    run("init-ca", "--with", "worker")
    run("renew", "--due")
    run("renew", "--due", "--detailed-exit-code", code=6)
    run("renew", code=2)
    assert run("renew", "worker", "--dry-run", "--json").json() == run("list", "--json").json()


COSTS = re.findall(
    r"^\| `daskpki ([^`]+)` \| (\d+) \| (\d+) \| (\d+) \|$",
    (DOCS / "how-to" / "secret-manager.md").read_text(),
    re.MULTILINE,
)
"""The table that operators are shown: command, requests, writes, active versions."""


def test_each_command_costs_what_the_table_says(
    server: SecretManagerServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("DASKPKI_SECRET_MANAGER_ENDPOINT", f"grpc://{server.grpc_target}")
    monkeypatch.chdir(tmp_path)
    Path("password.txt").write_text("correct horse")
    run = runner(capsys, "--store", "gsm://my-project")
    assert len(COSTS) > 10
    assert next(int(requests) for command, requests, *_ in COSTS if command.startswith("issue")) <= 9
    for command, *most in COSTS:
        before = active(server)
        server.reset_journal()
        run(*command.split())
        methods = [entry.method for entry in server.requests()]
        cost = (len(methods), sum(method in WRITING for method in methods), active(server) - before)
        assert all(map(le, cost, map(int, most))), (command, cost, methods)
        assert cost[0] >= int(most[0]) - 1, f"{command} has become cheaper: {cost}"
        if command == "init-ca":
            run("issue", "scheduler")
            run("issue", "worker")


WRITING = ("CreateSecret", "AddSecretVersion", "DestroySecretVersion", "SetIamPolicy")


def active(server: SecretManagerServer) -> int:
    return sum(len(server.active_versions(secret)) for secret in server.secrets())


def test_a_credential_keeps_two_versions_however_often_it_is_renewed(
    server: SecretManagerServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASKPKI_SECRET_MANAGER_ENDPOINT", f"grpc://{server.grpc_target}")
    run = runner(capsys, "--store", "gsm://my-project")
    server.quotas.enforced = True  # two writes a second to one secret among them, for which commands wait
    refused = pass_time(server, 1)
    run("init-ca", "--with", "worker")
    for _ in range(4):
        run("renew", "worker")
    for secret in server.secrets():
        most = 4 if secret.endswith("_records") else 2
        assert len(server.active_versions(secret)) <= most, secret
    assert server.active_versions("projects/my-project/secrets/daskpki_default_worker_worker") == [4, 5]
    assert refused()


def pass_time(server: SecretManagerServer, seconds: float) -> Callable[[], int]:
    """The server's clock goes on by so much whenever a client was told to wait; gives how often that was."""
    refused = 0

    def go_on(*_request: object) -> None:
        nonlocal refused
        told = sum(entry.status == "RESOURCE_EXHAUSTED" for entry in server.requests())
        if told > refused:
            refused = told
            server.clock.advance(seconds)

    server.before("CreateSecret", go_on, times=None)
    server.before("AddSecretVersion", go_on, times=None)
    return lambda: refused


def test_a_second_operator_sees_the_same(
    server: SecretManagerServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("DASKPKI_SECRET_MANAGER_ENDPOINT", server.rest_url)
    run = runner(capsys, "--store", "gsm://my-project")
    run("init-ca", "--with", "scheduler")
    mine = run("list", "--json").json()
    monkeypatch.setenv("HOME", str(tmp_path / "another-laptop"))
    assert run("list", "--json").json() == mine
    run("issue", "worker")
    assert [entry["name"] for entry in run("list", "--json").json()] == ["scheduler", "worker"]


def sealed_ca(tmp_path: Path, text: str) -> Path:
    file = tmp_path / f"ca-{text}"
    file.touch(0o600)
    file.write_text(text)
    return file


def test_a_ca_key_with_its_own_passphrase_opens_by_that_only(run: Run, tmp_path: Path) -> None:
    right, wrong = sealed_ca(tmp_path, "right"), sealed_ca(tmp_path, "wrong")
    run("init-ca", "--ca-passphrase-file", str(right))
    before: Any = run("list", "--json").json()
    assert "passphrase" in run("issue", "worker", "--ca-passphrase-file", str(wrong), code=5).err
    assert "--ca-passphrase-file" in run("issue", "worker", code=5).err
    assert run("list", "--json").json() == before
    run("issue", "worker", "--ca-passphrase-file", str(right))


def test_regional_secrets_replication_and_cmek_are_settled_by_init_ca(
    server: SecretManagerServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASKPKI_SECRET_MANAGER_ENDPOINT", f"grpc://{server.grpc_target}")
    runner(capsys, "--store", "gsm://my-project/europe-west1")("init-ca", "--with", "scheduler")
    assert any("/locations/europe-west1/" in name for name in server.secrets())
    replicated = runner(capsys, "--store", "gsm://my-project")
    replicated("init-ca", "--replication", "europe-west1,us-east1", "--with", "scheduler")
    replicated("issue", "worker")
    assert "for stores on Secret Manager" in runner(capsys)("init-ca", "--replication", "x", code=2).err


def test_nothing_is_asked_without_a_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = runner(capsys, "--store", f"local:{tmp_path / 'store'}")
    os.environ.pop("DBUS_SESSION_BUS_ADDRESS", None)
    refused = run("init-ca", code=5)
    assert "--passphrase-file" in refused.err
    assert "--key-file" in refused.err
    assert not (tmp_path / "store" / "store.db").exists()


def test_many_leaves_are_paced_to_the_quota(
    server: SecretManagerServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a tenth of the real quota of writes, whose minutes pass when the client was told to wait."""
    monkeypatch.setenv("DASKPKI_SECRET_MANAGER_ENDPOINT", f"grpc://{server.grpc_target}")
    run = runner(capsys, "--store", "gsm://my-project")
    run("init-ca")
    server.quotas.per_minute["write"] = 60
    server.quotas.enforced = True
    refused = pass_time(server, 60)
    assert len(run("issue", "worker", "--name", "w", "--count", "90", "--json").json()) == 90
    assert refused() >= 3  # 186 writes at 60 a minute
    assert {entry["state"] for entry in run("list", "--json").json()} == {"issued"}
