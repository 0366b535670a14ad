"""Whose an address is, what goes with a worker that is gone, and that a peer's words are kept short."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, NannyPlugin, Scheduler, Security, Worker
from distributed.comm.core import Comm, CommClosedError, connect, listen

from daskpki.cluster import comm as comm_module
from daskpki.cluster.audit import REFUSED
from daskpki.cluster.policy import Channel, WorkerClients
from daskpki.cluster.security import PkiSecurity, client_security
from daskpki.cluster.trust_updates import TrustManager
from daskpki.identity import Role
from tests.support.attacks import registration
from tests.support.cluster_material import Authority, Leaf, stock_security
from tests.support.ports import free_port
from tests.support.rogue import dial

pytestmark = pytest.mark.cluster


class Site:
    """A scheduler of this process, and who comes to it."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority()
        self.directory = directory
        document = self.authority.document()
        self.enforcement = self.authority.enforcement(self.authority.leaf(Role.SCHEDULER), WorkerClients.DENY)
        self.enforcement.manager = self.manager = TrustManager(self.enforcement, document)
        self.thief = self.authority.leaf(Role.WORKER, "thief")

    def stock(self, leaf: Leaf) -> Security:
        return stock_security(self.authority, leaf, self.directory / leaf.identity.name)

    def honest(self) -> PkiSecurity:
        leaf = self.authority.leaf(Role.WORKER, "honest")
        enforcement = self.authority.enforcement(leaf, WorkerClients.DENY)
        return PkiSecurity({Role.WORKER: enforcement, Role.CLIENT: enforcement})

    def alice(self) -> PkiSecurity:
        return client_security(self.authority.leaf(Role.CLIENT, "alice").credential, self.authority.document())

    def refused(self) -> list[str]:
        return [event.detail for event in self.enforcement.audit.latest if event.kind == REFUSED]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Scheduler]:
        security = PkiSecurity({Role.SCHEDULER: self.enforcement})
        async with Scheduler(
            security=security, host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0"
        ) as scheduler:
            yield scheduler

    @asynccontextmanager
    async def client(self, scheduler: Scheduler) -> AsyncIterator[Client]:
        security = self.alice()
        async with Client(scheduler.address, security=security, asynchronous=True, set_as_default=False) as client:
            yield client


async def say(scheduler: Scheduler, security: Security, message: dict[str, Any]) -> tuple[Comm, Any]:
    comm = await dial(scheduler.address, security)
    await comm.write(message)
    return comm, await asyncio.wait_for(comm.read(), 10)


async def ended(comm: Comm) -> None:
    """Until the scheduler has closed the connection; TimeoutError."""
    with contextlib.suppress(CommClosedError):
        while True:
            await asyncio.wait_for(comm.read(), 10)


def test_who_registers_anothers_address_first_does_not_keep_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        here, port = Site(tmp_path), free_port()
        address = f"tls://127.0.0.1:{port}"
        async with here.running() as scheduler:
            impostor, welcome = await say(scheduler, here.stock(here.thief), registration(address))
            assert welcome["status"] == "OK"
            async with Worker(scheduler.address, security=here.honest(), host="127.0.0.1", port=port) as worker:
                await ended(impostor)
                assert worker.address == address
                assert scheduler.workers[address].server_id == worker.id
                async with here.client(scheduler) as client:
                    assert await client.submit(sum, [1, 2]) == 3
                assert f"it registered {address}, where {worker_uri(here)} answers" in here.refused()

    asyncio.run(scenario())


def test_who_registers_anothers_nanny_first_does_not_keep_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        here, port = Site(tmp_path), free_port()
        address = f"tls://127.0.0.1:{port}"
        async with here.running() as scheduler, nanny_at(here, address):
            first = registration("tls://127.0.0.1:9", nanny=address)
            impostor, welcome = await say(scheduler, here.stock(here.thief), first)
            assert welcome["status"] == "OK"
            honest = here.authority.leaf(Role.WORKER, "honest")
            claim = registration("tls://127.0.0.1:10", nanny=address) | {"server_id": "Worker-honest"}
            comm, welcome = await say(scheduler, here.stock(honest), claim)
            assert welcome["status"] == "OK"
            await ended(impostor)
            assert "tls://127.0.0.1:9" not in scheduler.workers
            comm.abort()

    asyncio.run(scenario())


