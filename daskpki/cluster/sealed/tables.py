"""In a helper: answers the scheduler's requests, each with a plain table that `graphs` checks there.

- A client's pickled graph becomes the table of its tasks.
- Closures and plugins of distributed that a client sent are recognised, as a name and plain arguments. A code object is
  distributed's if it equals the one that this distributed compiles.
- Uploaded modules are imported from memory, since a helper writes no files.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any, Final

import dask
import dask.order
import msgpack
from dask._expr import LLGExpr
from dask.core import toposort
from dask.utils import key_split
from distributed.client import performance_report
from distributed.core import error_message
from distributed.diagnostics import plugin as plugins
from distributed.diagnostics.progressbar import MultiProgressBar, ProgressBar
from distributed.protocol import core
from distributed.protocol import pickle as dask_pickle
from distributed.protocol.serialize import deserialize
from distributed.scheduler import _cull, _materialize_graph
from distributed.shuffle._core import P2PBarrierTask
from msgpack.ext import ExtType

from daskpki.cluster.sealed.graphs import ARRAY, DATAFRAME, OPAQUE

_BY_NAME: Final = 256
"""Most bytes of a pickle that only names a function; a longer one is shared between the function's tasks."""


class _SharedFunction:
    """Stands for a function that is pickled by value, so that all tasks that call it share one pickle."""

    def __init__(self, pickled: bytes) -> None:
        self._buffer = bytearray(pickled)

    def __reduce__(self) -> Any:
        return pickle.loads, (pickle.PickleBuffer(self._buffer),)


class _Blobs:
    """Out-of-band buffers of all tasks, each once. Their owners are kept, so that no id is used twice."""

    def __init__(self) -> None:
        self.blobs: list[bytes] = []
        self._found: dict[tuple[int, int], tuple[int, Any]] = {}
        self._functions: dict[int, tuple[_SharedFunction | None, Any]] = {}

    def pickled(self, node: Any) -> tuple[bytes, list[int]]:
        """Return a task's pickle, and the indices of its buffers."""
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
    """Pickle as distributed does, but without its search for the module of each value."""
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
    """Answer a request: convert a graph, recognise a function of distributed, or store an uploaded file."""
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
        try:
            expression = deserialize(request["expr_ser"].header, request["expr_ser"].frames)
        except Exception as error:
            raise RuntimeError(
                "Error during deserialization of the task graph. This frequently occurs if the Scheduler and Client "
                "have different environments."
            ) from error
        graph, annotations = _materialize_graph(expression, request["validate"])
        if isinstance(expression, LLGExpr):
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


def _tasks(nodes: Sequence[Any]) -> dict[str, Any]:
    """Make the columns of tasks for workers and P2P."""
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
    """Return annotations by task, and those for all. Functions are called with each key; a layer's take precedence."""
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
    if hasattr(value, "__index__"):  # numpy's integers, for example in keys
        return value.__index__()
    return ExtType(OPAQUE, dask_pickle.dumps(value))


# --- functions and plugins of distributed


def recognise(operation: str, fields: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the recognised operation, or `{}`."""
    opened = {name: pickle.loads(data) for name, data in fields.items()}  # noqa: S301 - in a helper
    match operation:
        case "feed":
            return _progress(opened.get("setup"), opened.get("function"))
        case "run_function" if _is(opened.get("function"), performance_report.__aenter__, "<lambda>"):
            return {"named": "count"}
        case "register_scheduler_plugin":
            return _plugin(opened.get("plugin"))
    return {}


def _is(function: Any, method: Callable[..., Any], name: str) -> bool:
    """True if `function` is the function of that name within a method."""
    (own,) = (each for each in method.__code__.co_consts if isinstance(each, CodeType) and each.co_name == name)
    return isinstance(function, FunctionType) and function.__code__ == own


def _progress(setup: Any, function: Any) -> dict[str, Any]:
    for bar in (ProgressBar, MultiProgressBar):
        if _is(setup, bar.listen, "setup") and _is(function, bar.listen, "function"):
            cells = setup.__closure__ or ()
            enclosed = dict(zip(setup.__code__.co_freevars, (cell.cell_contents for cell in cells), strict=True))
            grouped = bar is MultiProgressBar
            if grouped and enclosed["group_by"] is not key_split:
                return {}
            keys, complete = list(enclosed["keys"]), bool(enclosed["complete"])
            return {"named": "progress", "keys": keys, "complete": complete, "grouped": grouped}
    return {}


def _plugin(plugin: Any) -> dict[str, Any]:
    if type(plugin) is plugins.SchedulerUploadFile:
        return {"named": "upload", "filename": str(plugin.filename), "data": bytes(plugin.data)}
    if isinstance(plugin, plugins.InstallPlugin):
        kind = plugins._InstallNannyPlugin if plugin.restart_workers else plugins._InstallWorkerPlugin  # noqa: SLF001
        pickled = dask_pickle.dumps(kind(plugin._install_fn, plugin.name))  # noqa: SLF001 - as InstallPlugin.start
        restarts = bool(plugin.restart_workers)
        return {"named": "install", "name": str(plugin.name), "restarts": restarts, "plugin": pickled}
    return {}


# --- uploaded modules

_MOST_FILES: Final = 10_000


class Uploads(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports from the sources of `.py` files and archives, by path."""

    def __init__(self) -> None:
        self._sources: dict[str, bytes] = {}

    def add(self, filename: str, data: bytes) -> None:
        """Add a file; modules that were imported from an older one are dropped."""
        if filename.endswith((".zip", ".egg")):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = [name for name in archive.namelist() if name.endswith(".py")][:_MOST_FILES]
                self._sources |= {name: archive.read(name) for name in names}
        else:
            self._sources[filename] = data
        for name in [name for name, module in sys.modules.items() if getattr(module, "__loader__", None) is self]:
            del sys.modules[name]

    def _path(self, fullname: str) -> str | None:
        stem = fullname.replace(".", "/")
        return next((path for path in (f"{stem}/__init__.py", f"{stem}.py") if path in self._sources), None)

    def find_spec(self, fullname: str, _path: Any = None, _target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """The spec of an uploaded module; None for any other, which the next finder looks for."""
        return importlib.util.spec_from_loader(fullname, self) if self._path(fullname) else None

    def is_package(self, fullname: str) -> bool:
        """True if an uploaded module is a package."""
        return (self._path(fullname) or "").endswith("/__init__.py")

    def get_source(self, fullname: str) -> str:
        """The source of an uploaded module, decoded as Python does."""
        return importlib.util.decode_source(self._sources[self._path(fullname) or fullname])


UPLOADS = Uploads()
"""The importer of uploaded modules of this process."""
