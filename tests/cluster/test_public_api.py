"""`daskpki.cluster_security` in a program of its own: a LocalCluster of processes that holds to roles."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import daskpki
from daskpki.errors import UsageError

pytestmark = pytest.mark.cluster

PROGRAM = """
import pickle, subprocess, sys, daskpki
from distributed import Client, LocalCluster

if __name__ == "__main__":
    security = daskpki.cluster_security("alice")
    try:
        pickle.dumps(security)
    except TypeError as error:
        print("not pickled:", error)
    options = dict(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", protocol="tls://")
    with LocalCluster(security=security, **options) as cluster, Client(cluster) as client:
        print(client.scheduler.address.partition(":")[0], client.submit(sum, [1, 2]).result(timeout=30))
        subprocess.run([sys.executable, "-m", "daskpki", "revoke", "worker/spare"], check=True)
        before = security.enforcements["scheduler"].trust.epoch
        cluster.sync(cluster.scheduler.periodic_callbacks["daskpki-poll"].callback)
        print("epochs:", security.enforcements["scheduler"].trust.epoch - before)
"""


def test_a_local_cluster_runs_on_credentials_from_the_store(tmp_path: Path) -> None:
    environ = os.environ | {"DASKPKI_HOME": str(tmp_path / "home"), "DASKPKI_KEY_FILE": str(tmp_path / "key")}
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], env=environ, capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-m", "daskpki", "init-ca", "--with", "scheduler,worker,worker/spare,client/alice")
    said = run(str(program))
    assert "not pickled: this Security holds private keys" in said
    assert "tls 3" in said
    assert "epochs: 1" in said  # it asked the store for the revocation


def test_an_unknown_value_is_refused_before_any_key_is_read() -> None:
    with pytest.raises(UsageError, match="dashboard='public' is none of loopback, mtls, off"):
        daskpki.cluster_security("alice", dashboard="public")
    with pytest.raises(UsageError, match="scheduler_code='open' is none of stock, sealed"):
        daskpki.cluster_security("alice", scheduler_code="open")