def worker_uri(here: Site) -> str:
    return f"spiffe://{here.authority.trust_domain}/worker/honest"


@asynccontextmanager
async def nanny_at(here: Site, address: str) -> AsyncIterator[None]:
    async def serve(comm: Comm) -> None:
        await asyncio.sleep(0)
        comm.abort()

    async with listen(address, serve, **here.honest().get_listen_args("worker"), daskpki_server="Nanny"):
        yield


@pytest.mark.parametrize("contested", ["address", "nanny"])
def test_who_does_not_answer_there_does_not_get_it(contested: str, tmp_path: Path) -> None:
    """The control: the owner stays, and is not cut."""

    async def scenario() -> None:
        here = Site(tmp_path)
        async with (
            here.running() as scheduler,
            Worker(scheduler.address, security=here.honest(), host="127.0.0.1") as worker,
        ):
            claim = registration(worker.address if contested == "address" else "tls://127.0.0.1:9")
            if contested == "nanny":
                here.enforcement.registrations.register(
                    Channel.WORKER_STREAM, "tls://127.0.0.1:11", worker_identity(here), here
                )
                claim |= {"nanny": "tls://127.0.0.1:11"}
            comm, reply = await say(scheduler, here.stock(here.thief), claim)
            assert "is not the caller's own" in reply["message"]
            comm.abort()
            async with here.client(scheduler) as client:
                assert await client.submit(sum, [1, 2]) == 3
            assert scheduler.workers[worker.address].server_id == worker.id

    asyncio.run(scenario())


def worker_identity(here: Site) -> Any:
    return here.authority.leaf(Role.WORKER, "honest").identity


def test_a_worker_has_no_server_id_of_anothers(tmp_path: Path) -> None:
    """Dask takes two workers with one id for the same: what the one loses, the other does."""

    async def scenario() -> None:
        here = Site(tmp_path)
        async with here.running() as scheduler, Worker(scheduler.address, security=here.honest()) as worker:
            claim = registration("tls://127.0.0.1:9") | {"server_id": worker.id}
            comm, reply = await say(scheduler, here.stock(here.thief), claim)
            assert "is another worker's" in reply["message"]
            comm.abort()

    asyncio.run(scenario())


def test_a_dial_finds_the_owner_or_ends(tmp_path: Path) -> None:
    """Who registered an address where another answers learns nothing of what is said there, and nor does the other."""

    async def scenario() -> None:
        here, stream = Site(tmp_path), Channel.WORKER_STREAM
        registrations, thief = here.enforcement.registrations, here.thief.identity
        async with here.running() as scheduler, Worker(scheduler.address, security=here.honest()) as worker:
            (await scheduler.rpc.connect(worker.address)).abort()
            for holder in registrations.holders(stream, worker.address):
                registrations.release(holder)
            registrations.register(stream, worker.address, thief, here)
            with pytest.raises(OSError, match=r"thief registered that address, and spiffe://\S+/honest answers there"):
                await scheduler.rpc.connect(worker.address)

    asyncio.run(scenario())


def test_what_a_registration_that_failed_left_goes_with_it(tmp_path: Path) -> None:
    """By a fault in Dask's own code, in the midst of it, since the rules leave a worker no way to cause one."""

    def broken(*_arguments: Any) -> None:
        raise ZeroDivisionError

    async def scenario() -> None:
        here = Site(tmp_path)
        async with here.running() as scheduler:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(scheduler, "check_idle_saturated", broken)
                comm = await dial(scheduler.address, here.stock(here.thief))
                await comm.write(registration("tls://127.0.0.1:9"))
                await ended(comm)
            await only_the_honest_one_works(here, scheduler)

    asyncio.run(scenario())


