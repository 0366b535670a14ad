"""Whatever a helper answers becomes a sound graph, or is refused as forged: no other error, and nothing without end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgpack.ext import ExtType

from daskpki.cluster.sealed.graphs import CheckedGraph, GraphFailedError, checked_graph, checked_request
from daskpki.cluster.sealed.helper_pool import ForgedAnswerError
from daskpki.cluster.values import KINDS
from tests.support.helper_messages import MOST, table
from tests.support.nightly import by_day

T = TypeVar("T")

WORKERS = ["a", "b", "c"]

small = st.integers(-2, 4)
scalars = st.one_of(
    st.none(), st.booleans(), small, st.integers(-(1 << 63), (1 << 64) - 1), st.floats(), st.text(max_size=3),
    st.binary(max_size=3), st.builds(ExtType, st.integers(0, 3), st.binary(max_size=3)),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.text(max_size=3), small), inner, max_size=3)
    ),
    max_leaves=12,
)
shuffles = st.tuples(
    st.one_of(st.sampled_from(["array", "dataframe"]), values),
    st.one_of(st.text(max_size=3), values),
    st.one_of(st.lists(st.one_of(small, st.integers(0, 1 << 40)), max_size=4), values),
    st.one_of(st.lists(small, max_size=4), values),
    st.one_of(st.binary(max_size=3), values),
)
plausible = st.tuples(
    st.sampled_from(["array", "dataframe"]), st.text(max_size=3), st.lists(st.integers(0, 4), max_size=3),
    st.lists(st.integers(0, 4), max_size=3), st.binary(max_size=3),
)  # fmt: skip
fields: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(msgpack.loads(table()[0], strict_map_key=False), values)
fields["dependencies"] = st.one_of(st.lists(st.lists(small, max_size=3), max_size=3), values)
fields["shuffles"] = st.one_of(st.dictionaries(small, st.one_of(shuffles, values), max_size=2), values)
fields["failed"] = fields["exception"] = fields["traceback"] = values


def verify_sound(graph: CheckedGraph) -> None:
    """What the scheduler computes with has its type and ends."""
    done: set[Any] = set()
    for key, task in graph.tasks.items():
        assert KINDS["key"](key)
        assert not (task.dependencies & graph.tasks.keys()) - done
        done.add(key)
        assert type(task.pickled) is bytes
        if task.spec is not None:
            for partition in islice(task.spec.output_partitions, 100):
                assert task.spec.pick_worker(partition, WORKERS) in WORKERS
    assert all(type(each) is int for each in graph.priorities.values())


def taken(answer: Sequence[bytes]) -> bool:
    try:
        verify_sound(checked_graph(answer, MOST))
    except (ForgedAnswerError, GraphFailedError):
        return False
    return True


def outcomes(strategy: st.SearchStrategy[T], answer: Callable[[T], Sequence[bytes]], *, cases: int) -> Counter[bool]:
    """How many answers of that kind are taken, and how many are not: a test that meets only one tells little."""
    counted: Counter[bool] = Counter()

    @settings(max_examples=cases, deadline=None)
    @given(strategy)
    def give(what: T) -> None:
        counted[taken(answer(what))] += 1

    give()
    return counted


def test_fields_at_random() -> None:
    some = st.fixed_dictionaries({}, optional=fields)
    counted = outcomes(some, lambda it: table(**it), cases=by_day(100, night=2000))
    assert min(counted[True], counted[False]) > 0, counted


def test_p2p_fields_at_random() -> None:
    """Of the second task, whose other fields are honest."""
    counted = outcomes(shuffles | plausible, lambda it: table(shuffles={1: it}), cases=by_day(100, night=2000))
    assert min(counted[True], counted[False]) > 0, counted


def test_bytes_at_random() -> None:
    (honest,) = table()

    def changed(what: tuple[bytes, int]) -> list[bytes]:
        data, at = what
        return [honest[:at] + data + honest[at + len(data) :]]

    cases = by_day(50, night=1000)
    assert outcomes(st.binary(max_size=60), lambda it: [it], cases=cases)[True] == 0
    counted = outcomes(st.tuples(st.binary(max_size=60), st.integers(0, 200)), changed, cases=cases)
    assert min(counted[True], counted[False]) > 0, counted


def test_control_an_unsound_graph_is_none() -> None:
    graph: Any = checked_graph(table(), MOST)
    verify_sound(graph)
    unsound = [
        graph._replace(tasks=dict(reversed(graph.tasks.items()))),  # the second task is before what it depends on
        graph._replace(tasks={("f", object()): task for task in graph.tasks.values()}),
        graph._replace(priorities=dict.fromkeys(graph.tasks, "0")),
    ]
    for each in unsound:
        with pytest.raises(AssertionError):
            verify_sound(each)


@settings(max_examples=by_day(50, night=1000), deadline=None)
@given(st.dictionaries(st.sampled_from(["named", "keys", "complete", "grouped", "filename", "data", "x"]), values))
def test_names_at_random(found: dict[str, Any]) -> None:
    try:
        named = checked_request([msgpack.packb(found)])
    except (ForgedAnswerError, GraphFailedError):
        return
    assert named == {} or named["named"] in {"progress", "count", "upload", "install"}


@pytest.mark.parametrize("name", [False, True, None, "", "flag", b"count", ("count",)])
def test_only_known_names_are_taken(name: object) -> None:
    with pytest.raises(ForgedAnswerError, match="a name that is known"):
        checked_request([msgpack.packb({"named": name})])


def test_control_a_known_name_is_taken() -> None:
    assert checked_request([msgpack.packb({"named": "count"})]) == {"named": "count"}


def test_control_honest_shuffles_are_taken() -> None:
    assert taken(table())
    assert taken(table(shuffles={0: ["dataframe", "id", [4], [0, 3], b""], 1: ["array", "id", [2, 2], [], b""]}))
