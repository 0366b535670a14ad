"""What a client makes of its helper costs that client's graph, and nobody else anything; and there is no way out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from operator import add  # a helper that had to import pytest would take its time
from typing import Any

import msgpack
import pytest
from distributed import Client
from distributed.protocol.serialize import Serialized, serialize, to_serialize
from msgpack.ext import ExtType

from daskpki.cluster.sealed.graphs import GraphFailedError, checked_graph, checked_request
from daskpki.cluster.sealed.helper_pool import ForgedAnswerError, HelperFailedError, Helpers, Limits, parse_limits
from daskpki.errors import UsageError
from tests.support.helper_messages import MOST, request, table
from tests.support.hostile import STILL_WORKS, TAKEN_OVER, WAYS_OUT, Configured, Hostile, Trial
from tests.support.nightly import sample
from tests.support.nodes import Cluster

pytestmark = pytest.mark.cluster


def read(answer: list[bytearray]) -> Any:
    return checked_graph(answer, MOST)


@pytest.mark.parametrize("takes_over", sample(list(TAKEN_OVER), one_of=4))
def test_a_hostile_graph_costs_itself_only(takes_over: str, connect: Callable[[str], Client], sealed: Cluster) -> None:
    mallory, bob = connect("mallory"), connect("bob")
    evil = mallory.submit(add, 1, Hostile(TAKEN_OVER[takes_over]), key=f"evil-{takes_over}")
    assert bob.submit(add, 1, 2, pure=False).result(timeout=60) == 3
    with pytest.raises(Exception, match=r"helper|deserialization|memory|recursion|pickle|E\(\)|lost dependencies"):
        evil.result(timeout=60)
    assert bob.submit(add, 2, 2, pure=False).result(timeout=60) == 4
    assert mallory.submit(add, 3, 3, pure=False).result(timeout=60) == 6
    assert sealed.scheduler.process.poll() is None


@pytest.fixture(scope="module")
def helpers() -> Any:
    pool = Helpers(Limits(helpers=2, seconds=20, memory=3072))
    pool.begin()
    yield pool
    pool.end()


@pytest.mark.every_version
def test_there_is_no_way_out_and_numpy_works(helpers: Helpers) -> None:
    trial = Trial(WAYS_OUT | STILL_WORKS)
    (packed,) = helpers.rehearse(request({"x": 1}, annotations={"trial": trial}), list)
    found = msgpack.loads(packed)["for_all"]["trial"]
    assert {way: found[way] for way in WAYS_OUT if found[way] != "refused"} == {}
    assert {what: found[what] for what in STILL_WORKS if found[what] != "done"} == {}


def test_control_the_ways_out_are_open_without_confinement() -> None:
    """But for what only takes another system call's number than this machine's."""
    from tests.support.hostile import attempts

    harmless = ("a TCP socket", "a pair of sockets", "the passwords", "a memory file", "a pipe", "its own environment")
    assert attempts({way: WAYS_OUT[way] for way in harmless}) == dict.fromkeys(harmless, "done")


def test_annotations_that_are_lists_stay_lists(helpers: Helpers) -> None:
    asked = request({"x": 1}, annotations={"workers": ["tls://10.0.0.2:1"], "mine": (1, [2])})
    graph = asyncio.run(helpers.ask("alice", asked, read))
    assert graph.for_all == {"workers": ["tls://10.0.0.2:1"], "mine": [1, (2,)]}


@pytest.mark.every_version
def test_an_answer_that_lies_in_the_socket_is_not_the_next_graphs(helpers: Helpers) -> None:
    """Forged before the true one, it would be taken for the answer about the next graph."""

    async def ask() -> tuple[set[Any], set[Any]]:
        evil = request({"mine": 1}, annotations={"x": Hostile(TAKEN_OVER["answers twice"])})
        first = await helpers.ask("mallory", evil, read)
        second = await helpers.ask("bob", request({"bobs": 1}), read)
        return set(first.tasks), set(second.tasks)

    assert asyncio.run(ask()) == ({"stolen"}, {"bobs"})


def test_the_pool_is_bounded_and_the_longest_idle_ends(helpers: Helpers) -> None:
    async def ask() -> list[set[str]]:
        alive = []
        for name in ("one", "two", "one", "three"):
            await helpers.ask(name, request({"x": 1}), read)
            alive.append(set(helpers.alive))
        return alive

    assert asyncio.run(ask())[-1] == {"one", "three"}


def test_a_helper_that_does_not_answer_is_ended_in_time() -> None:
    pool = Helpers(Limits(helpers=1, seconds=2, wait=1))
    pool.begin()

    async def ask() -> None:
        await pool.ask("bob", request({"x": 1}), read)
        evil = request({"x": 1}, code=Hostile(TAKEN_OVER["sleeps"]))
        hanging = asyncio.create_task(pool.ask("mallory", evil, read))
        await asyncio.sleep(0)
        with pytest.raises(HelperFailedError, match="all 1 helpers were busy for 1 s"):
            await pool.ask("bob", request({"x": 1}), read)
        with pytest.raises(HelperFailedError, match="did not answer within 2 s"):
            await hanging
        await pool.ask("bob", request({"x": 1}), read)

    try:
        asyncio.run(ask())
        assert pool.killed == 1
    finally:
        pool.end()


@pytest.mark.every_version
def test_what_a_graph_raises_comes_back_as_its_error(helpers: Helpers) -> None:
    async def ask() -> None:
        await helpers.ask("alice", request({"x": (add, "y", 1), "y": "x"}), read)

    with pytest.raises(GraphFailedError, match="Cycle"):
        asyncio.run(ask())


def test_a_graph_is_opened_under_the_schedulers_configuration(helpers: Helpers) -> None:
    expression = Serialized(*serialize(to_serialize(Configured()), on_error="raise"))
    asked = request({}, expr_ser=expression, keys=["tuned"], config={"optimization": {"daskpki": "tuned"}})
    assert set(helpers.rehearse(asked, read).tasks) == {"tuned"}


@pytest.mark.every_version
def test_an_honest_table_is_taken() -> None:
    graph = checked_graph(table(), MOST)
    assert [set(graph.tasks[key].dependencies) for key in "ab"] == [{"other"}, {"a"}]
    assert (graph.annotations, graph.for_all) == ({"retries": {"a": 2}}, {"priority": 3})
    assert graph.tasks["b"].buffers == (b"x",)


FORGED: list[dict[str, Any]] = [
    {"keys": ["other", "a", "a"]},
    {"keys": ["other", "a", {"b": 1}]},
    {"keys": ["a"]},
    {"keys": 5},
    {"dependencies": [[0], [3]]},
    {"dependencies": [[0], [-1]]},
    {"dependencies": [[0], ["a"]]},
    {"dependencies": [[False], [0]]},
    {"dependencies": [[2], [1]]},
    {"dependencies": [[0], [2]]},
    {"dependencies": [[0]]},
    {"nodes": ["1", b"2"]},
    {"nodes": [b"1"] * (MOST + 1)},
    {"priorities": [0, 1.5]},
    {"priorities": [0, 1 << 63]},
    {"blobs": [1]},
    {"buffers": {1: [1]}},
    {"buffers": {2: [0]}},
    {"buffers": {"a": [0]}},
    {"shuffles": {2: ["array", "id", [2, 3], [], b"spec"]}},
    {"shuffles": {1: ["array", "id", [], [], b"spec"]}},
    {"shuffles": {1: ["array", "id", [10_000_000, 10_000_000], [], b"spec"]}},
    {"shuffles": {1: ["array", "id", [0], [], b"spec"]}},
    {"shuffles": {1: ["dataframe", "id", [2], [2], b"spec"]}},
    {"shuffles": {1: ["dataframe", "id", [2, 2], [1], b"spec"]}},
    {"shuffles": {1: ["other", "id", [2], [1], b"spec"]}},
    {"shuffles": {1: ["array", 5, [2], [], b"spec"]}},
    {"shuffles": {1: ["array", "id", [2], [], "spec"]}},
    {"shuffles": {1: ["array"]}},
    {"annotations": {"retries": [[2, 2]]}},
    {"annotations": {"retries": [[0, "2"]]}},
    {"annotations": {"retries": [[0, -1]]}},
    {"annotations": {"resources": [[0, {"GPU": float("nan")}]]}},
    {"annotations": {"workers": [[0, {"a": 1}]]}},
    {"annotations": {"span": [[0, {"name": [], "ids": []}]]}},
    {"annotations": {5: [[0, 1]]}},
    {"for_all": {"priority": float("inf")}},
    {"for_all": {"priority": ExtType(1, b"pickled")}},
    {"for_all": {"x": ExtType(2, b"")}},
    {"for_all": []},
    {"code": [["x", "y", 1, "f"]]},
    {"span_metadata": {"collections": [5]}},
    {"span_metadata": {"collections": 5}},
    {"failed": 5},
    {"failed": "x", "exception": "text"},
]


@pytest.mark.parametrize("fields", FORGED, ids=lambda fields: re.sub(r"\W+", "-", str(fields))[:60])
def test_a_forged_table_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ForgedAnswerError):
        checked_graph(table(**fields), MOST)


@pytest.mark.parametrize("answer", [[], [b""], [b"\xc1"], [b"\x90"], [b"x", b"y"], [msgpack.packb({})]])
def test_an_answer_that_is_no_table_is_refused(answer: list[bytes]) -> None:
    with pytest.raises(ForgedAnswerError):
        checked_graph(answer, MOST)


@pytest.mark.parametrize(
    "found",
    [
        {"named": "run"},
        {"named": {"x": 1}},
        {"keys": []},
        {"named": "progress", "keys": [{"x": 1}], "complete": True, "grouped": False},
        {"named": "progress", "keys": "x", "complete": True, "grouped": False},
        {"named": "upload", "filename": 5, "data": b""},
        {"named": "install", "name": "x", "restarts": True, "plugin": "text"},
    ],
)
def test_a_forged_name_is_refused(found: dict[str, Any]) -> None:
    assert checked_request([msgpack.packb({})]) == {}
    with pytest.raises(ForgedAnswerError):
        checked_request([msgpack.packb(found)])


def test_limits_are_read_and_named() -> None:
    assert parse_limits("helpers=4,memory=512") == Limits(helpers=4, memory=512)
    assert parse_limits(None) == Limits()
    with pytest.raises(UsageError, match="'helpers=0' is not a limit"):
        parse_limits("helpers=0")
    with pytest.raises(UsageError, match="'helpers' is not a limit"):
        parse_limits("helpers")
    with pytest.raises(UsageError, match="'cores=4' is not a limit"):
        parse_limits("cores=4")
