"""In a helper: what a client pickled becomes a plain table of its graph (`graphs` checks it in the scheduler)."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any, Final

import dask
import dask.order
import msgpack
from dask._expr import LLGExpr
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
    """Out-of-band buffers of all tasks, each once."""

    def __init__(self) -> None:
        self.blobs: list[bytes] = []
        self._found: dict[tuple[int, int], int] = {}
        self._kept: list[Any] = []  # so that no id is used twice
        self._functions: dict[int, _SharedFunction | None] = {}

    def pickled(self, node: Any) -> tuple[bytes, list[int]]:
        """A task's pickle, and the indices of its buffers."""
        if (shared := self._shared(getattr(node, "func", None))) is not None:
            node = node.copy()
            node.func = shared
        buffers: list[Any] = []
        try:
            data = pickle.dumps(node, protocol=5, buffer_callback=buffers.append)
        except Exception:  # noqa: BLE001 - as distributed's own dumps, which goes on to cloudpickle
            data = b"__main__"
        if b"__main__" in data:
            buffers.clear()
            data = dask_pickle.dumps(node, buffer_callback=buffers.append)
        return data, [self._index(buffer) for buffer in buffers]

    def _index(self, buffer: Any) -> int:
        raw = memoryview(buffer)
        where = id(raw.obj), raw.nbytes
        if where not in self._found:
            self._found[where] = len(self.blobs)
            self.blobs.append(raw.tobytes(order="A"))
            self._kept.append(raw.obj)
        return self._found[where]

    def _shared(self, function: Any) -> _SharedFunction | None:
        if function is None:
            return None
        if id(function) not in self._functions:
            self._kept.append(function)
            self._functions[id(function)] = _share(function)
        return self._functions[id(function)]


def _share(function: Any) -> _SharedFunction | None:
    try:
        data = pickle.dumps(function, protocol=5)
        if len(data) <= _BY_NAME and b"__main__" not in data:
            return None
    except Exception:  # noqa: BLE001, S110 - a lambda, for one
        pass
    data = dask_pickle.dumps(function)
    return _SharedFunction(data) if len(data) > _BY_NAME else None


def answer(frames: Sequence[Any]) -> list[bytes]:
    """The table of a graph, what a function of distributed's is for, or what either failed with; or takes in a file."""
    try:
        request = core.loads(frames, deserialize=False)
        if "expr_ser" in request:
            return [_packed(_table(request))]
        if "recognise" in request:
            return [_packed(recognise(request["recognise"], request["fields"]))]
        UPLOADS.add(request["filename"], request["data"])
        return [_packed({})]
    except Exception as error:  # noqa: BLE001 - the client's own code may raise anything
        told = error_message(error)
        traceback = told["traceback"]
        return [
            msgpack.packb(
                {
                    "failed": f"{type(error).__name__}: {error}"[:10_000],
                    "exception": told["exception"].data,
                    "traceback": traceback.data if traceback is not None else None,
                }
            )
        ]


def _table(request: Mapping[str, Any]) -> dict[str, Any]:
    keys = request["keys"]
    with dask.config.set(request["config"]):
        graph, annotations, explicit = _materialized(request)
        if explicit:
            graph = _cull(graph, keys)
        order = request["internal_priority"] or dask.order.order(dsk=graph)
    names = list(graph)
    index = {key: row for row, key in enumerate(names)}
    table = _tasks(graph, names, index)
    table["priorities"] = [int(order.get(key, 0)) for key in graph]
    table["annotations"], table["for_all"] = _annotations(request["annotations"] or {}, annotations, graph, index)
    table["code"] = [[str(each[0]), int(each[1]), int(each[2]), str(each[3])] for each in request["code"] or ()]
    table["span_metadata"] = _plain(dict(request["span_metadata"] or {}))
    return table


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


def _tasks(graph: Mapping[Any, Any], names: list[Any], index: dict[Any, int]) -> dict[str, Any]:
    """The columns of tasks; keys of other graphs that they depend on are added to `names`."""
    blobs = _Blobs()
    dependencies: list[list[int]] = []
    nodes: list[bytes] = []
    buffers: dict[int, list[int]] = {}
    shuffles: dict[int, Any] = {}
    for row, node in enumerate(graph.values()):
        for key in node.dependencies:
            if key not in index:
                index[key] = len(names)
                names.append(key)
        dependencies.append([index[key] for key in node.dependencies])
        data, uses = blobs.pickled(node)
        nodes.append(data)
        if uses:
            buffers[row] = uses
        if isinstance(node, P2PBarrierTask) and (fields := _shuffle(node.spec)):
            shuffles[row] = fields
    producers = [bool(node.data_producer) for node in graph.values()]
    columns = {"keys": names, "dependencies": dependencies, "nodes": nodes, "producers": producers}
    return columns | {"blobs": blobs.blobs, "buffers": buffers, "shuffles": shuffles}


def _shuffle(spec: Any) -> list[Any] | None:
    kind = f"{type(spec).__module__}.{type(spec).__qualname__}"
    if kind == "distributed.shuffle._rechunk.ArrayRechunkSpec":
        return [ARRAY, str(spec.id), [len(axis) for axis in spec.new], [], dask_pickle.dumps(spec)]
    if kind == "distributed.shuffle._shuffle.DataFrameShuffleSpec":
        parts = range(spec.parts_out) if isinstance(spec.parts_out, int) else spec.parts_out
        return [DATAFRAME, str(spec.id), [int(spec.npartitions)], [*map(int, parts)], dask_pickle.dumps(spec)]
    return None


def _annotations(
    of_the_call: Mapping[str, Any], of_layers: Mapping[str, Any], graph: Mapping[Any, Any], index: Mapping[Any, int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """By task, and for all; a function of the key is called here, and a layer's own comes before the call's."""
    by_key: dict[str, dict[int, Any]] = {}
    for name, value in of_the_call.items():
        if callable(value):
            by_key[str(name)] = {index[key]: value(key) for key in graph}
    for name, values in of_layers.items():
        rows = by_key.setdefault(str(name), {})
        rows.update({index[key]: each for key, each in values.items() if each is not None and key in graph})
    for_all = {str(name): value for name, value in of_the_call.items() if not callable(value)}
    return {name: [*rows.items()] for name, rows in by_key.items()}, for_all


def _plain(value: Any, depth: int = 0) -> Any:
    """A span's metadata, which is shown: what is not plain, as text."""
    if value is None or type(value) in {str, int, float, bool}:
        return value
    if isinstance(value, (list, tuple)) and depth < 20:  # noqa: PLR2004 - levels
        return [_plain(each, depth + 1) for each in value]
    if isinstance(value, dict) and depth < 20:  # noqa: PLR2004 - levels
        return {str(name): _plain(each, depth + 1) for name, each in value.items()}
    return str(value)[:1000]


def _packed(table: dict[str, Any]) -> bytes:
    return msgpack.packb(table, default=_stand_in, use_bin_type=True)  # type: ignore[no-any-return]


def _stand_in(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return list(value)
    if hasattr(value, "__index__"):  # numpy's integers, in keys for one
        return value.__index__()
    return ExtType(OPAQUE, dask_pickle.dumps(value))
