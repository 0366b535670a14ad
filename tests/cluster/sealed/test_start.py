"""A scheduler that is to be sealed and cannot be does not start, and says why."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from daskpki.cluster.sealed import selftest
from daskpki.cluster.sealed.helper_pool import Helpers, Limits
from daskpki.errors import NotTrustedError
from daskpki.identity import Role
from tests.support.cluster_material import Authority
from tests.support.nodes import Cluster, Node

pytestmark = pytest.mark.cluster


@pytest.fixture
def sealing(authority: Authority, tmp_path: Path) -> Iterator[Cluster]:
    starting = Cluster(authority, tmp_path, "limited", code="sealed")
    yield starting
    starting.stop()


def start(sealing: Cluster) -> Node:
    scheduler = ("scheduler", "--host", "tls://127.0.0.1", "--port", "0", *sealing.preloaded)
    return sealing.start(Role.SCHEDULER, *scheduler)


@pytest.mark.long
@pytest.mark.every_version
def test_a_changed_distributed_is_refused_with_the_versions_that_were_tested(sealing: Cluster) -> None:
    sealing.preloaded = ("--preload", "tests.support.changed_distributed")
    node = start(sealing)
    assert node.exit_code() == NotTrustedError.exit_code
    assert f"a scheduler cannot be sealed with distributed {version('distributed')}: _task_to_msg does not" in node.log
    assert "tested with distributed 2026.1.0" in node.log


def test_a_helper_that_cannot_work_is_no_reason_to_go_on_unsealed(sealing: Cluster) -> None:
    """Dask logs what a preload raises, and goes on."""
    sealing.limits = "memory=1"
    node = start(sealing)
    assert node.exit_code() == 1
    assert "refused to start" in node.log


@pytest.mark.long
def test_limits_that_are_none_end_the_start(sealing: Cluster) -> None:
    sealing.limits = "cores=4"
    node = start(sealing)
    assert node.exit_code() == 2
    assert "'cores=4' is not a limit" in node.log


@pytest.mark.every_version
def test_without_the_hook_nothing_is_held() -> None:
    """In this process, which unpickles."""
    helpers = Helpers(Limits(helpers=1))
    try:
        with pytest.raises(NotTrustedError, match="the audit hook did not refuse a pickle"):
            selftest.verify_holds(helpers, selftest.canary_graph())
    finally:
        helpers.end()
