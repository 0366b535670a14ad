"""Each argument of each operation that a worker may call, with values that no worker sends: nobody else is hurt by it.

A scheduler, a worker and a client of this process hold to the rules; the thief is stock Dask's comm under another
worker's certificate. After each value the client has a task run, and after each operation a new client and a new worker
come. The messages are made from the tables, so that an operation added there is tried here. Each argument gets each
value in long runs, and a quarter of the values by day: not the same quarter as its neighbour, so each value is tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from distributed import Client, Scheduler, Security, SpecCluster, Worker, WorkerPlugin
from distributed.comm.core import Comm
from distributed.core import Status
from distributed.protocol.serialize import Serialized, ToPickle, to_serialize
from distributed.versions import get_versions

from daskpki.cluster import operations as ops
from daskpki.cluster.policy import WorkerClients
from daskpki.cluster.security import PkiSecurity, client_security
from daskpki.cluster.values import KINDS
from daskpki.identity import Role
from tests.support.attacks import METRICS, registration
from tests.support.cluster_material import Authority, stock_security
from tests.support.nightly import by_day
from tests.support.rogue import dial
from tests.support.tasks import nested

pytestmark = pytest.mark.cluster

ABSENT = object()
INLINE = {"__Serialized__": True, "data": [5, 7]}
UNKNOWN = Serialized({"serializer": "no such", "num-sub-frames": 0}, [b"x"])
HOSTILE: list[Any] = [
    *(ABSENT, None, True, -1, 0, 5, 2**63, math.nan, math.inf, -math.inf, 1e308),
    *("", "x" * 10_000, b"\xff" * 10_000, [], ["a", "a"], [[1], {}], {}, {"a": 1}, {1: 2}, {"": math.nan}),
    *(nested(900), {"a": nested(900)}, INLINE, [INLINE, {"a": INLINE}], UNKNOWN, ToPickle(5)),
]
VALID: dict[str, Any] = {
    "bytes": b"x",
    "count": 1,
    "data": {"a": [1, "b"]},
    "durations": {"k": 1.0},
    "error": to_serialize(b"\x80\x05N."),
    "extensions": {},
    "extra": {"own": 1},
    "flag": False,
    "flag-or-count": False,
    "integer": 1,
    "key": "k",
    "keys": ["k"],
    "long-text": "text",
    "mapping": {},
    "metrics": METRICS,
    "name": "name",
    "names": ["name"],
    "number": 1.0,
    "ports": {},
    "positive": 1,
    "resources": {"GPU": 1.0},
    "startstops": [{"action": "compute", "start": 1.0, "stop": 2.0}],
    "status": "paused",
    "text": "text",
    "texts": [],
    "threads": 1,
    "timeout": 0.01,
    "topic": "topic",
    "versions": get_versions(),
    "worker-name": "thief",
}
PORTS = itertools.count(1)
EACH_OF = by_day(24, night=1)
"""Of so many hostile values in a row, an argument gets one."""


class Site(NamedTuple):
    """Who holds to the rules, and who does not."""

    scheduler: Scheduler
    worker: Worker
    client: Client
    security: PkiSecurity
    thief: Security

    async def is_well(self) -> None:
        """The client and the worker are those that they were, and work."""
        future = self.client.submit(abs, -3, pure=False, workers=[self.worker.address])
        assert await asyncio.wait_for(future, 20) == 3
        assert self.worker.address in self.scheduler.workers
        assert self.client.id in self.scheduler.clients

    async def takes_newcomers(self) -> None:
        options: dict[str, Any] = {"security": self.security, "set_as_default": False, "asynchronous": True}
        async with (
            Worker(self.scheduler.address, security=self.security, host="127.0.0.1", nthreads=1) as worker,
            Client(self.scheduler.address, **options) as client,
        ):
            future = client.submit(abs, -4, pure=False, workers=[worker.address])
            assert await asyncio.wait_for(future, 20) == 4
            assert set(await client.scheduler.identity()) >= {"workers"}
            repr(client)


@asynccontextmanager
async def site(mode: WorkerClients, directory: Path) -> AsyncIterator[Site]:
    authority = Authority()
    leaves = {role: authority.leaf(role) for role in (Role.SCHEDULER, Role.WORKER)}
    security = PkiSecurity({role: authority.enforcement(leaf, mode) for role, leaf in leaves.items()})
    alice = client_security(authority.leaf(Role.CLIENT, "alice").credential, authority.document())
    security.enforcements[Role.CLIENT] = alice.enforcement(Role.CLIENT)
    thief = stock_security(authority, authority.leaf(Role.WORKER, "thief"), directory)
    async with (
        Scheduler(security=security, host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0") as scheduler,
        Worker(scheduler.address, security=security, host="127.0.0.1", nthreads=1) as worker,
        Client(scheduler.address, security=alice, asynchronous=True, set_as_default=False) as client,
    ):
        client.subscribe_topic("topic", lambda _event: None)
        yield Site(scheduler, worker, client, security, thief)


def variants(operation: str, kinds: Mapping[str, str], address: str) -> Iterator[dict[str, Any]]:
    """The message, with one argument after the other hostile, and each of the metrics that Dask computes with."""
    base = {name: VALID[kind.removesuffix("?")] for name, kind in kinds.items()} | {"op": operation}
    if operation in ops.OWN_ADDRESS:
        base[ops.OWN_ADDRESS[operation]] = [address] if operation == "retire_workers" else address
    for name in ("worker", "nanny"):
        if name in base:
            base[name] = address
    if operation in ("register-worker", "register-client"):
        base |= {"server_id": f"Worker-{address}", "name": address} if operation == "register-worker" else {}
    for argument, value in hostile(operation, base):
        yield {name: each for name, each in (base | {argument: value}).items() if each is not ABSENT}
    if "metrics" in kinds:
        for metric, value in hostile(operation, METRICS):
            changed = {name: each for name, each in (METRICS | {metric: value}).items() if each is not ABSENT}
            yield base | {"metrics": changed}


def hostile(operation: str, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Each name with the values that are tried for it in this operation."""
    for number, name in enumerate(names, start=len(operation)):
        for value in HOSTILE[number % EACH_OF :: EACH_OF]:
            yield name, value


