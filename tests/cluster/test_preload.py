"""Whatever does not hold ends the process before it serves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from daskpki.handover import VARIABLE
from daskpki.identity import Role
from tests.support.cluster_material import Authority
from tests.support.nodes import PRELOADS, Cluster, Node, node_environment

pytestmark = pytest.mark.cluster

SCHEDULER = (
    "scheduler",
    "--host",
    "tls://127.0.0.1",
    "--port",
    "0",
    "--no-dashboard",
    "--dashboard-address",
    "127.0.0.1:0",
)


@pytest.fixture
def environ(authority: Authority, tmp_path: Path) -> dict[str, str]:
    return node_environment(authority, authority.leaf(Role.SCHEDULER), tmp_path, "limited")


def ended(node: Node) -> str:
    assert node.exit_code() != 0
    assert "Scheduler at" not in node.log
    return node.log


def test_without_a_handover(environ: dict[str, str]) -> None:
    del environ[VARIABLE]
    assert "DASKPKI_HANDOVER is not set" in ended(Node([*SCHEDULER, *PRELOADS[Role.SCHEDULER]], environ))


@pytest.mark.long
def test_with_a_handover_that_is_gone(environ: dict[str, str]) -> None:
    environ[VARIABLE] = "/proc/1/fd/999999"
    assert "cannot be read" in ended(Node([*SCHEDULER, *PRELOADS[Role.SCHEDULER]], environ))


def test_with_a_handover_that_was_changed(environ: dict[str, str]) -> None:
    path = Path(environ[VARIABLE])
    path.write_text(path.read_text().replace('"default"', '"other"', 1))
    assert "is of cluster default, not of other" in ended(Node([*SCHEDULER, *PRELOADS[Role.SCHEDULER]], environ))


@pytest.mark.long
def test_a_scheduler_with_a_workers_credential(authority: Authority, tmp_path: Path) -> None:
    environ = node_environment(authority, authority.leaf(Role.WORKER), tmp_path, "limited")
    assert ended(Node([*SCHEDULER, *PRELOADS[Role.SCHEDULER]], environ))


@pytest.mark.long
def test_a_scheduler_that_names_another_certificate_than_was_handed_over(
    authority: Authority, environ: dict[str, str], tmp_path: Path
) -> None:
    """Dask would listen with it under its own rules; the process ends before a message is read."""
    other = authority.files(authority.leaf(Role.SCHEDULER), tmp_path / "other")
    flags = ["--tls-ca-file", other.ca, "--tls-cert", other.cert, "--tls-key", other.key]
    node = Node([*SCHEDULER, *flags, *PRELOADS[Role.SCHEDULER]], environ)
    assert node.exit_code() == 3
    assert "listens at tls://" in node.log
    assert "without daskpki's rules" in node.log


def test_a_nanny_outside_the_rules(authority: Authority, limited: Cluster, tmp_path: Path) -> None:
    """Dask's command line ignores distributed.nanny.preload; the worker notices that nobody guards its nanny."""
    environ = node_environment(authority, authority.leaf(Role.WORKER), tmp_path, "limited")
    environ["DASK_DISTRIBUTED__WORKER__PRELOAD"] = "['daskpki.cluster.preload']"
    environ["DASK_DISTRIBUTED__NANNY__PRELOAD"] = "['daskpki.cluster.preload']"
    node = Node(["worker", limited.address, "--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"], environ)
    node.wait_for(re.compile("runs without daskpki's rules"))
    node.stop()
    assert "Registered to" not in node.log


def test_a_start_that_holds(limited: Cluster) -> None:
    """The control."""
    log = limited.scheduler.drain()
    assert "Scheduler at" in log
    assert "enforcing as scheduler/scheduler of default.daskpki.internal" in log
