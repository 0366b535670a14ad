"""Nothing that a client or worker pickled is opened in a sealed scheduler; in the control, nearly all of it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from daskpki.identity import Role
from tests.support.attacks import ATTACKS, aim
from tests.support.canaries import FAMILIES, Aim, sang
from tests.support.cluster_material import Authority, stock_security
from tests.support.layer import LAYER
from tests.support.nodes import Cluster

pytestmark = pytest.mark.cluster

ROLES = (Role.CLIENT, Role.WORKER)
CARRIED = {
    "decoder": ("greeting", "calls", "stream", "fields of graphs"),  # what comes as a pickled frame
    "handlers": ("bytes", "graph"),  # what the handlers open
    "hook": tuple(FAMILIES),
}
"""The families of canaries that each layer holds alone."""


def release(authority: Authority, cluster: Cluster, role: Role, family: str, directory: Path) -> set[str]:
    """The places in which that family sang in the scheduler's own process."""
    nest = directory / "nest"
    nest.mkdir(exist_ok=True)
    security = stock_security(authority, authority.leaf(role, "mallory"), directory / role.value)
    asyncio.run(FAMILIES[family](Aim(cluster.address, security, role, nest)))
    return sang(nest, cluster.scheduler.process.pid)


SAMPLE = {"bytes", "graph", "fields of graphs"}
"""Those that run with each older distributed."""
EACH = [pytest.param(each, marks=[pytest.mark.every_version] if each in SAMPLE else []) for each in FAMILIES]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("family", EACH)
def test_a_sealed_scheduler_opens_none(
    role: Role, family: str, authority: Authority, sealed: Cluster, tmp_path: Path
) -> None:
    assert release(authority, sealed, role, family, tmp_path) == set()
    assert sealed.scheduler.process.poll() is None


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_that_a_stolen_workers_certificate_sends_is_opened(
    attack: str, authority: Authority, sealed: Cluster, tmp_path: Path
) -> None:
    """Also on a worker's stream, in its answers and in its nanny's; the control is in `test_code_execution`."""
    target = aim(authority, sealed, tmp_path)
    asyncio.run(ATTACKS[attack](target))
    assert not target.proof.exists()
    assert sealed.scheduler.process.poll() is None


@pytest.mark.parametrize("family", FAMILIES)
def test_control_stock_dask_opens_them(family: str, authority: Authority, stock: Cluster, tmp_path: Path) -> None:
    assert release(authority, stock, Role.CLIENT, family, tmp_path)


@pytest.fixture(scope="module", params=list(CARRIED))
def one_layer(
    request: pytest.FixtureRequest, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Cluster]]:
    running = Cluster(authority, tmp_path_factory.mktemp(request.param), "allow")
    running.preloaded = ("--preload", "tests.support.layer")
    running.variables = {LAYER: request.param}
    try:
        running.begin(1)
        yield request.param, running
    finally:
        running.stop()


@pytest.mark.long
def test_each_layer_holds_alone(one_layer: tuple[str, Cluster], authority: Authority, tmp_path: Path) -> None:
    layer, cluster = one_layer
    for family in CARRIED[layer]:
        assert release(authority, cluster, Role.CLIENT, family, tmp_path) == set(), family