def fresh_address() -> str:
    return f"tls://127.0.0.2:{next(PORTS)}"


async def hear(comm: Comm, seconds: float) -> Any:
    with contextlib.suppress(TimeoutError, OSError):
        return await asyncio.wait_for(comm.read(), seconds)


async def registered(here: Site, address: str) -> Comm:
    comm = await dial(here.scheduler.address, here.thief)
    await comm.write(registration(address, name=address) | {"status": "running", "server_id": f"Worker-{address}"})
    assert (await asyncio.wait_for(comm.read(), 10))["status"] == "OK"
    return comm


CALLS = {**ops.SCHEDULER_FOR_WORKERS, **ops.SCHEDULER_FOR_WORKER_CLIENTS}


@pytest.mark.parametrize("operation", sorted(CALLS))
def test_calls(operation: str, tmp_path: Path) -> None:
    mode = WorkerClients.DENY if operation in ops.SCHEDULER_FOR_WORKERS else WorkerClients.LIMITED

    async def scenario() -> None:
        async with site(mode, tmp_path) as here:
            for message in variants(operation, CALLS[operation], fresh_address()):
                comm = await dial(here.scheduler.address, here.thief)
                with contextlib.suppress(OSError):  # what stock Dask cannot encode, it says at our end
                    await comm.write(message)
                    await hear(comm, 0.05)
                await here.is_well()
                comm.abort()
            await here.is_well()
            await here.takes_newcomers()

    asyncio.run(scenario())


STREAMED = [
    *((ops.WORKER_STREAM, operation) for operation in sorted(ops.WORKER_STREAM)),
    *((ops.WORKER_CLIENT_STREAM, operation) for operation in sorted(ops.WORKER_CLIENT_STREAM)),
]


