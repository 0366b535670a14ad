"""A worker that is asked to end hands its data on first: real schedulers, workers and signals throughout."""

from __future__ import annotations

import operator
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from distributed.client import FutureCancelledError

from tests.support.boot_cloud import plain_environ
from tests.support.booted import child_of, compute, running
from tests.support.nightly import by_day, sample
from tests.support.retiring import PAYLOAD, Machine
from tests.support.sandbox import LOOPBACK_UP, OWN_MACHINE, OWN_PIDS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]

RETIRE = 20
"""Seconds, the default."""


@contextmanager
def machine(directory: Path, logs: Path) -> Iterator[Machine]:
    with ExitStack() as stack:
        yield Machine(directory, logs, stack)


def hold(mark: str, release: str) -> str:
    """A task that says where it began and runs until it is released."""
    Path(f"{mark}-{os.getpid()}").touch()
    while not Path(release).exists():
        time.sleep(0.02)
    return "done"


def wait_for(pattern: str, directory: Path) -> None:
    end = time.monotonic() + 60
    while not list(directory.glob(pattern)):
        assert time.monotonic() < end, f"{pattern} did not come"
        time.sleep(0.02)


WAYS = [
    pytest.param((), OWN_PIDS, id="nanny, PID 1"),
    pytest.param((), (), id="nanny"),
    pytest.param(("--no-nanny",), (), id="no nanny"),
    pytest.param(("--no-nanny",), OWN_PIDS, id="no nanny, PID 1"),
]


@pytest.mark.parametrize(("dask", "prefix"), sample(WAYS, one_of=4))
def test_nothing_is_lost_that_another_worker_can_take(
    directory: Path, tmp_path: Path, dask: tuple[str, ...], prefix: tuple[str, ...]
) -> None:
    """Scattered data, results, and tasks that wait and run: all of it arrives, and no task is counted as killed."""
    options, retire = by_day((("--retire", "6"), 6), night=((), RETIRE))
    with machine(directory, tmp_path) as here:
        first = here.worker("first", *dask, options=options, prefix=prefix)
        data = here.client.scatter(PAYLOAD, direct=False)
        results = here.client.map(operator.mul, range(200), range(200), pure=False)
        release = tmp_path / "release"
        held = here.client.submit(hold, str(tmp_path / "held"), str(release), retries=0)
        wait_for("held-*", tmp_path)
        here.worker("second")
        queued = here.client.map(operator.add, range(300), results[:1] * 300, pure=False)
        begin = time.monotonic()
        os.kill(child_of(first.pid) if prefix else first.pid, signal.SIGTERM)
        assert first.wait(retire + 10) == 0, here.log("first")
        took = time.monotonic() - begin
        release.touch()
        assert here.client.gather(data) == PAYLOAD
        assert here.client.gather(results) == [number * number for number in range(200)]
        assert here.client.gather(queued) == list(range(300))
        assert held.result(timeout=60) == "done"
        assert here.names() == {"second"}
        assert here.client.run_on_scheduler(times_blamed) == 0
        assert took < retire + 2, here.log("first")


def times_blamed(dask_scheduler: Any) -> int:
    return sum(int(task.suspicious) for task in dask_scheduler.tasks.values())


@pytest.mark.long
def test_without_it_the_same_data_is_lost(directory: Path, tmp_path: Path) -> None:
    with machine(directory, tmp_path) as here:
        first = here.worker("first", options=("--retire", "0"))
        data = here.client.scatter(PAYLOAD, direct=False)
        here.worker("second")
        first.terminate()
        assert first.wait(RETIRE) == 0
        with pytest.raises(FutureCancelledError):
            data.result(timeout=60)


@pytest.mark.long
def test_a_signal_to_the_whole_group_loses_nothing_either(directory: Path, tmp_path: Path) -> None:
    """As systemd and batch systems send it: the worker's own process gets it as well as its nanny's."""
    with machine(directory, tmp_path) as here:
        first = here.worker("first")
        data = here.client.scatter(PAYLOAD, direct=False)
        here.worker("second")
        os.killpg(first.pid, signal.SIGTERM)
        assert first.wait(RETIRE + 10) == 0, here.log("first")
        assert here.client.gather(data) == PAYLOAD
        assert here.names() == {"second"}
        assert "Restarting worker" not in here.log("first")


@pytest.mark.long
@pytest.mark.parametrize("dask", [(), ("--no-nanny",)], ids=lambda dask: dask[0] if dask else "nanny")
def test_a_scheduler_that_does_not_answer_is_waited_for_so_long_and_no_longer(
    directory: Path, tmp_path: Path, dask: tuple[str, ...]
) -> None:
    with machine(directory, tmp_path) as here:
        first = here.worker("first", *dask, options=("--retire", "4"))
        here.client.submit(hold, str(tmp_path / "held"), str(tmp_path / "release"))
        wait_for("held-*", tmp_path)
        here.scheduler.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        first.terminate()
        assert first.wait(60) == 0, here.log("first")
        took = time.monotonic() - begin
        here.scheduler.send_signal(signal.SIGCONT)
        assert "was not retired within 4 s: data that only it has is lost" in here.log("first")
        assert 4 <= took < 4 + 2, here.log("first")


@pytest.mark.long
def test_a_second_signal_ends_it_at_once(directory: Path, tmp_path: Path) -> None:
    with machine(directory, tmp_path) as here:
        first = here.worker("first", "--no-nanny", options=("--retire", "600"))
        here.scheduler.send_signal(signal.SIGSTOP)
        first.terminate()
        end = time.monotonic() + 60
        while "SIGTERM: retiring" not in here.log("first"):
            assert time.monotonic() < end
            time.sleep(0.02)
        first.terminate()
        assert first.wait(60) == 0, here.log("first")
        here.scheduler.send_signal(signal.SIGCONT)


@pytest.mark.long
def test_the_workers_of_a_node_leave_before_its_scheduler(directory: Path, tmp_path: Path) -> None:
    """With nobody else to take their data nothing is waited for."""
    environ = plain_environ(DASKPKI_CREDENTIAL_DIR=str(directory), NUM_WORKERS="2", THREADS_PER_WORKER="1")
    log = tmp_path / "node.log"
    with running(environ, log, "node", prefix=(*OWN_MACHINE, "sh", "-c", LOOPBACK_UP, "sh")) as outer:
        inside = ("nsenter", "--target", str(child_of(outer.pid)), "--net", "--mount", "--pid")
        assert "42" in compute(directory / "client", 8786, workers=2, prefix=inside)
        os.kill(child_of(outer.pid), signal.SIGTERM)
        assert outer.wait(RETIRE) == 0, log.read_text()
    said = log.read_text()
    assert said.count("SIGTERM: retiring tls://") == 2
    assert said.index("worker ended with status 0") < said.index("scheduler ended with status 0")
