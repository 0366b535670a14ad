"""Connections without a certificate: how long they may stand, how many, and what they cost everybody else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import ssl
import sys
import tracemalloc  # noqa: F401 - pytest loads it to report what a finalizer raised, and finds no descriptor for that
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, Scheduler
from distributed.comm.core import connect

from daskpki.cluster import trust_updates
from daskpki.cluster.audit import TURNED_AWAY, Event
from daskpki.cluster.backend import PkiListener
from daskpki.cluster.comm import PkiTLS
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.peer import parse_peer
from daskpki.cluster.pending import DEADLINE, PendingConnections, readable, usual_limit
from daskpki.cluster.policy import Dashboard
from daskpki.cluster.security import PkiSecurity, client_security
from daskpki.cluster.tls import load_key_pair
from daskpki.cluster.trust_updates import TrustManager
from daskpki.errors import UnavailableError
from daskpki.identity import Role
from tests.support.cluster_material import Authority, Leaf, stock_security
from tests.support.paths import SUPPORT
from tests.support.rogue import dial

pytestmark = pytest.mark.cluster

CROWD = SUPPORT / "crowd.py"


@asynccontextmanager
async def scheduler(authority: Authority) -> AsyncIterator[tuple[Scheduler, Enforcement, PendingConnections]]:
    leaf = authority.leaf(Role.SCHEDULER)
    ours = Enforcement(leaf.identity, leaf.pair, authority.trust(), dashboard=Dashboard.MTLS)
    security = PkiSecurity({Role.SCHEDULER: ours})
    async with Scheduler(port=0, host="127.0.0.1", security=security, dashboard_address="127.0.0.1:0") as running:
        (listener,) = running.listeners
        assert isinstance(listener, PkiListener)
        yield running, ours, listener._pending


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until it is so."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in this loop, without an event
            await asyncio.sleep(0.005)


async def silent(port: int, pending: PendingConnections) -> socket.socket:
    """A stranger who connects, and says nothing."""
    before = len(pending)
    stranger = socket.create_connection(("127.0.0.1", port))
    await until(lambda: len(pending) > before)
    return stranger


async def ended(stranger: socket.socket) -> bool:
    """Whether the other end closes; it never sends anything."""
    stranger.setblocking(False)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            return await asyncio.get_running_loop().sock_recv(stranger, 1) == b""
    return False


def test_a_silent_peer_is_waited_for_ten_seconds(authority: Authority) -> None:
    async def scenario() -> tuple[bool, bool, list[Event]]:
        async with scheduler(authority) as (running, ours, pending):
            pending._looking.stop()  # time is ours
            with await silent(running.port, pending) as stranger:
                for _ in range(DEADLINE - 1):
                    pending.look()
                before = await ended(stranger)
                pending.look()
                return before, await ended(stranger), await recorded(ours)

    before, after, (event,) = asyncio.run(scenario())
    assert (before, after) == (False, True)
    assert event.detail == "no TLS: no handshake within 10 s"


async def recorded(ours: Enforcement) -> list[Event]:
    await until(lambda: bool(ours.audit.latest))
    return list(ours.audit.latest)


def test_time_passes_by_itself(authority: Authority) -> None:
    async def scenario() -> int:
        async with scheduler(authority) as (running, _, pending):
            with await silent(running.port, pending):
                await until(lambda: max(pending._waited.values()) > 0)
                return len(pending)

    assert asyncio.run(scenario()) == 1


def test_a_peer_that_sent_something_is_not_charged_for_our_delay(authority: Authority) -> None:
    async def scenario() -> tuple[bool, bool]:
        async with scheduler(authority) as (running, _, pending):
            pending._looking.stop()
            with await silent(running.port, pending) as stranger:
                stranger.sendall(b"\x16")  # the beginning of a handshake
                for _ in range(3 * DEADLINE):  # without a turn of the event loop, which would have read it
                    pending.look()
                kept = not await ended(stranger)  # by now it is read, and the rest is waited for
                for _ in range(DEADLINE):
                    pending.look()
                return kept, await ended(stranger)

    assert asyncio.run(scenario()) == (True, True)


def test_a_trickle_does_not_prolong_it(authority: Authority) -> None:
    async def scenario() -> bool:
        async with scheduler(authority) as (running, _, pending):
            pending._looking.stop()
            with await silent(running.port, pending) as stranger:
                for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03":
                    stranger.sendall(bytes([byte]))
                    await until(lambda: not readable(pending._waited))
                    pending.look()
                return await ended(stranger)

    assert asyncio.run(scenario())


def test_when_it_is_full_the_longest_idle_one_goes(authority: Authority) -> None:
    async def scenario() -> tuple[list[bool], list[Event]]:
        async with scheduler(authority) as (running, ours, pending):
            pending.limit = 3
            strangers = [await silent(running.port, pending) for _ in range(3)]
            first = strangers[0].getsockname()
            strangers[0].sendall(b"\x16")  # so the second is idle for longest
            await until(lambda: next(iter(pending._waited)).socket.getpeername() != first)
            strangers.append(socket.create_connection(("127.0.0.1", running.port)))
            gone = [await ended(each) for each in strangers]
            for each in strangers:
                each.close()
            return gone, await recorded(ours)

    gone, (event, *_) = asyncio.run(scenario())
    assert gone == [False, True, False, False]
    assert event.detail == "no TLS: 3 connections waited at once, and this one was idle for longest"


@contextmanager
def descriptors(number: int) -> Iterator[None]:
    """This process may have so many."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def but_for(free: int) -> int:
    """The limit under which so many descriptors are left."""
    used = {int(each.name) for each in Path("/proc/self/fd").iterdir()}
    return next(islice((number for number in count() if number not in used), free, None))


