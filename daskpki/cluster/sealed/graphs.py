"""Checks a helper's answer about a graph, and defines the objects that stand for its tasks in the scheduler.

The answer comes from a process that runs its client's code, so it is trusted no more than the client: each value has a
type and a range here, and a key must be one of this graph.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product, starmap
from typing import Any, Final, NamedTuple, NoReturn

import msgpack
from dask._task_spec import GraphNode
from distributed.client import SourceCode
from distributed.protocol.serialize import Pickled, register_serialization_family
from distributed.shuffle._core import ShuffleSpec

from daskpki.cluster.no_pickle import OpaquePickle
from daskpki.cluster.sealed.helper_pool import ForgedAnswerError
from daskpki.cluster.values import KINDS, SMALL, arguments, is_plain, misfit

OPAQUE: Final = 1
"""The msgpack extension for a value in an answer that only a worker or a client unpickles."""
ARRAY, DATAFRAME = "array", "dataframe"
"""The kinds of P2P shuffle, as ArrayRechunkSpec and DataFrameShuffleSpec of distributed.shuffle."""
_MOST_PARTITIONS: Final = 10_000_000
"""Partitions of one shuffle, at most, since the scheduler walks through them: twice the usual limit of tasks."""
_NONE: Final = frozenset[Any]()
_FAMILY: Final = "daskpki-checked-graph"
"""The serializer, of this process alone, by which a checked graph passes through `distributed.deserialize`."""


class GraphFailedError(Exception):
    """A graph that its helper could not convert; with the error as the helper pickled it, if possible."""

    def __init__(self, text: str, pickled: bytes | None = None, traceback: bytes | None = None) -> None:
        super().__init__(text)
        self.pickled = pickled
        self.traceback = traceback


class SealedTask(GraphNode):
    """A task in the scheduler: key, dependencies, a flag, and bytes that only a worker opens."""

    __slots__ = ("buffers", "data_producer", "pickled", "spec")

    def __init__(
        self, key: Any, dependencies: frozenset[Any], pickled: bytes, buffers: Sequence[bytes], *, producer: bool
    ) -> None:
        self.key, self._dependencies = key, dependencies
        self.data_producer = producer  # type: ignore[misc] # a slot here, a property of the base
        self.pickled, self.buffers = pickled, buffers
        self.spec: SealedShuffle | None = None

    def for_worker(self) -> Pickled:
        """Return the client's own bytes, which are sent to a worker instead of a pickle of this object."""
        return Pickled({"pickled-obj": self.pickled}, list(self.buffers))

    def __reduce__(self) -> Any:  # for answers such as get_runspec's, which the receiver opens
        return partial(pickle.loads, buffers=list(self.buffers)), (self.pickled,)

    __eq__ = object.__eq__
    __hash__ = object.__hash__


