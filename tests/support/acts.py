"""What whoever reaches a server may try there: one act for each class of operation, by stock Dask's protocol code.

An act answers `yes` when the server let it through to Dask, `no` when it was refused by name, or one word for why the
connection was not admitted. Acts that run code leave a directory behind, and are judged by that alone.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from distributed import Security
from distributed.comm.core import Comm
from distributed.protocol.serialize import Serialized, ToPickle, serialize

from tests.support.attacks import METRICS, Evidence, registration
from tests.support.nodes import Cluster
from tests.support.rogue import call, dial, error_in

YES, NO = "yes", "no"
TURNED_AWAY = {
    "has the role": "role",
    "is not the worker of this nanny": "own",
    "is not of trust domain": "domain",
    "is revoked": "revoked",
    "URI names instead of one": "identity",
    "is not a role": "identity",
    "is a CA's, not a leaf": "purpose",
    "its extended key usage lacks": "purpose",
}
_PORTS = itertools.count(1)


class Visit(NamedTuple):
    """Who comes where, and the directory that code leaves behind when it runs."""

    cluster: Cluster
    security: Security
    proof: Path

    def at(self, server: str) -> str:
        return {"scheduler": self.cluster.address, "worker": self.cluster.worker, "nanny": self.cluster.nanny}[server]

    @property
    def pickled(self) -> bytes:
        return pickle.dumps(Evidence(self.proof))

    @asynccontextmanager
    async def registered(self, message: dict[str, Any]) -> AsyncIterator[tuple[Comm, Any]]:
        """A connection on which that was said, and the answer to it."""
        comm = await dial(self.cluster.address, self.security)
        try:
            await comm.write(message)
            yield comm, await _next(comm)
        finally:
            comm.abort()

    @asynccontextmanager
    async def as_worker(self) -> AsyncIterator[tuple[Comm, bool]]:
        async with self.registered(registration(f"tls://127.0.0.2:{next(_PORTS)}")) as (comm, reply):
            yield comm, reply["status"] == "OK"

    @asynccontextmanager
    async def as_client(self) -> AsyncIterator[tuple[Comm, bool]]:
        name = f"Client-visitor-{next(_PORTS)}"
        async with self.registered({"op": "register-client", "client": name, "versions": {}}) as (comm, reply):
            yield comm, not reply[0].get("error")


async def _next(comm: Comm) -> Any:
    return await asyncio.wait_for(comm.read(), 30)


Act = Callable[[Visit], Awaitable[str]]


async def outcome(act: Act, visit: Visit) -> str:
    """What came of it, in one word."""
    try:
        return await act(visit)
    except TypeError as refusal:  # how stock Dask reads the frame that says why
        return next(word for text, word in TURNED_AWAY.items() if text in str(refusal))
    except OSError:
        return "tls"


def _answer(reply: Any) -> str:
    return NO if isinstance(reply, PermissionError) else YES


def _asks(server: str, operation: str, **arguments: Any) -> Act:
    async def act(visit: Visit) -> str:
        return _answer(await call(visit.at(server), visit.security, op=operation, **arguments))

    return act


def _runs(server: str, operation: str, arguments: Callable[[Visit], dict[str, Any]]) -> Act:
    async def act(visit: Visit) -> str:
        await call(visit.at(server), visit.security, op=operation, **arguments(visit))
        return YES if visit.proof.exists() else NO

    return act


def _mkdir(visit: Visit) -> dict[str, Any]:
    return {"function": pickle.dumps(os.mkdir), "args": pickle.dumps((str(visit.proof),))}


async def register_as_worker(visit: Visit) -> str:
    async with visit.as_worker() as (_comm, welcome):
        return YES if welcome else NO


async def register_as_client(visit: Visit) -> str:
    async with visit.as_client() as (_comm, welcome):
        return YES if welcome else NO


async def report_in_a_workers_stream(visit: Visit) -> str:
    async with visit.as_worker() as (comm, welcome):
        if not welcome:
            return NO
        await comm.write([{"op": "request-refresh-who-has", "keys": ["nothing"], "stimulus_id": "s"}])
        while "free-keys" not in {message["op"] for message in await _next(comm)}:
            pass
        return YES


async def report_in_a_clients_stream(visit: Visit) -> str:
    """What only workers report; a scheduler of stock Dask has one table for both."""
    async with visit.as_client() as (comm, welcome):
        if not welcome:
            return NO
        refusal = re.compile("'keep-alive' is refused")
        before = len(refusal.findall(visit.cluster.scheduler.drain()))
        await comm.write([{"op": "keep-alive"}, _graph(b"no pickle")])
        await _next(comm)  # the answer to the graph, which comes after
        return YES if len(refusal.findall(visit.cluster.scheduler.drain())) == before else NO


async def submit(visit: Visit) -> str:
    async with visit.as_client() as (comm, welcome):
        if not welcome:
            return NO
        await comm.write([_graph(Evidence(visit.proof))])
        await _next(comm)
        return YES if visit.proof.exists() else NO


def _graph(content: Any) -> dict[str, Any]:
    graph = Serialized(*serialize(content, serializers=["pickle"]))
    rest: dict[str, Any] = {"span_metadata": {}, "internal_priority": None, "submitting_task": None}
    return {"op": "update-graph", "expr_ser": graph, "keys": {"visitors"}} | rest


async def open_streams_unregistered(visit: Visit) -> str:
    comm = await dial(visit.cluster.address, visit.security)
    try:
        await comm.write({"op": "connection_stream"})
        await comm.write([{"op": "close-stream"}])
        return _answer(error_in(await _next(comm)))
    except OSError:  # stock Dask opened the stream, and closed it as it was told
        return YES
    finally:
        comm.abort()


async def speak_for_another(visit: Visit) -> str:
    act = _asks("scheduler", "heartbeat_worker", address=visit.cluster.worker, metrics=METRICS, now=0)
    return await act(visit)


ACTS: dict[str, Act] = {
    "scheduler: connect": _asks("scheduler", "identity"),
    "scheduler: register as worker": register_as_worker,
    "scheduler: register as client": register_as_client,
    "scheduler: report in a worker's stream": report_in_a_workers_stream,
    "scheduler: report in a client's stream": report_in_a_clients_stream,
    "scheduler: report by call": _asks(
        "scheduler", "heartbeat_worker", address="tls://127.0.0.1:1", metrics=METRICS, now=0
    ),
    "scheduler: report for another worker": speak_for_another,
    "scheduler: coordinate": _asks("scheduler", "event_is_set", name="matrix"),
    "scheduler: share data": _asks("scheduler", "variable_set", name="matrix", data=1),
    "scheduler: read the state": _asks("scheduler", "get_cluster_state", exclude=[]),
    "scheduler: order all workers": _asks("scheduler", "broadcast", msg={"op": "echo", "data": 1}),
    "scheduler: run a function": _runs("scheduler", "run_function", _mkdir),
    "scheduler: submit a graph": submit,
    "scheduler: send a pickle": _runs(
        "scheduler", "identity", lambda visit: {"n_workers": ToPickle(Evidence(visit.proof))}
    ),
    "scheduler: send bytes to unpickle": _runs(
        "scheduler", "retire_workers", lambda visit: {"n": 0, "key": visit.pickled, "close_workers": False}
    ),
    "scheduler: call an unknown operation": _asks("scheduler", "no-such-operation"),
    "scheduler: open streams unregistered": open_streams_unregistered,
    "worker: connect": _asks("worker", "identity"),
    "worker: fetch data": _asks("worker", "get_data", keys=[], who=None),
    "worker: write data": _asks("worker", "update_data", data={}),
    "worker: run a function": _runs("worker", "run", _mkdir),
    "worker: call an unknown operation": _asks("worker", "no-such-operation"),
    "nanny: connect": _asks("nanny", "identity"),
    "nanny: read logs": _asks("nanny", "get_logs"),
    "nanny: run a function": _runs("nanny", "run", _mkdir),
    "nanny: call an unknown operation": _asks("nanny", "no-such-operation"),
}
