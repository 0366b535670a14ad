"""What a helper answers about a graph, checked, and the stand-ins that the scheduler keeps of its tasks.

The answer comes from a process that runs its client's code, so it is believed no more than the client: each value has a
type and a range here, and a key is one of this graph or none.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, Final, NamedTuple, NoReturn

import msgpack
from dask._task_spec import GraphNode
from distributed.client import SourceCode
from distributed.protocol.serialize import Pickled, register_serialization_family
from distributed.shuffle._core import ShuffleSpec

from daskpki.cluster.no_pickle import OpaquePickle
from daskpki.cluster.values import KINDS, is_plain
from daskpki.errors import NotTrustedError

OPAQUE: Final = 1
"""The msgpack extension under which a helper hands back a value that only a worker or a client loads."""
ARRAY, DATAFRAME = "array", "dataframe"
"""The kinds of P2P shuffle, as ArrayRechunkSpec and DataFrameShuffleSpec of distributed.shuffle."""
_MOST_PARTITIONS: Final = 10_000_000
_SMALL: Final = (10_000, 1 << 20)
_NONE: Final = frozenset[Any]()
_FAMILY: Final = "daskpki-checked-graph"
"""The serializer, of this process alone, by which a checked graph passes through `distributed.deserialize`."""


class ForgedAnswerError(NotTrustedError):
    """A helper answered what no helper of ours does."""


class GraphFailedError(Exception):
    """A graph that its helper could not make tables of; the error as the client pickled it, if it can be."""

    def __init__(self, text: str, pickled: bytes | None = None, traceback: bytes | None = None) -> None:
        super().__init__(text)
        self.pickled = pickled
        self.traceback = traceback


class SealedTask(GraphNode):
    """A task as the scheduler knows it: key, dependencies, a flag, and bytes that only a worker opens."""

    __slots__ = ("_producer", "buffers", "pickled", "spec")

    def __init__(
        self, key: Any, dependencies: frozenset[Any], pickled: bytes, buffers: Sequence[bytes], *, producer: bool
    ) -> None:
        self.key, self._dependencies = key, dependencies
        self.pickled, self.buffers, self._producer = pickled, buffers, producer
        self.spec: SealedShuffle | None = None

    @property
    def data_producer(self) -> bool:
        """See dask.GraphNode."""
        return self._producer

    def for_worker(self) -> Pickled:
        """What goes to a worker in place of a pickle of this: the client's own bytes."""
        return Pickled({"pickled-obj": self.pickled}, list(self.buffers))

    def __reduce__(self) -> Any:  # for answers such as get_runspec's, which the receiver opens
        return partial(pickle.loads, buffers=list(self.buffers)), (self.pickled,)

    def __repr__(self) -> str:
        return f"<sealed task {self.key!r}, {len(self.pickled)} bytes>"

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + len(self.pickled)