@asynccontextmanager
async def crowd(
    authority: Authority, directory: Path, port: int, *, quiet: int, honest: int, leaf: Leaf | None = None
) -> AsyncIterator[Process]:
    """A process with so many connections that say nothing; told to go on, it makes the others, all at once."""
    files = authority.files(leaf or authority.leaf(Role.WORKER), directory)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, CROWD, str(port), str(quiet), str(honest), files.cert, files.key, files.ca),
        stdin=PIPE,
        stdout=PIPE,
    )
    try:
        assert await line(process) == "ready"
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def go_on(process: Process) -> str:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    return await line(process)


async def line(process: Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()


def test_a_thousand_honest_peers_get_in_at_once_past_a_thousand_silent_ones(
    authority: Authority, tmp_path: Path
) -> None:
    async def scenario() -> tuple[str, int]:
        async with (
            scheduler(authority) as (running, _, pending),
            crowd(authority, tmp_path, running.port, quiet=1100, honest=1000) as people,
        ):
            assert await go_on(people) == "silent 1100"
            return await go_on(people), len(pending)

    with descriptors(4096):
        assert usual_limit() == 1024
        answer, waiting = asyncio.run(scenario())
    assert answer == "in 1000"
    assert waiting <= 1024


def test_without_descriptors_newcomers_get_in_and_the_log_stays_short(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> str:
        async with (
            scheduler(authority) as (running, _, _pending),
            crowd(authority, tmp_path, running.port, quiet=200, honest=10) as people,
        ):
            with descriptors(but_for(30)):
                assert await go_on(people) == "silent 200"
                return await go_on(people)

    assert asyncio.run(scenario()) == "in 10"
    about = [each for each in caplog.records if "open files" in each.getMessage() or each.exc_info]
    assert 1 <= len([each for each in about if not is_of_dasks_monitor(each)]) <= 3


def is_of_dasks_monitor(record: logging.LogRecord) -> bool:
    """Twice a second it reads /proc, and tornado logs that it cannot."""
    error = record.exc_info and record.exc_info[1]
    return isinstance(error, OSError) and str(error.filename).startswith("/proc/")


def test_a_certificate_with_all_descriptors_keeps_nobody_out_and_least_of_all_its_revocation(
    authority: Authority, tmp_path: Path
) -> None:
    mallory = authority.leaf(Role.WORKER, "mallory")
    alice = client_security(authority.leaf(Role.CLIENT, "alice").credential, authority.document())
    arguments = alice.get_connection_args("client")

    async def scenario() -> None:
        async with (
            scheduler(authority) as (running, ours, _),
            crowd(authority, tmp_path, running.port, quiet=0, honest=300, leaf=mallory) as people,
        ):
            ours.manager = TrustManager(ours, authority.document())
            assert await go_on(people) == "silent 0"
            with descriptors(but_for(120)):
                await go_on(people)
                async with Client(running.address, security=alice, asynchronous=True, set_as_default=False) as client:
                    assert (await client.scheduler.identity())["type"] == "Scheduler"
                authority.revoke(mallory)
                newest = authority.document()
                assert (
                    await trust_updates.send_trust(running.address, arguments, authority.signed(newest)) == newest.epoch
                )
                await until(
                    lambda: not any(each.conversation.peer.serial == mallory.serial for each in ours.connections())
                )

    asyncio.run(scenario())


@pytest.mark.parametrize("free", range(2))
def test_without_descriptors_a_key_is_not_called_wrong(authority: Authority, free: int) -> None:
    context, pair = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), authority.leaf(Role.WORKER).pair
    with descriptors(but_for(free)), pytest.raises(UnavailableError, match="cannot be loaded now: Too many open files"):
        load_key_pair(context, pair)
    with descriptors(but_for(2)):
        load_key_pair(context, pair)


def test_without_descriptors_a_trust_document_is_put_off_and_not_refused(authority: Authority) -> None:
    """More refusals than a sender may have in a minute would keep its next one out."""
    sender = authority.leaf(Role.CLIENT, "admin")
    ours = authority.enforcement(authority.leaf(Role.SCHEDULER))
    manager = TrustManager(ours, authority.document())
    authority.revoke(authority.leaf(Role.WORKER))
    newest = authority.document()
    before, peer = manager.document, parse_peer(sender.credential.leaf)
    for _ in range(11):
        with descriptors(but_for(0)), pytest.raises(UnavailableError, match="cannot be loaded now"):
            manager.accept_trust(authority.signed(newest), sender=peer)
    assert manager.document == before
    assert manager.accept_trust(authority.signed(newest), sender=peer)
    assert manager.document == newest


def test_without_descriptors_a_dial_is_made_again(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    security = PkiSecurity({Role.WORKER: authority.enforcement(authority.leaf(Role.WORKER))})
    dask = logging.getLogger("distributed.comm.core")
    caplog.set_level(logging.DEBUG, logger=dask.name)

    async def scenario() -> list[str]:
        async with scheduler(authority) as (running, _, _pending):
            with contextlib.ExitStack() as none_left:
                none_left.enter_context(descriptors(but_for(0)))

                def some_left(record: logging.LogRecord) -> bool:
                    """From the first failure on."""
                    if record.msg.startswith("Could not connect"):
                        none_left.close()
                    return True

                dask.addFilter(some_left)
                try:
                    comm = await connect(running.address, **security.get_connection_args("worker"))
                finally:
                    dask.removeFilter(some_left)
            comm.abort()
            return [record.getMessage() for record in caplog.records if record.name == dask.name]

    assert any(each.startswith("Could not connect") for each in asyncio.run(scenario()))


def test_who_holds_the_last_descriptors_loses_some_though_nobody_dials(authority: Authority, tmp_path: Path) -> None:
    """Else the scheduler could neither ask its store who is revoked nor load a key."""
    security = stock_security(authority, authority.leaf(Role.WORKER, "mallory"), tmp_path)

    async def scenario() -> tuple[int, int]:
        async with scheduler(authority) as (running, ours, pending):
            pending._looking.stop()  # time is ours
            held = [await dial(running.address, security, "worker") for _ in range(20)]
            with descriptors(but_for(10)):
                pending.look()
            before = len(ours.connections())
            with descriptors(but_for(5)):
                pending.look()
            after = len(ours.connections())
            for comm in held:
                comm.abort()
            return before, after

    assert asyncio.run(scenario()) == (20, 4)


def test_streams_leave_the_last_descriptors_to_calls(authority: Authority, tmp_path: Path) -> None:
    """Registered peers are not turned out for others, so they do not get those."""
    security = stock_security(authority, authority.leaf(Role.CLIENT, "mallory"), tmp_path)

    async def scenario() -> None:
        async with scheduler(authority) as (running, ours, _):
            comm = await dial(running.address, security, "client")
            (accepted,) = ours.connections()
            assert isinstance(accepted, PkiTLS)
            assert accepted.stream is not None
            with descriptors(accepted.stream.socket.fileno() + 1):
                await comm.write({"op": "register-client", "client": "one", "versions": {}})
                (reply,) = await comm.read()
                assert "has few descriptors left" in reply["error"]
                await comm.write({"op": "identity"})
                assert (await comm.read())["type"] == "Scheduler"
            comm.abort()

    asyncio.run(scenario())


@pytest.mark.parametrize("where", ["scheduler", "dashboard"])
def test_nonsense_at_a_high_rate_is_counted_and_told_once(
    where: str, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def knock(port: int) -> None:
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", port), 20) as stranger, contextlib.suppress(OSError):
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                while stranger.recv(1 << 12):
                    pass

    async def scenario() -> int:
        async with scheduler(authority) as (running, ours, _):
            http: Any = running.http_server  # Dask gives it its port
            port = {"scheduler": running.port, "dashboard": http.port}[where]
            await asyncio.to_thread(knock, port)
            return ours.audit.counts[TURNED_AWAY]

    assert asyncio.run(scenario()) == 100
    told = [each for each in caplog.records if "HTTP_REQUEST" in each.getMessage() or "SSL" in each.getMessage()]
    assert len(told) == 1
