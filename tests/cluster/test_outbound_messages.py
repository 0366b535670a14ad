"""What leaves an honest worker: never a pickle that the scheduler would have to load."""

from __future__ import annotations

import pickle
from decimal import Decimal
from enum import Enum
from typing import Any

import numpy as np
import pytest
from distributed.core import Status
from distributed.protocol.core import dumps
from distributed.protocol.serialize import ToPickle, to_serialize
from hypothesis import given
from hypothesis import strategies as st

from daskpki.cluster.no_pickle import decode, failed_task, sendable

numbers = st.sampled_from(
    [np.int64(7), np.float32(0.5), np.bool_(True), np.uint8(200), np.datetime64(5, "s").astype(int)]
)
values = st.recursive(
    numbers | st.integers(0, 9) | st.text() | st.binary() | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc_"), inner) | st.tuples(inner, inner),
    max_leaves=15,
)


@given(values)
def test_numbers_of_numpy_travel_as_pythons(value: Any) -> None:
    decode(dumps(sendable({"op": "task-finished", "metadata": value})))


def test_a_message_that_needs_nothing_is_itself() -> None:
    message = {"op": "x", "value": to_serialize(object()), "status": Status.running, "set": {1}, "nested": [(1, "a")]}
    assert sendable(message) is message


def test_values_survive_as_numbers() -> None:
    message = {"op": "x", np.int64(1): [np.int64(2), (np.float64(0.5), {np.int8(3)})], "zero-d": np.array(5)}
    assert sendable(message) == {"op": "x", 1: [2, (0.5, {3})], "zero-d": 5}


class Colour(Enum):
    RED = 1


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


class Scalar:
    ndim = 0


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.arange(3), "numpy.ndarray"),
        (np.array([5]), "numpy.ndarray"),
        (Scalar(), "tests.cluster.test_outbound_messages.Scalar"),
        (object(), "builtins.object"),
        (ToPickle(1), "builtins.int"),
        (lambda: None, "builtins.function"),
        (2**80, "builtins.int"),
        (Exception("x"), "builtins.Exception"),
        (frozenset({1}), "builtins.frozenset"),
        (Colour.RED, "tests.cluster.test_outbound_messages.Colour"),
    ],
)
def test_what_would_be_pickled_raises_with_operation_and_type(value: Any, named: str) -> None:
    with pytest.raises(PermissionError, match=f"'queue_put' would send {named}, which only a pickle can carry"):
        sendable({"op": "queue_put", "data": [value]})
    with pytest.raises(PermissionError, match=f"'a reply' would send {named}, which"):
        sendable([value])


@pytest.mark.parametrize(
    ("value", "named"), [(CYCLE, "builtins.list"), ("\ud800", "builtins.str"), ({2**64: 1}, "builtins.int")]
)
def test_what_nothing_could_carry_raises_likewise(value: Any, named: str) -> None:
    with pytest.raises(PermissionError, match=f"'queue_put' would send {named}") as raised:
        sendable({"op": "queue_put", "data": value})
    pickle.dumps(
        raised.value
    )  # with the errors before it, were there any: a RecursionError with its traceback is too deep


@pytest.mark.parametrize("innermost", [0, {1}, {Status.running}, to_serialize(1)], ids=repr)
@pytest.mark.parametrize("levels", range(1012, 1028))
def test_what_is_as_deep_as_msgpack_can_is_read_or_refused(innermost: Any, levels: int) -> None:
    message = {"op": "task-finished", "key": "k", "metadata": nested(levels, innermost)}
    try:
        sent = sendable(message)
    except PermissionError:
        sent = failed_task(message, "why")
    decode(list(dumps([sent])))


def test_that_limit_is_near() -> None:
    assert sendable(nested(1000, 0))
    with pytest.raises(PermissionError, match="too deep"):
        sendable(nested(1028, 0))


def test_a_hundred_levels_are_converted() -> None:
    assert sendable(nested(101, np.int64(1))) == nested(101, 1)
    with pytest.raises(PermissionError, match="too deep"):
        sendable(nested(102, np.int64(1)))


def nested(levels: int, value: Any) -> Any:
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("key", ["__Pickled__", "__Serialized__", "__Set__", "__Enum__"])
def test_a_dict_that_dask_would_mistake_raises(key: str) -> None:
    with pytest.raises(PermissionError, match=f"would send {key}"):
        sendable({"op": "queue_put", "data": [{"a": {key: 1}}]})
    with pytest.raises(PermissionError, match=f"would send {key}"):
        sendable([0, ("x", {"b": 1, key: 1})])
    assert sendable({"op": "queue_put", "data": key}) == {"op": "queue_put", "data": key}


class Mute:
    def __repr__(self) -> str:
        raise ValueError


@pytest.mark.parametrize("operation", ["heartbeat_worker", "log-event", "register-worker", "task-erred"])
@pytest.mark.parametrize(
    ("figure", "report"),
    [
        (1, 1),
        (np.arange(2), "array([0, 1])"),
        (np.int64(3), 3),
        ({Colour.RED: 4}, {"<Colour.RED: 1>": 4}),
        ({("a", 2**70): 5}, {("a", float(2**70)): 5}),
        ({"__Set__": 6}, {"'__Set__'": 6}),
        (Decimal("0.5"), 0.5),
        (10**400, str(10**400)[:200]),
        (10**5000, "<int>"),
        (1j, "1j"),
        ("\ud800", r"'\ud800'"),
        (CYCLE, ["[[...]]"]),
        (Mute(), "<Mute>"),
    ],
    ids=lambda value: f"{value!r:.20}" if not isinstance(value, (Mute, int)) else "value",
)
def test_a_report_goes_out_with_text_in_place_of_what_cannot(operation: str, figure: Any, report: Any) -> None:
    sent = sendable({"op": operation, "metrics": {"figure": figure}})
    assert sent["metrics"]["figure"] == report
    decode(list(dumps(sent)))


def test_a_task_that_cannot_report_fails_alone() -> None:
    finished = {
        "op": "task-finished",
        "key": "k",
        "run_id": 4,
        "stimulus_id": "s",
        "thread": 5,
        "metadata": np.arange(3),
    }
    erred = failed_task(finished, "why")
    assert decode(dumps(erred))["exception_text"] == "PermissionError('why')"
    error = pickle.loads(erred.pop("exception").data)  # noqa: S301 - of ours
    assert (type(error), error.args) == (PermissionError, ("why",))
    assert erred == {
        "op": "task-erred",
        "status": "error",
        "key": "k",
        "run_id": 4,
        "stimulus_id": "s",
        "traceback": None,
        "exception_text": "PermissionError('why')",
        "traceback_text": "",
        "thread": None,
        "startstops": [],
    }