def test_what_a_revoked_worker_left_goes_with_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        here = Site(tmp_path)
        async with here.running() as scheduler:
            message = registration("tls://127.0.0.1:9", nanny="tls://127.0.0.1:10", name="thief")
            comm, welcome = await say(scheduler, here.stock(here.thief), message)
            assert welcome["status"] == "OK"
            here.authority.revoke(here.thief)
            assert here.manager.accept_trust(here.authority.signed(here.authority.document()))
            await ended(comm)
            await only_the_honest_one_works(here, scheduler)
            assert "thief" not in scheduler.aliases
            assert here.enforcement.registrations.owner(Channel.WORKER_STREAM, "tls://127.0.0.1:10") is None

    asyncio.run(scenario())


async def only_the_honest_one_works(here: Site, scheduler: Scheduler) -> None:
    async with Worker(scheduler.address, security=here.honest()) as worker, here.client(scheduler) as client:
        assert await client.submit(sum, [1, 2]) == 3
        assert set(scheduler.workers) == {worker.address}


def test_a_nanny_that_never_starts_does_not_keep_plugins_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm_module, "_NANNY_STARTS", 0.2)

    async def scenario() -> None:
        here = Site(tmp_path)
        async with here.running() as scheduler, here.client(scheduler) as client:
            message = {"op": "register_nanny", "address": "tls://127.0.0.1:9"}
            comm, reply = await say(scheduler, here.stock(here.thief), message)
            assert reply["status"] == "OK"
            plugin = client.register_plugin(Quiet())
            await asyncio.wait_for(plugin, 20)
            await ended(comm)
            assert any("its nanny has not started" in reason for reason in here.refused())

    asyncio.run(scenario())


class Quiet(NannyPlugin):
    """Does nothing."""

    name = "quiet"


LONG = 4_000_000


@pytest.mark.parametrize(
    "message",
    [
        {"op": "x" * LONG},
        {"op": b"x" * LONG},
        {"x": "x" * LONG},
        {"op": "identity", "x" * LONG: 1},
        {"op": "register-worker", "address": "x" * LONG},
        {"op": "heartbeat_worker", "address": ["x" * LONG]},
        ["x" * LONG],
        {"op": {"__Enum__": True, "__module__": "x" * LONG, "__name__": "x", "name": "x"}},
        {"op": {"__Enum__": True, "__module__": "distributed.core", "__name__": "x" * LONG, "name": "x"}},
    ],
    ids=lambda message: str(message)[:30],
)
def test_what_a_peer_sends_is_kept_and_told_in_short(
    message: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        here = Site(tmp_path)
        async with here.running() as scheduler:
            comm = await dial(scheduler.address, here.stock(here.thief))
            await comm.write(message)
            reply = await asyncio.wait_for(comm.read(), 10)
            assert len(json.dumps(reply, default=lambda value: str(getattr(value, "frames", value)))) < 20_000
            comm.abort()
            assert here.refused()
            assert max(len(json.dumps(event)) for event in here.enforcement.audit.latest) < 2000

    asyncio.run(scenario())
    assert max(len(record.getMessage()) for record in caplog.records) < 5000


@pytest.mark.parametrize("length", [1000, LONG])
def test_a_long_greeting_is_not_read(length: int, tmp_path: Path) -> None:
    async def scenario() -> bool:
        here = Site(tmp_path)
        async with here.running() as scheduler:
            arguments = here.stock(here.thief).get_connection_args("worker")
            greeting = {"x": "x" * length}
            try:
                comm = await connect(scheduler.address, timeout=3, handshake_overrides=greeting, **arguments)
                await comm.write({"op": "identity"})
                await asyncio.wait_for(comm.read(), 10)
            except OSError:
                return False
            comm.abort()
            return True

    assert asyncio.run(scenario()) == (length == 1000)
