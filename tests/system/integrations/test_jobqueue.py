"""dask-jobqueue: jobs fetch the worker's credential, and the job script holds nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dask_jobqueue.local import LocalCluster
from distributed import Client

from daskpki.cluster.local_cluster import LocalSecurity
from daskpki.identity import Role
from tests.support.key_search import Canary
from tests.support.recipe import python_of

pytestmark = pytest.mark.cluster


def where_it_listens(dask_worker: Any) -> list[Any]:
    sockets = getattr(dask_worker.http_server, "_sockets", {}).values()
    return [repr(dask_worker.security), *(socket.getsockname()[0] for socket in sockets)]


def test_a_job_joins_through_the_recipe(
    everyone: LocalSecurity, directories: dict[Role, Path], keys: Canary, tmp_path: Path
) -> None:
    with (
        LocalCluster(
            cores=1,
            memory="1GB",
            processes=1,
            local_directory=str(tmp_path / "scratch"),
            security=everyone,
            scheduler_options={"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"},
            python=python_of(Role.WORKER, directories),
        ) as cluster,
        Client(cluster) as client,
    ):
        assert "--tls-" not in cluster.job_script()
        assert "None" not in cluster.job_script()
        cluster.scale(jobs=1)
        client.wait_for_workers(1, timeout=60)
        assert client.submit(sum, [20, 22]).result(timeout=30) == 42
        ((security, *addresses),) = client.run(where_it_listens).values()
        assert "spiffe://lab.daskpki.internal/worker/worker" in security
        assert addresses == ["127.0.0.1"]
        (nannys,) = client.run(lambda dask_worker: repr(dask_worker.security), nanny=True).values()
        assert nannys == security
        assert keys.in_processes() == []
