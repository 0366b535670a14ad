"""Clusters of real processes, one for each mode and one of stock Dask, shared by all tests of this directory.

They end with the directory's last test: even idle, their processes would take much of a core from the tests after them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cluster_material import Authority, Leaf
from tests.support.nodes import Cluster, cluster


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="session")
def revoked(authority: Authority) -> Leaf:
    """A worker's leaf that was revoked before any cluster started."""
    return authority.revoked


@pytest.fixture(scope="package")
def limited(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(authority, tmp_path_factory.mktemp("limited"), "limited", nworkers=1) as running:
        yield running


@pytest.fixture(scope="package")
def deny(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(authority, tmp_path_factory.mktemp("deny"), "deny", nworkers=1) as running:
        yield running


@pytest.fixture(scope="package")
def allow(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(authority, tmp_path_factory.mktemp("allow"), "allow", nworkers=1) as running:
        yield running


@pytest.fixture(scope="package")
def stock(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The control: the same certificates under Dask's own mutual TLS."""
    with cluster(authority, tmp_path_factory.mktemp("stock"), None, nworkers=1) as running:
        yield running
