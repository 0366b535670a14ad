"""A cloud in this process (Secret Manager, metadata server, a cluster's secrets), and credential directories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.boot_cloud import Cloud, serve_cloud
from tests.support.material import Cluster, make_cluster


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return make_cluster()


@pytest.fixture
def cloud(cluster: Cluster) -> Iterator[Cloud]:
    with serve_cloud(cluster) as cloud:
        yield cloud


@pytest.fixture
def directory(cluster: Cluster, tmp_path: Path) -> Path:
    """A credential directory below it for each of scheduler, worker and client."""
    for role, slug in (("scheduler", "scheduler/scheduler"), ("worker", "worker/worker"), ("client", "client/alice")):
        cluster.export(slug, tmp_path / "credentials" / role)
    return tmp_path / "credentials"
