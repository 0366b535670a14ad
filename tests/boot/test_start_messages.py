"""What a node says while it starts: what it waits for, that it is ready, and in one line why it ended."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import distributed.comm
import pexpect
import psutil
import pytest
from distributed.batched import BatchedSend

from daskpki.cluster.node import port_is_taken, without_trace
from tests.boot.test_dask import free_port
from tests.support.boot_cloud import ENTRYPOINT, plain_environ

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
    child = pexpect.spawn(command, rest, env=environ, timeout=60, encoding="utf-8", dimensions=(100, 500))
    try:
        yield child
    finally:
        if child.isalive():
            child.kill(signal.SIGKILL)
        child.close(force=True)


@contextmanager
def plain_http(port: int) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", port), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


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
    worker = start("worker", patience="3s")
    worker.expect_exact(f"waiting for the scheduler at tls://127.0.0.1:{port}")
    code, lines = ended(worker)
    assert code == 75
    assert lines[-1].endswith(
        f"ended: Timed out trying to connect to tls://127.0.0.1:{port} after 3 s: Connection refused"
    )
    assert not [line for line in lines if "Traceback" in line or "waiting" in line]


def test_a_worker_whose_scheduler_speaks_no_tls_says_so_in_one_line(start: Start, port: int) -> None:
    with plain_http(port):
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


@pytest.mark.parametrize("as_on_a_node", [True, False])
def test_a_peer_that_leaves_costs_a_line_and_no_traceback(as_on_a_node: bool, caplog: pytest.LogCaptureFixture) -> None:  # noqa: FBT001
    """Dask's own log has one, which a person takes for an error when a node ends."""

    async def leave(comm: Any) -> None:
        comm.abort()

    async def scenario() -> None:
        comms: Any = distributed.comm
        async with comms.listen("tcp://127.0.0.1:0", leave) as listener:
            batched: Any = BatchedSend(interval="1 ms")  # type: ignore[no-untyped-call]
            batched.start(await comms.connect(listener.contact_address))
            batched.send(bytes(1 << 26))  # more than the kernel takes from a writer whom nobody reads
            await asyncio.wait_for(batched.stopped.wait(), 20)

    log = logging.getLogger("distributed.batched")
    if as_on_a_node:
        log.addFilter(without_trace)
    try:
        with caplog.at_level(logging.INFO, log.name):
            asyncio.run(scenario())
    finally:
        log.removeFilter(without_trace)
    (record,) = caplog.records
    assert record.message.startswith("Batched Comm Closed")
    assert bool(record.exc_info) is not as_on_a_node


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
    dask = ("-m", "dask", "scheduler", "--preload", "daskpki.boot.preload")
    child = pexpect.spawn(ENTRYPOINT[0], list(dask), env=environ, timeout=60, encoding="utf-8", dimensions=(100, 500))
    code, lines = ended(child)
    assert code == 3
    assert re.search(r"ended: the handover .* cannot be read: No such file or directory \(it lives as long", lines[-1])
    assert "Traceback" not in (said := "\n".join(lines)), said
