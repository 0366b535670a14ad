"""Pickles that write down the number of the process that opens them, in every place that a scheduler reads."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from distributed import Security
from distributed.comm.core import Comm, connect
from distributed.protocol.serialize import Serialized, ToPickle, serialize, to_serialize
from distributed.shuffle._core import P2PBarrierTask
from distributed.shuffle._rechunk import ArrayRechunkSpec
from distributed.versions import get_versions

from daskpki.cluster import operations as ops
from daskpki.identity import Role

PATIENCE = 10.0
ENDS_THE_SCHEDULER = {"terminate", "restart", "restart_workers", "retire_workers", "register-client", "register-worker"}


class Canary:
    """Opened, it leaves a file that is named by place and process."""

    def __init__(self, directory: Path, place: str) -> None:
        self.directory = directory
        self.place = place

    def __reduce__(self) -> Any:
        code = f"import os; open(os.path.join({str(self.directory)!r}, {self.place!r} + '@' + str(os.getpid())), 'w')"
        return exec, (code,)


def sang(directory: Path, process: int) -> set[str]:
    """The places whose canaries were opened in that process."""
    found = (path.name.rpartition("@") for path in directory.iterdir())
    return {place for place, _, number in found if int(number) == process}


class Aim(NamedTuple):
    """A scheduler, and with which certificate it is approached."""

    address: str
    security: Security
    role: Role
    directory: Path

    def canary(self, place: str) -> Canary:
        return Canary(self.directory, f"{self.role.value}:{place}")

    async def open(self, **options: Any) -> Comm:
        arguments = self.security.get_connection_args(self.role.value)
        comm: Comm = await connect(self.address, deserialize=False, **arguments, **options)
        return comm


async def _answered(comm: Comm) -> Any:
    try:
        return await asyncio.wait_for(comm.read(), PATIENCE)
    except OSError:
        return None


async def call(aim: Aim, message: dict[str, Any]) -> Any:
    comm = await aim.open()
    try:
        await comm.write(message)
        return await _answered(comm)
    finally:
        comm.abort()


async def stream(aim: Aim, messages: Iterable[dict[str, Any]], done: Callable[[Any], bool]) -> None:
    """As a registered client."""
    comm = await aim.open()
    try:
        await comm.write({"op": "register-client", "client": f"Client-{aim.role.value}", "versions": get_versions()})
        await _answered(comm)
        await comm.write([{"client": f"Client-{aim.role.value}"} | each for each in messages])
        while (heard := await _answered(comm)) is not None:
            if any(done(each) for each in heard):
                return
    finally:
        comm.abort()


async def in_greeting(aim: Aim) -> None:
    comm = await aim.open(handshake_overrides={"extra": ToPickle(aim.canary("greeting"))})
    await comm.write({"op": "identity"})
    await _answered(comm)
    comm.abort()


async def in_calls(aim: Aim) -> None:
    known = ops.SCHEDULER_FOR_CLIENTS | ops.SCHEDULER_FOR_WORKERS.keys()
    for operation in [*sorted(known - ENDS_THE_SCHEDULER), "no-such-operation"]:
        await call(aim, {"op": operation, "no-such-argument": ToPickle(aim.canary(operation))})


async def in_bytes(aim: Aim) -> None:
    """What handlers unpickle for themselves."""
    pickled = {place: pickle.dumps(aim.canary(place)) for place in BYTES}
    await call(aim, {"op": "retire_workers", "key": pickled["key of retire_workers"], "n": 0})
    await call(aim, {"op": "workers_to_close", "key": pickled["key of workers_to_close"], "n": 0})
    for part in ("function", "setup", "teardown"):
        await call(aim, {"op": "feed", part: pickled[f"{part} of feed"]})
    await call(aim, {"op": "register_scheduler_plugin", "plugin": pickled["plugin"], "idempotent": True})
    await call(aim, {"op": "run_function", "function": pickled["function"]})


BYTES = (
    *("key of retire_workers", "key of workers_to_close", "function of feed", "setup of feed", "teardown of feed"),
    *("plugin", "function"),
)


async def in_stream(aim: Aim) -> None:
    """One stream for each, since Dask ends one over a message that it cannot read."""
    for operation in sorted(ops.CLIENT_STREAM - {"update-graph", "close-client"}):
        await stream(aim, [{"op": operation, "no-such": ToPickle(aim.canary(operation))}, *END], ends)


END = ({"op": "report-key", "key": "end"},)


def ends(message: Any) -> bool:
    return isinstance(message, dict) and (message.get("key") == "end" or "end" in message.get("keys", ()))


async def in_graph(aim: Aim) -> None:
    await _submit(aim, ("graph", "P2P spec"))


async def in_fields_of_graphs(aim: Aim) -> None:
    await _submit(aim, ("code", "annotations", "span_metadata", "internal_priority", "user_priority", "actors"))


async def _submit(aim: Aim, places: Iterable[str]) -> None:
    for place in places:
        fields: dict[str, Any] = {
            "op": "update-graph",
            "keys": {"end"},
            "code": ToPickle(()),
            "annotations": ToPickle({}),
            "span_metadata": ToPickle({}),
            "internal_priority": None,
            "submitting_task": None,
            "expr_ser": _serialized({"end": 1}),
        }
        match place:
            case "graph":
                fields["expr_ser"] = _serialized({"end": aim.canary(place)})
            case "P2P spec":
                canary: Any = aim.canary(place)
                spec = ArrayRechunkSpec(id="p2p", disk=False, new=((1,),), old=canary)  # type: ignore[arg-type]
                fields["expr_ser"] = _serialized({"end": P2PBarrierTask("end", print, spec=spec)})
            case _:
                fields[place] = ToPickle(aim.canary(place))
        await stream(aim, [fields, *END], _ended)


def _ended(message: Any) -> bool:
    return isinstance(message, dict) and message.get("op") in {"key-in-memory", "task-erred"}


class Literally:
    """A dict that stands for an expression: its token would load the canary in this process."""

    def __init__(self, tasks: dict[str, Any]) -> None:
        self.tasks = tasks

    def __dask_graph__(self) -> dict[str, Any]:
        return self.tasks

    def __dask_annotations__(self) -> dict[str, Any]:
        return {}


def _serialized(tasks: dict[str, Any]) -> Serialized:
    return Serialized(*serialize(to_serialize(Literally(tasks)), on_error="raise"))


FAMILIES: dict[str, Callable[[Aim], Coroutine[Any, Any, None]]] = {
    "greeting": in_greeting,
    "calls": in_calls,
    "bytes": in_bytes,
    "stream": in_stream,
    "graph": in_graph,
    "fields of graphs": in_fields_of_graphs,
}
