"""What a node says while it starts: what it waits for, that it is ready, and in one line why it ended."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import distributed.comm
import pexpect
import psutil
import pytest
from distributed import Scheduler, Worker
from distributed.batched import BatchedSend

from daskpki.cluster.node import port_is_taken, without_trace
from tests.support.boot_cloud import ENTRYPOINT, plain_environ
from tests.support.listeners import listening
from tests.support.ports import free_port

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

Start = Callable[..., "pexpect.spawn[str]"]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def start(directory: Path, port: int) -> Iterator[Start]:
    """Starts `daskpki-entrypoint ROLE` on a terminal of its own, for a scheduler at `port`."""
    with ExitStack() as stack:

        def begin(command: str, *dask: str, patience: str = "60s") -> pexpect.spawn[str]:
            environ = plain_environ(
                DASKPKI_CREDENTIAL_DIR=str(directory if command == "node" else directory / command),
                DASKPKI_SCHEDULER=f"tls://127.0.0.1:{port}",
                NUM_WORKERS="2",
                DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT=patience,
            )
            return stack.enter_context(_running(environ, command, "--", *dask, "--dashboard-address", "127.0.0.1:0"))

        yield begin


@contextmanager
def _running(environ: dict[str, str], *argv: str) -> Iterator[pexpect.spawn[str]]:
    command, *rest = [*ENTRYPOINT, *argv]
    environ = {"DASKPKI_DASHBOARD": "off", **environ}
    child = pexpect.spawn(command, rest, env=environ, timeout=60, encoding="utf-8", dimensions=(100, 500))
    try:
        yield child
    finally:
        if child.isalive():
            child.kill(signal.SIGKILL)
        child.close(force=True)


def speak_http(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")


def descendants(child: pexpect.spawn[str]) -> list[psutil.Process]:
    """A node's processes but its init: a scheduler, the nannies' process, two workers at least."""
    processes: list[psutil.Process] = psutil.Process(child.pid).children(recursive=True)
    assert len(processes) >= 4
    return processes


def states(processes: Iterable[psutil.Process]) -> set[str]:
    """What those do that are still there."""
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found.add(str(process.status()))
    return found


def ended(child: pexpect.spawn[str]) -> tuple[int | None, list[str]]:
    """The exit code, and the lines that the process said last."""
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus, str(child.before).splitlines()


def test_a_worker_says_what_it_waits_for_and_ends_in_one_line(start: Start, port: int) -> None:
    worker = start("worker", patience="1s")
    worker.expect_exact(f"waiting for the scheduler at tls://127.0.0.1:{port}")
    code, lines = ended(worker)
    assert code == 75
    assert lines[-1].endswith(
        f"ended: Timed out trying to connect to tls://127.0.0.1:{port} after 1 s: Connection refused"
    )
    assert not [line for line in lines if "Traceback" in line or "waiting" in line]


def test_a_worker_whose_scheduler_speaks_no_tls_says_so_in_one_line(start: Start, port: int) -> None:
    with listening(speak_http, port):
        code, lines = ended(start("worker"))
    assert code == 75
    assert re.search(
        rf"ended: the TLS handshake with tls://127\.0\.0\.1:{port} failed: .*wrong version number", lines[-1]
    )
    assert lines[-1].count("wrong version number") == 1


@pytest.mark.long
def test_a_worker_that_came_first_is_ready_once_its_scheduler_is_there(start: Start, port: int) -> None:
    worker = start("worker")
    worker.expect_exact("waiting for the scheduler")
    scheduler = start("scheduler", "--port", str(port))
    scheduler.expect(rf"ready at tls://\S+:{port}\s")
    worker.expect_exact(f"ready at tls://127.0.0.1:{port} (workers here: 2)")
    for child in (worker, scheduler):
        child.kill(signal.SIGTERM)
        assert not [line for line in ended(child)[1] if "ready at" in line]


def test_a_node_is_ready_once_its_workers_are(start: Start, port: int) -> None:
    node = start("node")
    node.expect_exact(f"ready at tls://127.0.0.1:{port} (workers here: 2)")
    assert "ready at" not in str(node.before)
    node.sendintr()
    lines = ended(node)[1]
    assert not [line for line in lines if "ready at" in line]
    assert "Traceback" not in (said := "\n".join(lines)), said
    assert lines[-1].startswith("daskpki-entrypoint: scheduler ended")


@pytest.mark.long
def test_ctrl_z_stops_a_node_with_all_its_processes(start: Start) -> None:
    node = start("node")
    node.expect_exact("ready at")
    whole = [psutil.Process(node.pid), *descendants(node)]
    node.sendcontrol("z")
    _reach(lambda: states(whole) == {psutil.STATUS_STOPPED})
    node.kill(signal.SIGCONT)
    _reach(lambda: psutil.STATUS_STOPPED not in states(whole))
    node.sendintr()
    assert "Traceback" not in (said := "\n".join(ended(node)[1])), said


@pytest.mark.long
def test_a_killed_node_leaves_nothing_behind(start: Start) -> None:
    node = start("node")
    node.expect_exact("ready at")
    programs = descendants(node)
    node.kill(signal.SIGKILL)
    _reach(lambda: states(programs) <= {psutil.STATUS_ZOMBIE})


def _reach(state: Callable[[], bool]) -> None:
    """Nothing announces a process's state."""
    limit = time.monotonic() + 20
    while not state():
        assert time.monotonic() < limit
        time.sleep(0.02)


