"""`daskpki crl`: shown, exported, judged by OpenSSL; and the warning before it expires."""

from __future__ import annotations

import json
import subprocess
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daskpki import CertificateAuthority
from tests.emulator import SecretManagerServer
from tests.support.local_places import LocalPlace
from tests.support.running import Run, runner


def openssl(*arguments: str) -> str:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_openssl_refuses_what_the_exported_crl_revokes(run: Run, tmp_path: Path) -> None:
    run("init-ca", "--with", "worker,client/alice")
    for who in ("worker", "client/alice"):
        run("export", who, "--out", str(tmp_path / who.replace("/", "-")))
    serial = run("revoke", "client/alice", "--reason", "keyCompromise", "--json").json()[0]["serial"]
    shown = run("crl", "--json").json()
    assert [(entry["serial"], entry["reason"]) for entry in shown[0]["revoked"]] == [(serial, "keyCompromise")]
    assert shown[0]["number"] == 2
    crl = tmp_path / "crl.pem"
    run("crl", "--out", str(crl))
    assert crl.read_text() == run("crl", "--pem").out == run("crl", "--pem", "--json").json()["pem"]
    common = ("verify", "-x509_strict", "-crl_check", "-CRLfile", str(crl), "-CAfile", str(tmp_path / "worker/ca.pem"))
    assert openssl(*common, str(tmp_path / "worker" / "cert.pem")).endswith("OK\n")
    assert "certificate revoked" in openssl(*common, str(tmp_path / "client-alice" / "cert.pem"))


def test_der_is_one_crl(local: Run, tmp_path: Path) -> None:
    local("init-ca")
    file = tmp_path / "ca.crl"
    local("crl", "--der", "--out", str(file))
    assert "CRL Number" in openssl("crl", "-inform", "DER", "-in", str(file), "-noout", "-text")
    assert "--force" in local("crl", "--der", "--out", str(file), code=1).err
    local("rotate-ca", "start")
    assert "--generation N" in local("crl", "--der", "--out", str(file), "--force", code=2).err
    local("crl", "--der", "--generation", "2", "--out", str(file), "--force")
    assert local("crl", "--pem").out.count("BEGIN X509 CRL") == 2
    assert "CAs are 1, 2" in local("crl", "--generation", "7", code=4).err
    assert "one of them" in local("crl", "--der", "--pem", code=2).err
    assert "--out FILE" in local("crl", "--der", code=2).err


@pytest.mark.parametrize(("days", "warned"), [(20, None), (25, "expires at"), (40, "expired at")])
def test_list_warns_before_the_crl_runs_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], days: int, warned: str | None
) -> None:
    place, then = LocalPlace(tmp_path), datetime.now(UTC) - timedelta(days=days)
    with closing(place.create()) as store:
        CertificateAuthority(store, clock=lambda: then).init()
    run = runner(capsys, "--store", f"local:{place.directory}", "--key-file", str(place.key_file))
    for command in ("list", "crl"):
        assert (f"the CRL {warned}" in run(command).err) if warned else ("CRL" not in run(command).err)
    run("renew", "--due")  # which any cron job does
    assert "CRL" not in run("list").err
    assert run("crl", "--json").json()[0]["number"] == 2


def test_showing_it_costs_few_requests(
    server: SecretManagerServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASKPKI_SECRET_MANAGER_ENDPOINT", f"grpc://{server.grpc_target}")
    run = runner(capsys, "--store", "gsm://my-project")
    run("init-ca")
    server.reset_journal()
    assert json.loads(run("crl", "--json").out)[0]["revoked"] == []
    assert server.count() <= 6