@dataclass(frozen=True, eq=False)
class SealedShuffle(ShuffleSpec[Any]):
    """The numbers of a P2P shuffle that the scheduler computes with; workers get the client's own bytes."""

    kind: str
    lengths: Sequence[int]
    parts: Sequence[int]
    pickled: bytes

    @property
    def output_partitions(self) -> Iterator[Any]:  # type: ignore[override]
        """Positions of an array's chunks, or numbers of a dataframe's partitions, as `distributed.shuffle` has them."""
        return product(*map(range, self.lengths)) if self.kind == ARRAY else iter(self.parts)

    def pick_worker(self, partition: Any, workers: Sequence[str]) -> str:
        """Pick a worker as ArrayRechunkSpec and DataFrameShuffleSpec do."""
        first, *others = (partition,) if self.kind == DATAFRAME else partition
        position: int = first + sum(length * index for length, index in zip(self.lengths, others, strict=False))
        return workers[len(workers) * position // math.prod(self.lengths)]

    def create_run_on_worker(self, *_arguments: Any, **_named: Any) -> NoReturn:
        """Never called: a worker gets the client's own spec."""
        raise TypeError("this spec is the scheduler's")

    def __reduce__(self) -> Any:
        return pickle.loads, (self.pickled,)


class CheckedGraph(NamedTuple):
    """A graph in the form that the scheduler's own `update_graph` takes."""

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

    @property
    def header(self) -> Mapping[str, str]:
        """Header that `update_graph` reads from `expr_ser`, like `frames`; `deserialize` passes both to the family."""
        return {"serializer": _FAMILY}

    @property
    def frames(self) -> Sequence[CheckedGraph]:
        """The graph itself."""
        return [self]


def accept_checked_graphs() -> None:
    """Let `distributed.deserialize` return a CheckedGraph that it is given; nothing is unpickled."""
    register_serialization_family(_FAMILY, _handed_through, _handed_through)


def _handed_through(_header: Any, frames: Sequence[Any]) -> Any:
    (graph,) = frames
    if not isinstance(graph, CheckedGraph):
        raise TypeError("not a graph of this process")
    return graph


# --- checking


def checked_graph(answer: Sequence[bytes | bytearray], most: int) -> CheckedGraph:
    """Return the graph in a helper's answer; ForgedAnswerError if malformed, GraphFailedError if it failed."""
    table = _unpacked(answer)
    try:
        return _graph(table, most)
    except ForgedAnswerError:
        raise
    except Exception as error:  # forged tables may raise anything
        raise ForgedAnswerError(f"the helper's answer is malformed ({type(error).__name__})") from error


def checked_request(answer: Sequence[bytes | bytearray]) -> dict[str, Any]:
    """Return the operation that a helper recognised in a function or plugin; ForgedAnswerError, GraphFailedError."""
    found = _unpacked(answer)
    name = found.get("named")
    kinds = _RECOGNISED.get(name) if isinstance(name, str) else None
    known = kinds is not None and found.keys() == {"named", *kinds} and misfit(kinds, found) is None
    _require(known or not found, "a name that is known")
    return found


_RECOGNISED: Final[Mapping[str, Mapping[str, str]]] = {
    "progress": arguments("keys:keys complete:flag grouped:flag"),
    "count": {},
    "upload": arguments("filename:text data:data"),
    "install": arguments("name:text restarts:flag plugin:bytes"),
}


def _unpacked(answer: Sequence[bytes | bytearray]) -> dict[Any, Any]:
    try:
        (packed,) = answer
        table = msgpack.loads(packed, use_list=False, strict_map_key=False, ext_hook=_extension)
    except Exception as error:
        raise ForgedAnswerError(f"the helper's answer is no table ({type(error).__name__})") from error
    _require(type(table) is dict, "a table")
    if (text := table.get("failed")) is None:
        return table  # type: ignore[no-any-return]
    pickled, traceback = table.get("exception"), table.get("traceback")
    _require(type(text) is str and {type(pickled), type(traceback)} <= {bytes, type(None)}, "an error's text and bytes")
    raise GraphFailedError(text[:10_000], pickled, traceback)


def _extension(code: int, data: bytes) -> Any:
    _require(code == OPAQUE, "no other extension of msgpack")
    return OpaquePickle({"pickled-obj": data}, [])


def _require(holds: bool, rule: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise ForgedAnswerError(f"the helper's answer breaks a rule: {rule}")


def _graph(table: Mapping[str, Any], most: int) -> CheckedGraph:
    """Build the graph. Its keys are those of other graphs, then one per task; a task comes after its dependencies."""
    keys, dependencies, nodes, blobs = table["keys"], table["dependencies"], table["nodes"], table["blobs"]
    producers, priorities, buffers = table["producers"], table["priorities"], table["buffers"]
    count = len(nodes)
    others = len(keys) - count
    _require(count <= most and 0 <= others <= most, f"at most {most} tasks, and keys of others")
    _require(len(dependencies) == len(producers) == len(priorities) == count, "columns of one length")
    _require(all(map(KINDS["key"], keys)) and len(set(keys)) == len(keys), "keys, each once")
    _require(all(type(each) is bytes for each in (*nodes, *blobs)), "bytes of tasks")
    _require(all(type(each) is int and abs(each) < 1 << 62 for each in priorities), "whole numbers of priority")
    _require(all(starmap(_are_indices, zip(dependencies, range(others, len(keys)), strict=True))), "no cycles")
    _require(all(_are_indices(row, len(blobs)) for row in buffers.values()), "buffers by index")
    _require(_are_indices((*buffers, *table["shuffles"]), count), "buffers and shuffles of tasks of this graph")
    tasks = {
        key: SealedTask(
            key,
            frozenset(map(keys.__getitem__, needed)) if needed else _NONE,
            node,
            tuple(map(blobs.__getitem__, buffers.get(row, ()))),
            producer=bool(producer),
        )
        for row, (key, needed, node, producer) in enumerate(
            zip(keys[others:], dependencies, nodes, producers, strict=True)
        )
    }
    own = [*tasks]
    for row, fields in table["shuffles"].items():
        tasks[own[row]].spec = _shuffle(*fields)
    return CheckedGraph(
        tasks,
        dict(zip(own, priorities, strict=True)),
        _by_key(table["annotations"], own),
        _annotations(table["for_all"]),
        _code(table["code"]),
        _span(table["span_metadata"]),
    )


def _are_indices(row: Iterable[Any], end: int) -> bool:
    return all(type(each) is int and 0 <= each < end for each in row)


def _shuffle(kind: Any, shuffle_id: Any, lengths: Any, parts: Any, pickled: Any) -> SealedShuffle:
    _require(kind in {ARRAY, DATAFRAME} and type(shuffle_id) is str and type(pickled) is bytes, "a shuffle's fields")
    _require(all(type(each) is int and 0 < each <= _MOST_PARTITIONS for each in lengths), "a shuffle's lengths")
    if kind == ARRAY:
        _require(math.prod(lengths) <= _MOST_PARTITIONS and len(lengths) > 0, "not so many chunks")
    else:
        _require(len(lengths) == 1 and _are_indices(parts, lengths[0]), "a shuffle's partitions")
    return SealedShuffle(shuffle_id, disk=False, kind=kind, lengths=lengths, parts=parts, pickled=pickled)


def _is_whose(value: object) -> bool:
    return KINDS["text"](value) or (type(value) is tuple and all(map(KINDS["worker-name"], value)))


def _is_span(value: object) -> bool:
    names, ids = (value["name"], value["ids"]) if type(value) is dict and value.keys() == {"name", "ids"} else ((), ())
    return KINDS["texts"](names) and KINDS["texts"](ids) and 0 < len(names) == len(ids) <= 100  # noqa: PLR2004 - nested


_KINDS: Final = arguments(
    "priority:number? retries:flag-or-count? resources:resources? allow_other_workers:flag? loose_restrictions:flag?"
)
_ANNOTATIONS: Final = {"workers": _is_whose, "restrictions": _is_whose, "span": _is_span}
"""Annotations that the scheduler uses; it passes on all others."""


def _annotations(found: Any) -> dict[str, Any]:
    _require(all(type(name) is str for name in found), "an annotation's name")
    _require((wrong := misfit(_KINDS, found)) is None, f"the annotation {wrong}")
    for name in found.keys() & _ANNOTATIONS.keys():
        _require(found[name] is None or _ANNOTATIONS[name](found[name]), f"the annotation {name}")
    # Tuples become lists: the wire does not tell them apart, and Dask's client makes lists.
    return {name: list(value) if type(value) is tuple else value for name, value in found.items()}


def _by_key(found: Any, keys: Sequence[Any]) -> dict[str, dict[Any, Any]]:
    rows: dict[str, dict[Any, Any]] = {}
    for name, pairs in found.items():
        rows[name] = {}
        for row, value in pairs:
            _require(_are_indices((row,), len(keys)), "annotations of tasks of this graph")
            rows[name][keys[row]] = _annotations({name: value})[name]
    return rows


def _code(found: Any) -> tuple[SourceCode, ...]:
    kinds = (str, int, int, str)
    _require(all(tuple(map(type, each)) == kinds for each in found), "source code")
    return tuple(SourceCode(*each) for each in found)


def _span(found: Any) -> Mapping[str, Any]:
    collections = found.get("collections", ())
    _require(type(collections) is tuple and is_plain(found, *SMALL), "a span's metadata")
    _require(all(type(each) is dict for each in collections), "a span's collections")
    return {"collections": list(collections)} if found else {}