async def _a_peer_leaves() -> None:
    async def leave(comm: Any) -> None:
        comm.abort()

    comms: Any = distributed.comm
    async with comms.listen("tcp://127.0.0.1:0", leave) as listener:
        batched: Any = BatchedSend(interval="1 ms")  # type: ignore[no-untyped-call]
        batched.start(await comms.connect(listener.contact_address))
        batched.send(bytes(1 << 26))  # more than the kernel takes from a writer whom nobody reads
        await asyncio.wait_for(batched.stopped.wait(), 20)


async def _a_heartbeat_is_cut_off() -> None:
    """As when a worker ends that dials its scheduler at this moment."""
    dialled = asyncio.Event()
    silent = await asyncio.start_server(lambda *_: dialled.set(), "127.0.0.1", 0)
    address = f"tcp://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    async with (
        silent,
        Scheduler(host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0") as scheduler,
        Worker(scheduler.address, nthreads=1, dashboard_address=None) as worker,
    ):
        worker.scheduler, its_own = worker.rpc(address), worker.scheduler
        heartbeat = asyncio.create_task(worker.heartbeat())
        await asyncio.wait_for(dialled.wait(), 20)
        worker.rpc.remove(address, reason="ConnectionPool closing.")
        await asyncio.wait_for(heartbeat, 20)
        worker.scheduler = its_own


@pytest.mark.parametrize("as_on_a_node", [True, False])
@pytest.mark.parametrize(
    ("name", "scenario", "message"),
    [
        ("distributed.batched", _a_peer_leaves, "Batched Comm Closed"),
        ("distributed.worker", _a_heartbeat_is_cut_off, "Failed to communicate with scheduler"),
    ],
)
def test_a_connection_that_ends_costs_a_line_and_no_traceback(
    as_on_a_node: bool,  # noqa: FBT001
    name: str,
    scenario: Callable[[], Coroutine[Any, Any, None]],
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Dask's own log has one, which a person takes for an error when a node ends."""
    log = logging.getLogger(name)
    if as_on_a_node:
        log.addFilter(without_trace)
    try:
        with caplog.at_level(logging.INFO, log.name):
            asyncio.run(scenario())
    finally:
        log.removeFilter(without_trace)
    (record,) = (record for record in caplog.records if record.message.startswith(message))
    assert bool(record.exc_info) is not as_on_a_node
    assert as_on_a_node is False or "\n" not in record.message


def test_what_a_task_logs_keeps_its_traceback() -> None:
    """Dask's documentation names this logger to tasks."""
    record = logging.LogRecord(
        "distributed.worker", logging.INFO, "task.py", 1, "it failed", (), (OSError, OSError(), None)
    )
    assert without_trace(record)
    assert record.exc_info


def test_a_second_scheduler_says_who_has_the_port(start: Start, port: int) -> None:
    first = start("scheduler", "--port", str(port))
    first.expect_exact("ready at")
    code, lines = ended(start("scheduler", "--port", str(port)))
    assert code == 75
    assert re.search(rf"ended: port {port} is taken by python\S*, process {first.pid} of user \w+: end", lines[-1])
    assert "Traceback" not in (said := "\n".join(lines)), said


def test_what_the_kernel_does_not_tell_is_left_out() -> None:
    assert (
        port_is_taken("tls://10.0.0.1:1", 1).strerror == "tls://10.0.0.1:1 is taken: end that, or choose another port"
    )


def test_a_refusal_ends_in_one_line_too(directory: Path) -> None:
    """Of a handover that is gone by the time at which Dask asks for it."""
    environ = plain_environ(DASKPKI_HANDOVER=str(directory / "gone"))
    dask = ("-m", "distributed.cli.dask_scheduler", "--preload", "daskpki.boot.preload")
    child = pexpect.spawn(ENTRYPOINT[0], list(dask), env=environ, timeout=60, encoding="utf-8", dimensions=(100, 500))
    code, lines = ended(child)
    assert code == 3
    said = r"ended: the handover .* cannot be read: No such file or directory \(daskpki-entrypoint makes it"
    assert re.search(said, lines[-1])
    assert "Traceback" not in "\n".join(lines), lines