class SealedShuffle(ShuffleSpec[Any]):
    """A P2P shuffle by the numbers that the scheduler computes with; workers get the client's own bytes."""

    def __init__(
        self, kind: str, shuffle_id: str, lengths: Sequence[int], parts: Sequence[int], pickled: bytes
    ) -> None:
        # ShuffleSpec is a frozen dataclass.
        self.__dict__.update(id=shuffle_id, disk=False, kind=kind, lengths=lengths, parts=parts, pickled=pickled)

    kind: str
    lengths: Sequence[int]
    parts: Sequence[int]
    pickled: bytes

    @property
    def output_partitions(self) -> Iterator[Any]:  # type: ignore[override]
        """See distributed.shuffle: positions of an array's chunks, or numbers of a dataframe's partitions."""
        return product(*map(range, self.lengths)) if self.kind == ARRAY else iter(self.parts)

    def pick_worker(self, partition: Any, workers: Sequence[str]) -> str:
        """As ArrayRechunkSpec and DataFrameShuffleSpec pick."""
        first, *others = (partition,) if self.kind == DATAFRAME else partition
        position: int = first + sum(length * index for length, index in zip(self.lengths, others, strict=False))
        return workers[len(workers) * position // math.prod(self.lengths)]

    def create_run_on_worker(self, *_arguments: Any, **_named: Any) -> NoReturn:
        """Never called: a worker gets the client's own."""
        raise TypeError("this spec is the scheduler's")

    def __reduce__(self) -> Any:
        return pickle.loads, (self.pickled,)


class CheckedGraph(NamedTuple):
    """A graph in the form in which the scheduler's own `update_graph` takes it."""

    tasks: Mapping[Any, SealedTask]
    priorities: Mapping[Any, int]
    annotations: Mapping[str, Mapping[Any, Any]]
    for_all: Mapping[str, Any]
    code: tuple[SourceCode, ...]
    span_metadata: Mapping[str, Any]

    def __dask_graph__(self) -> Mapping[Any, SealedTask]:
        return self.tasks

    def __dask_annotations__(self) -> Mapping[str, Mapping[Any, Any]]:
        return self.annotations

    def as_expression(self) -> Expression:
        """In place of the client's `expr_ser`."""
        return Expression({"serializer": _FAMILY}, [self])


class Expression(NamedTuple):
    """What `update_graph` reads of an expression: a header that names the serializer, and frames."""

    header: Mapping[str, str]
    frames: Sequence[CheckedGraph]


def accept_checked_graphs() -> None:
    """Let `distributed.deserialize` return a CheckedGraph that is handed to it; it loads nothing."""
    register_serialization_family(_FAMILY, _never_dumped, _only_frame)


def _never_dumped(_value: Any) -> NoReturn:
    raise TypeError(f"a {_FAMILY} stays in this process")


def _only_frame(_header: Any, frames: Sequence[Any]) -> Any:
    (graph,) = frames
    if not isinstance(graph, CheckedGraph):
        raise TypeError("not a graph of this process")
    return graph


# --- checking


def checked_graph(answer: Sequence[bytes | bytearray], most: int) -> CheckedGraph:
    """The graph in a helper's answer; ForgedAnswerError for one that is none, GraphFailedError when it says so."""
    table = _unpacked(answer)
    if "failed" in table:
        raise _failure(table)
    try:
        return _graph(table, most)
    except ForgedAnswerError:
        raise
    except Exception as error:  # whatever forged tables raise
        raise ForgedAnswerError(f"the helper's answer is malformed ({type(error).__name__})") from error


def checked_request(answer: Sequence[bytes | bytearray]) -> dict[str, Any]:
    """What a helper recognised in a function or plugin; ForgedAnswerError, and GraphFailedError when it says so."""
    found = _unpacked(answer)
    if "failed" in found:
        raise _failure(found)
    named = found.get("named")
    _require(not found or (type(named) is str and named in _RECOGNISED), "a name that is known")
    for name, kind in _RECOGNISED.get(str(named), {}).items():
        _require(type(found.get(name)) is kind, f"{name} of {kind.__name__}")
    _require(all(map(KINDS["key"], found.get("keys", ()))), "keys")
    return found


_RECOGNISED: Final[Mapping[str, Mapping[str, type]]] = {
    "progress": {"keys": tuple, "complete": bool, "grouped": bool},
    "count of the monitor": {},
    "upload": {"filename": str, "data": bytes},
    "install": {"name": str, "restarts": bool, "plugin": bytes},
}


def _unpacked(answer: Sequence[bytes | bytearray]) -> dict[Any, Any]:
    try:
        (packed,) = answer
        table = msgpack.loads(packed, use_list=False, strict_map_key=False, ext_hook=_extension)
    except Exception as error:
        raise ForgedAnswerError(f"the helper's answer is no table ({type(error).__name__})") from error
    _require(type(table) is dict, "a table")
    return table  # type: ignore[no-any-return]


def _extension(code: int, data: bytes) -> Any:
    _require(code == OPAQUE, "no other extension of msgpack")
    return OpaquePickle({"pickled-obj": data}, [])


def _failure(table: Mapping[str, Any]) -> GraphFailedError:
    text, pickled, traceback = table["failed"], table.get("exception"), table.get("traceback")
    _require(type(text) is str, "an error's text")
    _require(all(each is None or type(each) is bytes for each in (pickled, traceback)), "an error's bytes")
    return GraphFailedError(text[:10_000], pickled, traceback)


def _require(holds: bool, rule: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise ForgedAnswerError(f"the helper's answer breaks a rule: {rule}")


def _graph(table: Mapping[str, Any], most: int) -> CheckedGraph:
    keys, dependencies, nodes, blobs = table["keys"], table["dependencies"], table["nodes"], table["blobs"]
    producers, priorities, buffers = table["producers"], table["priorities"], table["buffers"]
    count = len(nodes)
    _require(count <= most, f"at most {most} tasks")
    _require(len(dependencies) == len(producers) == len(priorities) == count <= len(keys), "columns of one length")
    _require(len(keys) <= 2 * most, "not so many keys of others")
    _require(all(map(KINDS["key"], keys)) and len(set(keys)) == len(keys), "keys, each once")
    _require(all(type(each) is bytes for each in (*nodes, *blobs)), "bytes of tasks")
    _require(all(type(each) is int and abs(each) < 1 << 62 for each in priorities), "whole numbers of priority")
    _require(all(_are_indices(row, len(keys)) for row in dependencies), "dependencies by index")
    _require(all(_are_indices(row, len(blobs)) for row in buffers.values()), "buffers by index")
    _require(_are_indices(buffers, count), "buffers of tasks of this graph")
    _verify_acyclic(dependencies, count)
    tasks = {
        keys[row]: SealedTask(
            keys[row],
            frozenset(map(keys.__getitem__, dependencies[row])) if dependencies[row] else _NONE,
            nodes[row],
            tuple(map(blobs.__getitem__, buffers.get(row, ()))),
            producer=bool(producers[row]),
        )
        for row in range(count)
    }
    for row, fields in table["shuffles"].items():
        _require(_are_indices((row,), count), "a shuffle of this graph")
        tasks[keys[row]].spec = _shuffle(*fields)
    return CheckedGraph(
        tasks,
        dict(zip(keys, priorities, strict=False)),
        _by_key(table["annotations"], keys[:count]),
        _annotations(table["for_all"]),
        _code(table["code"]),
        _span(table["span_metadata"]),
    )


def _are_indices(row: Iterable[Any], end: int) -> bool:
    return all(type(each) is int and 0 <= each < end for each in row)


def _verify_acyclic(dependencies: Sequence[Sequence[int]], count: int) -> None:
    """Raise ForgedAnswerError where a task waits for itself: the scheduler would wait with it."""
    waiting = [sum(each < count for each in set(row)) for row in dependencies]
    dependents: list[list[int]] = [[] for _ in range(count)]
    for row, each in enumerate(dependencies):
        for dependency in set(each):
            if dependency < count:
                dependents[dependency].append(row)
    ready = [row for row in range(count) if not waiting[row]]
    for row in ready:  # it grows
        for dependent in dependents[row]:
            waiting[dependent] -= 1
            if not waiting[dependent]:
                ready.append(dependent)
    _require(len(ready) == count, "no cycles")


def _shuffle(kind: Any, shuffle_id: Any, lengths: Any, parts: Any, pickled: Any) -> SealedShuffle:
    _require(kind in {ARRAY, DATAFRAME} and type(shuffle_id) is str and type(pickled) is bytes, "a shuffle's fields")
    _require(all(type(each) is int and 0 < each <= _MOST_PARTITIONS for each in lengths), "a shuffle's lengths")
    if kind == ARRAY:
        _require(math.prod(lengths) <= _MOST_PARTITIONS and len(lengths) > 0, "not so many chunks")
    else:
        _require(len(lengths) == 1 and _are_indices(parts, lengths[0]), "a shuffle's partitions")
    return SealedShuffle(kind, shuffle_id, lengths, parts, pickled)


def _is_number(value: object) -> bool:
    return type(value) in {int, float, bool} and math.isfinite(value)  # type: ignore[arg-type]


def _is_whose(value: object) -> bool:
    return type(value) is str or (type(value) is tuple and all(type(each) in {str, int} for each in value))


def _is_resources(value: object) -> bool:
    return type(value) is dict and all(type(name) is str and _is_number(each) for name, each in value.items())


def _is_span(value: object) -> bool:
    if type(value) is not dict or set(value) != {"name", "ids"}:
        return False
    names, ids = value["name"], value["ids"]
    texts = type(names) is tuple and type(ids) is tuple and all(type(each) is str for each in (*names, *ids))
    return texts and 0 < len(names) == len(ids) <= 100  # noqa: PLR2004 - of nested spans


_ANNOTATIONS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "priority": _is_number,
    "retries": lambda value: type(value) in {int, bool} and 0 <= value < 1 << 31,
    "resources": _is_resources,
    "workers": _is_whose,
    "restrictions": _is_whose,
    "allow_other_workers": lambda value: type(value) is bool,
    "loose_restrictions": lambda value: type(value) is bool,
    "span": _is_span,
}
"""Annotations that the scheduler acts upon; what else a user writes there it hands on."""


def _annotations(found: Any) -> dict[str, Any]:
    for name, value in found.items():
        _require(type(name) is str, "an annotation's name")
        judge = _ANNOTATIONS.get(name)
        if value is not None and judge is not None:
            _require(judge(value), f"the annotation {name[:40]}")
    return dict(found)


def _by_key(found: Any, keys: Sequence[Any]) -> dict[str, dict[Any, Any]]:
    rows: dict[str, dict[Any, Any]] = {}
    for name, pairs in found.items():
        rows[name] = {}
        for row, value in pairs:
            _require(_are_indices((row,), len(keys)), "annotations of tasks of this graph")
            _annotations({name: value})
            rows[name][keys[row]] = value
    return rows


def _code(found: Any) -> tuple[SourceCode, ...]:
    kinds = (str, int, int, str)
    _require(all(tuple(map(type, each)) == kinds for each in found), "source code")
    return tuple(SourceCode(*each) for each in found)


def _span(found: Any) -> Mapping[str, Any]:
    collections = found.get("collections", ())
    _require(type(collections) is tuple and is_plain(found, *_SMALL), "a span's metadata")
    _require(all(type(each) is dict for each in collections), "a span's collections")
    return {"collections": list(collections)} if found else {}
