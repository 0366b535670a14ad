"""SSHCluster: the hosts fetch their own credentials, and no key is in the command lines that ssh carries."""

from __future__ import annotations

from pathlib import Path

import dask.config
import pytest
from distributed import Client, SSHCluster

from daskpki.cluster.security import PkiSecurity
from daskpki.identity import Role
from daskpki.pki.credential import key_pem
from tests.support.key_search import Canary
from tests.support.material import Cluster
from tests.support.recipe import python_of
from tests.support.sshd import sshd

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("configuration")]


def test_hosts_boot_themselves_and_compute(
    alice: PkiSecurity, directories: dict[Role, Path], keys: Canary, tmp_path: Path
) -> None:
    with (
        sshd(tmp_path / "ssh") as connection,
        SSHCluster(
            ["127.0.0.1", "127.0.0.1"],
            connect_options=connection,
            remote_python=[python_of(role, directories) for role in (Role.SCHEDULER, Role.WORKER)],
            scheduler_options={"port": 0, "dashboard_address": "127.0.0.1:0"},
            worker_options={"nthreads": 1, "dashboard_address": "127.0.0.1:0"},
            security=alice,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(1, timeout=60)
        assert client.submit(sum, [20, 22]).result(timeout=30) == 42
        assert keys.in_processes() == []
        said = client.run(lambda dask_worker: repr(dask_worker.security), nanny=True)
        assert all("spiffe://lab.daskpki.internal/worker/worker" in text for text in said.values())


def test_stock_puts_keys_of_dasks_configuration_on_the_command_line(cluster: Cluster, keys: Canary) -> None:
    """The control: this string is what SSHCluster writes after `env DASK_INTERNAL_INHERIT_CONFIG=`."""
    key = key_pem(cluster.credentials["worker/worker"]).reveal().decode()
    with dask.config.set({"distributed.comm.tls.worker.key": key}):
        line = dask.config.serialize(dask.config.global_config)
    assert {finding.key for finding in keys.in_bytes("command line", line.encode())} == {"worker/worker"}
