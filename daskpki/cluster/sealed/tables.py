"""In a helper: what a client pickled becomes a plain table of its graph (`graphs` checks it in the scheduler)."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, Final

import dask
import dask.order
import msgpack
from dask._expr import LLGExpr
from dask.core import toposort
from distributed.core import error_message
from distributed.protocol import core
from distributed.protocol import pickle as dask_pickle
from distributed.protocol.serialize import deserialize
from distributed.scheduler import _cull, _materialize_graph
from distributed.shuffle._core import P2PBarrierTask
from msgpack.ext import ExtType

from daskpki.cluster.sealed.graphs import ARRAY, DATAFRAME, OPAQUE
from daskpki.cluster.sealed.recognition import recognise
from daskpki.cluster.sealed.uploads import UPLOADS

_BY_NAME: Final = 256
"""Bytes within which a function is pickled by its name; longer ones are shared between tasks."""


class _SharedFunction:
    """In place of a function that is pickled by value: once for all the tasks that call it."""

    def __init__(self, pickled: bytes) -> None:
        self._buffer = bytearray(pickled)

    def __reduce__(self) -> Any:
        return pickle.loads, (pickle.PickleBuffer(self._buffer),)


class _Blobs:
    """Out-of-band buffers of all tasks, each once. What they are of is kept, so that no id is used twice."""

    def __init__(self) -> None:
        self.blobs: list[bytes] = []
        self._found: dict[tuple[int, int], tuple[int, Any]] = {}
        self._functions: dict[int, tuple[_SharedFunction | None, Any]] = {}

    def pickled(self, node: Any) -> tuple[bytes, list[int]]:
        """A task's pickle, and the indices of its buffers."""
        function = getattr(node, "func", None)
        if id(function) not in self._functions:
            data = _dumps(function)
            self._functions[id(function)] = _SharedFunction(data) if len(data) > _BY_NAME else None, function
        if shared := self._functions[id(function)][0]:
            node = node.copy()
            node.func = shared
        buffers: list[pickle.PickleBuffer] = []
        return _dumps(node, buffers), [*map(self._index, buffers)]

    def _index(self, buffer: pickle.PickleBuffer) -> int:
        raw = memoryview(buffer)
        where = id(raw.obj), raw.nbytes
        if where not in self._found:
            self._found[where] = len(self.blobs), raw.obj
            self.blobs.append(raw.tobytes(order="A"))
        return self._found[where][0]


def _dumps(value: Any, buffers: list[pickle.PickleBuffer] | None = None) -> bytes:
    """As distributed's own, which looks for the module of each value that it is given."""
    keep = None if buffers is None else buffers.append
    try:
        data = pickle.dumps(value, protocol=5, buffer_callback=keep)
    except Exception:  # noqa: BLE001 - a lambda, for one: distributed goes on to cloudpickle
        data = b"__main__"
    if b"__main__" in data:
        if buffers is not None:
            buffers.clear()
        data = dask_pickle.dumps(value, buffer_callback=keep)
    return data


def answer(frames: Sequence[Any]) -> bytes:
    """The table of a graph, what a function of distributed's is for, or what either failed with; or takes in a file."""
    try:
        request = core.loads(frames, deserialize=False)
        if "expr_ser" in request:
            return _packed(_table(request))
        if "recognise" in request:
            return _packed(recognise(request["recognise"], request["fields"]))
        UPLOADS.add(request["filename"], request["data"])
        return _packed({})
    except Exception as error:  # noqa: BLE001 - the client's own code may raise anything
        told = error_message(error)
        fields = {name: getattr(told[name], "data", None) for name in ("exception", "traceback")}
        return _packed({"failed": f"{type(error).__name__}: {error}"[:10_000]} | fields)