@pytest.mark.parametrize(("table", "operation"), STREAMED, ids=[operation for _table, operation in STREAMED])
def test_streams(table: Mapping[str, Mapping[str, str]], operation: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site(WorkerClients.LIMITED, tmp_path) as here:
            address = fresh_address()
            for message in variants(operation, table[operation], address):
                if table is ops.WORKER_STREAM:
                    comm = await registered(here, address)
                    await report(here, comm, address, message)
                else:
                    comm = await dial(here.scheduler.address, here.thief)
                    await comm.write({"op": "register-client", "client": address, "versions": {}})
                    await comm.write([message | {"client": message.get("client", address)}])
                await here.is_well()
                comm.abort()
                await here.scheduler.remove_worker(address, stimulus_id="test", close=False)
            await here.takes_newcomers()

    asyncio.run(scenario())


async def report(here: Site, comm: Comm, address: str, message: dict[str, Any]) -> None:
    """Say it of a task that the thief has been given to compute, so that the scheduler does not pass over it."""
    bait = here.client.submit(abs, -5, pure=False, workers=[address])
    task: Mapping[str, Any] = {}
    while task.get("op") != "compute-task":
        task = next((each for each in await asyncio.wait_for(comm.read(), 10) if each["op"] == "compute-task"), {})
    real = {"key": task["key"], "run_id": task["run_id"]}
    changed = {
        name: real[name] if message.get(name) == VALID[kind] else message.get(name, ABSENT)
        for name, kind in (("key", "key"), ("run_id", "integer"))
        if name in message
    }
    with contextlib.suppress(OSError):
        await comm.write([message | changed])
    await here.is_well()
    bait.release()


class Plugged(WorkerPlugin):
    """Counts where it was set up."""

    name = "plugged"

    def setup(self, worker: Any) -> None:
        worker.startup_information["plugged"] = lambda _worker: {"at": [1, 2.5, None]}


METERS: dict[str, Any] = {
    "text": "busy",
    "nested": {"a": [1, {"b": math.nan}], 3: None},
    "numpy": np.int64(3),
    "infinite": math.inf,
    "enum": Status.running,
    "set": {1, 2},
    "too large": "x" * 2_000_000,
    "too many": list(range(20_000)),
}


def test_control_what_honest_workers_add_is_taken(tmp_path: Path) -> None:
    """A cluster of workers whose names are numbers, with metrics, resources, plugins and extra of their user's own."""

    async def scenario() -> None:
        async with site(WorkerClients.DENY, tmp_path) as here:
            metrics = {name: (lambda _worker, value=value: value) for name, value in METERS.items()}
            options: dict[str, Any] = {"nthreads": 1, "host": "127.0.0.1", "security": here.security}
            own = {"metrics": metrics, "resources": {"GPU": 2, "MEM": 1e9}, "startup_information": EXTRA}
            workers = {name: {"cls": Worker, "options": options | own} for name in range(2)}
            scheduler = {
                "cls": Scheduler,
                "options": {"security": here.security, "dashboard": False, "dashboard_address": ":0"},
            }
            async with (
                SpecCluster(workers, scheduler, security=here.security, asynchronous=True) as running,
                Client(running, security=here.security, asynchronous=True, set_as_default=False) as client,
            ):
                assert set(running.scheduler.aliases) == {0, 1}
                await client.register_plugin(Plugged())
                assert await client.submit(abs, -3, resources={"GPU": 1}) == 3
                await asyncio.gather(*(worker.heartbeat() for worker in running.workers.values()))
                for state in running.scheduler.workers.values():
                    assert state.metrics["text"] == "busy"
                    assert state.metrics["numpy"] == 3
                    assert state.metrics["too large"] == "<a str, too large>"
                    assert state.metrics["too many"] == "<a list, too large>"
                    assert set(METERS) <= set(state.metrics)
                    assert state.extra["site"] == {"rack": 7}
                    assert state.resources == {"GPU": 2, "MEM": 1e9}
                running.scale(1)
                await running
                assert await client.submit(abs, -4) == 4

    asyncio.run(scenario())


EXTRA: dict[str, Any] = {"site": lambda _worker: {"rack": 7}}


def test_every_hostile_value_is_tried() -> None:
    tried = [value for operation, kinds in CALLS.items() for _name, value in hostile(operation, kinds)]
    assert all(any(value is each for each in tried) for value in HOSTILE)


def test_every_kind_is_tried_with_a_value_that_fits() -> None:
    used = {
        kind
        for table in (CALLS, ops.WORKER_STREAM, ops.WORKER_CLIENT_STREAM)
        for kinds in table.values()
        for kind in kinds.values()
    }
    checked = set(KINDS) - {"anything"}  # a sealed scheduler keeps that opaque: the canaries of tests/cluster/sealed
    assert {kind.removesuffix("?") for kind in used} == checked == set(VALID)
    assert [kind for kind, value in VALID.items() if not KINDS[kind](value)] == []
