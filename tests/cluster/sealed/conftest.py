"""A sealed cluster of real processes, and stock clients of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import Client

from daskpki.identity import Role
from tests.support.cluster_material import Authority, stock_security
from tests.support.nodes import Cluster, cluster

SECONDS = 12
LIMITS = f"helpers=2,seconds={SECONDS},wait=30,memory=3072,reply=64,tasks=20000"


@pytest.fixture(scope="package")
def sealed(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("sealed")
    with cluster(authority, directory, "allow", nworkers=2, code="sealed", limits=LIMITS) as running:
        yield running


@pytest.fixture
def connect(authority: Authority, sealed: Cluster, tmp_path: Path) -> Iterator[Callable[[str], Client]]:
    """A stock client of the sealed cluster under a certificate of that name."""
    clients: list[Client] = []

    def dial(name: str) -> Client:
        security = stock_security(authority, authority.leaf(Role.CLIENT, name), tmp_path / name)
        clients.append(Client(sealed.address, security=security, set_as_default=False))
        return clients[-1]

    yield dial
    for client in clients:
        client.close()
