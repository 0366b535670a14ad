"""A stolen worker credential does not run code on the scheduler, by any way; on stock Dask each of them works."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.support.attacks import ATTACKS, aim
from tests.support.cluster_material import Authority
from tests.support.nodes import Cluster

pytestmark = pytest.mark.cluster


def appears(path: Path, within: float) -> bool:
    deadline = time.monotonic() + within
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return path.exists()


@pytest.mark.every_version
@pytest.mark.parametrize("name", ATTACKS)
def test_limited_mode_never_unpickles_for_a_worker(
    name: str, authority: Authority, limited: Cluster, tmp_path: Path
) -> None:
    target = aim(authority, limited, tmp_path)
    asyncio.run(ATTACKS[name](target))
    assert not target.proof.exists()


@pytest.mark.parametrize("name", ATTACKS)
def test_deny_mode_never_unpickles_for_a_worker(name: str, authority: Authority, deny: Cluster, tmp_path: Path) -> None:
    target = aim(authority, deny, tmp_path)
    asyncio.run(ATTACKS[name](target))
    assert not target.proof.exists()


@pytest.mark.every_version
@pytest.mark.parametrize("name", ATTACKS)
def test_control_stock_dask_unpickles(name: str, authority: Authority, stock: Cluster, tmp_path: Path) -> None:
    target = aim(authority, stock, tmp_path)
    asyncio.run(ATTACKS[name](target))
    assert appears(target.proof, 10)


def test_allow_mode_runs_a_workers_graph_on_the_scheduler(authority: Authority, allow: Cluster, tmp_path: Path) -> None:
    """What the mode is documented to mean."""
    target = aim(authority, allow, tmp_path)
    asyncio.run(ATTACKS["as_graph"](target))
    assert appears(target.proof, 10)
