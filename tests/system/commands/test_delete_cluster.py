"""`daskpki delete-cluster`: what goes, what stays, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pexpect
import pytest

from daskpki import secret_names
from daskpki.authority.ca import CertificateAuthority
from daskpki.authority.deletion import plan_deletion
from daskpki.cli.renew_revoke import ONE_POLL
from daskpki.handover import Freshness
from daskpki.settings import GsmUrl
from daskpki.store.opening import open_store
from tests.emulator import SecretManagerServer
from tests.support.running import Run, runner

CLOUD = "gsm://my-project"


@pytest.fixture
def cloud(
    server: SecretManagerServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    """On Secret Manager, with a gcloud that finds the groups that stand in a file, and nothing else."""
    monkeypatch.setenv("DASKPKI_SECRET_MANAGER_ENDPOINT", f"grpc://{server.grpc_target}")
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(f'#!/bin/sh\ncase "$*" in *instance-groups*) cat {tmp_path}/groups;; *) echo "[]";; esac\n')
    gcloud.chmod(0o700)
    (tmp_path / "groups").write_text("[]")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return runner(capsys, "--store", CLOUD, "--cluster", "lab")


def made(run: Run, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("x")
    run("init-ca", "--with", "scheduler,worker")
    run("issue", "client", "--name", "alice")
    run("secret", "set", "db-password", "--file", str(password))


def kinds(server: SecretManagerServer, cluster: str = "lab") -> set[str]:
    prefix = f"daskpki_{cluster}_"
    names = (name.rpartition("/")[2] for name in server.secrets())
    return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}


def test_leaves_are_revoked_before_keys_go_and_the_document_stays(
    server: SecretManagerServer, cloud: Run, tmp_path: Path
) -> None:
    made(cloud, tmp_path)
    server.seed(  # of the prefix, but of another's label
        "projects/my-project/secrets/daskpki_lab_secret_other",
        b"x",
        labels=secret_names.labels("lab-2", "secret", "other"),
    )
    server.seed("projects/my-project/secrets/daskpki_lab_worker_mine", b"x", labels={"daskpki-cluster": "lab"})
    done = cloud("delete-cluster", "--confirm", "lab", "--wait", "0")
    assert "certificates to revoke and publish: 3" in done.out
    assert "secrets to delete for good: 5" in done.out
    assert "among them your secrets: db-password" in done.out
    assert "daskpki copy --to local:/path keeps a copy" in done.err
    assert "not seen: nodes on Kubernetes, resources made by Terraform, machines made by hand" in done.err
    assert kinds(server) == {"trust", "records", "events", "secret_other", "worker_mine"}
    states = {entry["state"] for entry in cloud("list", "--json").json()}
    assert states == {"revoked"}
    # Deleted in this order, so that an interrupted run can still publish: the CA's key last.
    deleted = [line.removeprefix("deleted daskpki_lab_") for line in done.err.splitlines() if "deleted" in line]
    assert deleted[-1] == "cakey_1"
    again = cloud("delete-cluster", "--confirm", "lab", "--wait", "0")
    assert "certificates to revoke and publish: 0" in again.out
    assert {"trust", "records"} <= kinds(server)


@pytest.mark.parametrize("label", ["daskpki-format", "daskpki-name", "daskpki-kind"])  # the control comes first
def test_what_lost_a_label_is_deleted_by_its_id(
    server: SecretManagerServer, cloud: Run, tmp_path: Path, label: str
) -> None:
    made(cloud, tmp_path)
    with closing(open_store(GsmUrl("my-project", None))) as store:
        for secret in ("daskpki_lab_secret_db-password", "daskpki_lab_cakey_1"):
            info = store.secrets.describe(secret)
            kept = {key: value for key, value in info.labels.items() if key != label}
            store.secrets.update(secret, etag=info.etag, labels=kept)
    done = cloud("delete-cluster", "--confirm", "lab", "--wait", "0")
    assert "among them your secrets: db-password" in done.out
    assert kinds(server) == {"trust", "records", "events"}


def test_the_rest_goes_once_the_last_leaf_has_ended(server: SecretManagerServer, cloud: Run, tmp_path: Path) -> None:
    made(cloud, tmp_path)
    cloud("delete-cluster", "--confirm", "lab", "--wait", "0")
    later = time.strftime("@%Y-%m-%d 00:00:00", time.gmtime(time.time() + 100 * 86400))
    command = [sys.executable, "-m", "daskpki", f"--store={CLOUD}", "--cluster=lab", "--json", "delete-cluster"]
    done = subprocess.run(
        ["faketime", "-f", later, *command, "--confirm=lab"],
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["kept_until"], document["later"], document["revoked"]) == (None, [], 0)
    assert kinds(server) == set()


def test_the_moment_that_is_named_is_one_at_which_the_rest_goes(cloud: Run, tmp_path: Path) -> None:
    """The grace counts: a node keeps the connections of a certificate that has expired for so long."""
    made(cloud, tmp_path)
    done = cloud("delete-cluster", "--confirm", "lab", "--wait", "0")
    named = re.search(r"next: the same command after (.*) UTC removes the rest", done.err)
    assert named, done.err
    assert f"kept until {named[1]} UTC, when no connection of a certificate is left: " in done.out

    def kept(at: datetime) -> int:
        with closing(open_store(GsmUrl("my-project", None))) as store:
            return len(plan_deletion(CertificateAuthority(store, "lab", clock=lambda: at)).later)

    moment = datetime.fromisoformat(f"{named[1]}Z")
    assert kept(moment) == 0
    assert kept(moment - timedelta(minutes=2)) == 3


def test_a_leaf_whose_connections_may_outlive_it_is_revoked_too(cloud: Run, tmp_path: Path) -> None:
    made(cloud, tmp_path)
    cloud("issue", "worker", "--name", "short", "--ttl", "1h")

    def planned(minutes: int) -> int:
        later = datetime.now(UTC) + timedelta(minutes=minutes)
        with closing(open_store(GsmUrl("my-project", None))) as store:
            return plan_deletion(CertificateAuthority(store, "lab", clock=lambda: later)).revoked

    grace = Freshness().grace // 60
    assert planned(0) == 4
    assert planned(60 + grace - 1) == 4, "nodes keep its connections for the grace"
    assert planned(60 + grace + 1) == 3


def test_a_key_that_does_not_open_is_an_error_before_anything_is_revoked(cloud: Run, tmp_path: Path) -> None:
    """During a rollover both CAs sign what is published."""
    made(cloud, tmp_path)
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse battery staple\n")
    passphrase.chmod(0o600)
    cloud("--ca-passphrase-file", str(passphrase), "rotate-ca", "start", "--ca-passphrase")
    cloud("delete-cluster", "--confirm", "lab", "--wait", "0", code=5)
    assert {entry["state"] for entry in cloud("list", "--json").json()} == {"issued"}
    cloud("--ca-passphrase-file", str(passphrase), "delete-cluster", "--confirm", "lab", "--wait", "0")
    assert {entry["state"] for entry in cloud("list", "--json").json()} == {"revoked"}


def test_it_refuses_while_there_are_vms(server: SecretManagerServer, cloud: Run, tmp_path: Path) -> None:
    made(cloud, tmp_path)
    before = kinds(server)
    group = {
        "name": "daskpki-lab-worker", "zone": "zones/europe-west1-b", "instanceTemplate": "t", "targetSize": 2,
        "description": "managed-by=daskpki daskpki-cluster=lab",
    }  # fmt: skip
    (tmp_path / "groups").write_text(json.dumps([group]))
    done = cloud("delete-cluster", "--confirm", "lab", code=2)
    assert "has VMs: daskpki-lab-worker" in done.err
    assert "hint: daskpki --store gsm://my-project --cluster lab deploy gcp --destroy --apply" in done.err
    assert kinds(server) == before
    assert {entry["state"] for entry in cloud("list", "--json").json()} == {"issued"}


def test_the_name_has_to_be_given(server: SecretManagerServer, cloud: Run, tmp_path: Path) -> None:
    made(cloud, tmp_path)
    before = kinds(server)
    assert "hint: --confirm lab" in cloud("delete-cluster", code=2).err
    assert "is not the cluster 'lab'" in cloud("delete-cluster", "--confirm", "lba", code=2).err
    assert kinds(server) == before


def test_a_cluster_that_is_not_there_is_not_found(cloud: Run) -> None:
    assert "there is no cluster 'lab'" in cloud("delete-cluster", "--confirm", "lab", code=4).err


def test_nothing_is_deleted_before_running_nodes_had_time_to_look(
    server: SecretManagerServer, cloud: Run, tmp_path: Path
) -> None:
    """The revocation is published and pushed, then one poll passes, and only then do credentials and keys go."""
    made(cloud, tmp_path)
    before = kinds(server)
    command = [sys.executable, "-m", "daskpki", f"--store={CLOUD}", "--cluster=lab", "delete-cluster", "--confirm=lab"]
    with subprocess.Popen([*command, "--wait=600"], env=os.environ, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert any("waiting 600 seconds" in line for line in running.stderr)
        assert kinds(server) == before
        assert {entry["state"] for entry in cloud("list", "--json").json()} == {"revoked"}
        running.terminate()
    assert 1.1 * Freshness().poll < ONE_POLL  # the longest time between two looks at the store


def test_a_run_that_failed_is_finished_by_the_next(server: SecretManagerServer, cloud: Run, tmp_path: Path) -> None:
    made(cloud, tmp_path)
    server.fail("DeleteSecret", secret="daskpki_lab_secret_db-password", status="PERMISSION_DENIED", times=1)
    cloud("delete-cluster", "--confirm", "lab", "--wait", "0", code=5)
    assert {"trust", "records", "cakey_1", "secret_db-password"} <= kinds(server)  # so that it could still publish
    cloud("delete-cluster", "--confirm", "lab", "--wait", "0")
    assert kinds(server) == {"trust", "records", "events"}


@pytest.mark.parametrize(("typed", "deleted"), [("lab", True), ("default", False), ("", False)])
def test_on_a_terminal_the_name_has_to_be_typed(
    server: SecretManagerServer, cloud: Run, tmp_path: Path, typed: str, *, deleted: bool
) -> None:
    made(cloud, tmp_path)
    words = ["-m", "daskpki", f"--store={CLOUD}", "--cluster=lab", "delete-cluster", "--wait=0"]
    child = pexpect.spawn(sys.executable, words, env=os.environ, timeout=60, encoding="utf-8", dimensions=(100, 300))
    child.expect("among them your secrets: db-password")
    child.expect(r"Type the cluster's name to delete it \(lab\): ")
    child.sendline(typed)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == (0 if deleted else 2)
    assert ("cakey_1" not in kinds(server)) == deleted
    assert deleted or "that is not the cluster's name, so nothing was deleted" in str(child.before)


def test_of_two_clusters_in_a_local_store_one_stays(local: Run, tmp_path: Path) -> None:
    made(local, tmp_path)
    local("--cluster", "other", "init-ca", "--with", "worker")
    done = local("delete-cluster", "--confirm", "default", "--wait", "0")
    assert "daskpki backup FILE keeps a copy" in done.err
    assert {entry["state"] for entry in local("list", "--json").json()} == {"revoked"}
    assert local("export", "worker/worker", "--out", str(tmp_path / "out"), code=4).code == 4
    assert local("--cluster", "other", "export", "worker/worker", "--out", str(tmp_path / "out")).code == 0
