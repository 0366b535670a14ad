"""What the doctor says mends a thing does mend it: each command is run as it was printed, and the finding is gone."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from daskpki.authority.ca import CertificateAuthority
from daskpki.cli.app import main
from daskpki.confidential import Confidential
from daskpki.identity import Role
from daskpki.inventory import Inventory
from daskpki.records import RESERVED, REVOKING, Draft, Stamp
from daskpki.settings import LocalUrl, parse_store_url
from daskpki.store.gsm.store import GsmStore
from daskpki.store.local.key_slots import Unlocking
from daskpki.store.opening import open_store
from daskpki.store.port import Store
from daskpki.user_secrets import ClusterSecrets
from tests.emulator import SecretManagerServer
from tests.support.command_stores import CLOUD, in_cloud
from tests.support.local_places import create_store
from tests.support.running import Run, runner

DAY = 86_400
VM = "serviceAccount:vm@my-project.iam.gserviceaccount.com"


class Patient:
    """A cluster, the doctor on it, and its remedies carried out."""

    def __init__(self, store: Store, run: Run) -> None:
        self.store = store
        self.run = run

    def complaints(self) -> list[dict[str, Any]]:
        examined = self.run("doctor", "--json", code=None).json()
        return [finding for finding in examined if finding["severity"] in ("warning", "error")]

    def complaint(self, subject: str, words: str) -> dict[str, Any]:
        (found,) = [one for one in self.complaints() if one["subject"] == subject and words in one["reason"]]
        return found

    def is_mended(self, subject: str, words: str) -> bool:
        """Whether its remedy, run as printed, leaves nothing of the complaint."""
        remedy = self.complaint(subject, words)["remedy"]
        for command in remedy.split("; "):
            assert main(shlex.split(command)[1:]) == 0, command
        return not [one for one in self.complaints() if one["subject"] == subject and words in one["reason"]]


@pytest.fixture
def clock() -> Callable[[], datetime]:
    """Forty days ago."""
    then = datetime.now(UTC) - timedelta(days=40)
    return lambda: then


@pytest.fixture
def patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Patient]:
    url, key = f"local:{tmp_path / 'store'}", tmp_path / "store.key"
    with closing(create_store(LocalUrl(tmp_path / "store"), unlock=Unlocking(key_file=key))) as store:
        yield Patient(store, runner(capsys, "--store", url, "--key-file", str(key), as_options=True))


@pytest.fixture
def remote(
    server: SecretManagerServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Patient]:
    run = in_cloud(server, "grpc", monkeypatch, capsys, as_options=True)
    run("init-ca", "--with", "scheduler,worker,client/alice")
    with closing(open_store(parse_store_url(CLOUD))) as store:
        yield Patient(store, run)


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("CRL of CA generation 1", "expired at"),
        ("certificate worker/worker", "expired at"),
        ("certificate client/alice", "past two thirds of its life"),
    ],
)
def test_what_ran_out_is_renewed(patient: Patient, clock: Callable[[], datetime], subject: str, words: str) -> None:
    authority = CertificateAuthority(patient.store, clock=clock)
    authority.init()
    list(authority.issue(authority.requests(Role.WORKER, ["worker"])))
    list(authority.issue(authority.requests(Role.CLIENT, ["alice"], ttl="50d")))
    assert patient.is_mended(subject, words)


def test_what_a_crash_left_open_is_ended(patient: Patient) -> None:
    authority = CertificateAuthority(patient.store)
    authority.init()
    (issued,) = authority.issue(authority.requests(Role.WORKER, ["cut-off"]))
    serial = f"{issued.record.serial:x}"
    body = {"serial": "abc", "role": "worker", "name": "w", "issuer": 1, "not_before": 1, "not_after": 1 << 31}
    for draft, at in (
        (Draft(RESERVED, body), 1000),
        (Draft(REVOKING, {"serial": serial, "reason": "superseded"}), 2000),
    ):
        authority.session.commit(partial(_only, draft), Stamp(at, draft.kind, "who", "it died"))
    reserved = patient.complaint("certificate worker/w", "the command was killed")
    assert reserved["remedy"].endswith(" issue worker --name w")
    assert patient.is_mended("certificate worker/cut-off", "was not published")
    assert "certificate worker/w" not in {one["subject"] for one in patient.complaints()}
    assert patient.run("list", "--json").out.count("revoked") >= 1


def _only(draft: Draft, _inventory: Inventory) -> list[Draft]:
    return [draft]


def test_a_secret_that_ended_gets_a_new_value(
    patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CertificateAuthority(patient.store).init()
    long_ago = ClusterSecrets(patient.store, "default", who="w", command="c", clock=lambda: 1_000_000)
    long_ago.set("ended", Confidential(b"x"), ttl=DAY)
    long_ago.set("old", Confidential(b"x"), rotate_every=DAY)
    (tmp_path / "FILE").write_bytes(b"new")
    monkeypatch.chdir(tmp_path)
    assert patient.is_mended("secret ended", "expired at")
    assert patient.is_mended("secret old", "rotation overdue")


def test_a_store_that_others_can_read_is_closed(patient: Patient, tmp_path: Path) -> None:
    patient.run("init-ca")
    (tmp_path / "store").chmod(0o755)
    (found,) = [one for one in patient.complaints() if "chmod 700" in (one["remedy"] or "")]
    subprocess.run(shlex.split(found["remedy"]), check=True)
    assert found["reason"] not in [one["reason"] for one in patient.complaints()]


def test_a_destroyed_newest_version_gets_a_successor(remote: Patient) -> None:
    remote.store.secrets.destroy("daskpki_default_worker_worker", 1)
    assert remote.is_mended("daskpki_default_worker_worker", "is destroyed")


def test_grants_too_wide_and_too_narrow_are_mended(remote: Patient) -> None:
    remote.run("grant", "worker", "--to", VM)
    remote.run("grant", "client/alice", "--to", VM)
    assert remote.is_mended("daskpki_default_client_alice", "it reads worker/worker as well")
    remote.run("grant", "trust", "--to", VM, "--revoke")
    assert remote.is_mended("daskpki_default_worker_worker", "it cannot read the trust document")


@pytest.mark.needs_gcloud
def test_gcloud_s_remedies_are_understood_by_gcloud(
    remote: Patient, server: SecretManagerServer, tmp_path: Path
) -> None:
    secret = "daskpki_default_worker_worker"
    remote.run("renew", "worker/worker")
    remote.store.secrets.disable(secret, 2)
    remedies = [remote.complaint(secret, "is disabled")["remedy"]]
    member = "serviceAccount:scheduler@my-project.iam.gserviceaccount.com"
    remote.run("grant", "scheduler", "--to", member)
    assert isinstance(remote.store, GsmStore)
    remote.store.policies.grant("daskpki_default_records", "roles/secretmanager.admin", member)
    remedies.append(remote.complaint("daskpki_default_records", "that only operators and issuers need")["remedy"])
    environ = {**os.environ, **server.gcloud_environment, "CLOUDSDK_CONFIG": str(tmp_path)}
    for remedy in remedies:
        subprocess.run([*shlex.split(remedy), "--quiet"], env=environ, check=True, capture_output=True)
    left = {(one["subject"], one["reason"].partition(":")[0]) for one in remote.complaints()}
    assert not left & {("daskpki_default_records", "too wide"), (secret, "its newest version, 2, is disabled")}
