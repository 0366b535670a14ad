"""Tests the seal with the installed distributed: the functions that it replaces or relies on, and their effect."""

from __future__ import annotations

import importlib.metadata
import inspect
import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from dask._expr import LLGExpr
from distributed.protocol import core
from distributed.protocol.serialize import Serialized, ToPickle, serialize, to_serialize
from distributed.scheduler import Scheduler, _materialize_graph
from distributed.shuffle._core import P2PBarrierTask
from distributed.shuffle._rechunk import ArrayRechunkSpec
from distributed.shuffle._scheduler_plugin import ShuffleSchedulerPlugin

from daskpki.cluster import no_pickle
from daskpki.cluster.sealed.graphs import SealedShuffle, checked_graph
from daskpki.cluster.sealed.helper_pool import Helpers
from daskpki.errors import NotTrustedError

_CALLED: Final[Mapping[Callable[..., Any], frozenset[str]]] = {
    Scheduler.update_graph: frozenset({"deserialize", "_materialize_graph", "_create_taskstate_from_graph"}),
    Scheduler._task_to_msg: frozenset({"ToPickle", "run_spec"}),  # noqa: SLF001 - Dask's own
    ShuffleSchedulerPlugin._create: frozenset({"_retrieve_spec", "create_new_run"}),  # noqa: SLF001 - Dask's own
    _materialize_graph: frozenset({"__dask_graph__", "__dask_annotations__", "convert_legacy_graph"}),
}
"""Functions of distributed, and the names that the seal expects each to use."""


class _Canary:
    """Sets a flag if it is unpickled in this process."""

    sang = threading.Event()

    def __reduce__(self) -> Any:
        return song_of_the_start, ("song",)


def song_of_the_start(word: str) -> str:
    """Set the canary's flag."""
    _Canary.sang.set()
    return word


def verify_shapes(fields: AbstractSet[str]) -> None:
    """Raise NotTrustedError unless distributed's functions are those that the seal, with these fields, is made for."""
    for function, names in _CALLED.items():
        if missing := names.difference(inspect.unwrap(function).__code__.co_names):
            raise _changed(f"{function.__qualname__} does not use {', '.join(sorted(missing))}")
    if other := fields ^ (inspect.signature(Scheduler.update_graph).parameters.keys() - {"self", "client"}):
        raise _changed(f"Scheduler.update_graph takes other arguments, as to {', '.join(sorted(other))}")


def canary_graph() -> list[Any]:
    """Make a graph for `verify_holds`, before the hook is installed: Dask unpickles to name a graph."""
    spec = ArrayRechunkSpec(id="id", disk=False, new=((1,),), old=((1,),))  # type: ignore[arg-type]
    barrier = P2PBarrierTask("barrier", song_of_the_start, spec=spec)
    graph = LLGExpr({"canary": (song_of_the_start, _Canary()), "barrier": barrier})
    request = {
        "expr_ser": Serialized(*serialize(to_serialize(graph), on_error="raise")),
        "keys": ["canary", "barrier"],
        "internal_priority": None,
        "code": ToPickle(()),
        "annotations": ToPickle({"canary": _Canary()}),
        "span_metadata": ToPickle({"canary": _Canary()}),
        "validate": False,
        "config": {},
    }
    frames: list[Any] = core.dumps(request)
    _Canary.sang.clear()
    return frames


def verify_holds(helpers: Helpers, graph: Sequence[Any]) -> None:
    """Raise NotTrustedError if a canary in a message, a graph or a P2P spec is unpickled here."""
    message = {"op": "log_event", "msg": [ToPickle(_Canary()), {"field": ToPickle(_Canary())}]}
    kept = no_pickle.decode(core.dumps(message), keeps_pickles=True)["msg"]
    if not all(isinstance(each, no_pickle.OpaquePickle) for each in (kept[0], kept[1]["field"])):
        raise _changed("a pickle in a message was opened")
    try:
        pickle.loads(pickle.dumps(_Canary()))  # noqa: S301 - our own, to see that it is refused
    except PermissionError:
        pass
    else:
        raise _changed("the audit hook did not refuse a pickle")
    answer = helpers.rehearse(graph, lambda answer: checked_graph(answer, helpers.limits.tasks))
    if _Canary.sang.is_set():
        raise _changed("a client's pickle was opened in the scheduler")
    if set(answer.tasks) != {"canary", "barrier"} or not isinstance(answer.tasks["barrier"].spec, SealedShuffle):
        raise _changed("a helper did not return the content of a graph")


def _changed(what: str) -> NotTrustedError:
    from daskpki.cluster.selftest import tested_with

    version = importlib.metadata.version("distributed")
    return NotTrustedError(
        f"a scheduler cannot be sealed with distributed {version}: {what}",
        hint=f"{tested_with()}; --scheduler-code stock runs without",
    )