def _table(request: Mapping[str, Any]) -> dict[str, Any]:
    with dask.config.set(request["config"]):
        graph, annotations, explicit = _materialized(request)
        if explicit:
            graph = _cull(graph, request["keys"])
        priorities = request["internal_priority"] or dask.order.order(dsk=graph)
    needed = {key: node.dependencies for key, node in graph.items()}
    own = toposort(graph, dependencies={key: keys & graph.keys() for key, keys in needed.items()})
    others = [*set().union(*needed.values()) - graph.keys()]
    index = {key: row for row, key in enumerate([*others, *own])}
    by_key, for_all = _annotations(request["annotations"] or {}, annotations, own)
    return _tasks([graph[key] for key in own]) | {
        "keys": [*index],
        "dependencies": [[*map(index.__getitem__, needed[key])] for key in own],
        "priorities": [int(priorities.get(key, 0)) for key in own],
        "annotations": by_key,
        "for_all": for_all,
        "code": [[str(each[0]), int(each[1]), int(each[2]), str(each[3])] for each in request["code"] or ()],
        "span_metadata": json.loads(json.dumps(dict(request["span_metadata"] or {}), default=str, skipkeys=True)),
    }


def _materialized(request: Mapping[str, Any]) -> tuple[Any, Any, bool]:
    try:
        expression = deserialize(request["expr_ser"].header, request["expr_ser"].frames)
    except Exception as error:
        raise RuntimeError(
            "Error during deserialization of the task graph. This frequently occurs if the Scheduler and Client have "
            "different environments."
        ) from error
    graph, annotations = _materialize_graph(expression, request["validate"])
    return graph, annotations, isinstance(expression, LLGExpr)


def _tasks(nodes: Sequence[Any]) -> dict[str, Any]:
    """The columns of tasks that workers and P2P get."""
    blobs = _Blobs()
    pickled, buffers = zip(*map(blobs.pickled, nodes), strict=True) if nodes else ((), ())
    barriers = {row: node.spec for row, node in enumerate(nodes) if isinstance(node, P2PBarrierTask)}
    return {
        "nodes": pickled,
        "buffers": {row: uses for row, uses in enumerate(buffers) if uses},
        "blobs": blobs.blobs,
        "producers": [bool(node.data_producer) for node in nodes],
        "shuffles": {row: fields for row, spec in barriers.items() if (fields := _shuffle(spec))},
    }


def _shuffle(spec: Any) -> list[Any] | None:
    kind = f"{type(spec).__module__}.{type(spec).__qualname__}"
    if kind == "distributed.shuffle._rechunk.ArrayRechunkSpec":
        return [ARRAY, str(spec.id), [len(axis) for axis in spec.new], [], dask_pickle.dumps(spec)]
    if kind == "distributed.shuffle._shuffle.DataFrameShuffleSpec":
        parts = range(spec.parts_out) if isinstance(spec.parts_out, int) else spec.parts_out
        return [DATAFRAME, str(spec.id), [int(spec.npartitions)], [*map(int, parts)], dask_pickle.dumps(spec)]
    return None


def _annotations(
    of_the_call: Mapping[str, Any], of_layers: Mapping[str, Any], keys: Sequence[Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """By task, and for all; a function of the key is called here, and a layer's own comes before the call's."""
    index = {key: row for row, key in enumerate(keys)}
    by_key: dict[str, dict[int, Any]] = {}
    for_all: dict[str, Any] = {}
    for name, value in of_the_call.items():
        if callable(value):
            by_key[str(name)] = {row: value(key) for row, key in enumerate(keys)}
        else:
            for_all[str(name)] = value
    for name, values in of_layers.items():
        rows = {index[key]: each for key, each in values.items() if each is not None and key in index}
        by_key.setdefault(str(name), {}).update(rows)
    return {name: [*rows.items()] for name, rows in by_key.items()}, for_all


def _packed(table: dict[str, Any]) -> bytes:
    return msgpack.packb(table, default=_stand_in, use_bin_type=True)  # type: ignore[no-any-return]


def _stand_in(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return list(value)
    if hasattr(value, "__index__"):  # numpy's integers, in keys for one
        return value.__index__()
    return ExtType(OPAQUE, dask_pickle.dumps(value))
