"""What leaves an honest worker: never a pickle that the scheduler would have to load."""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np
import pytest
from distributed.core import Status
from distributed.protocol.core import dumps
from distributed.protocol.serialize import ToPickle, to_serialize
from hypothesis import given
from hypothesis import strategies as st

from daskpki.cluster.gate import decode
from daskpki.cluster.sender import failed_task, sendable

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


@pytest.mark.parametrize(
    "value", [np.arange(3), object(), ToPickle(1), lambda: None, 2**80, Exception("x"), frozenset({1}), Colour.RED]
)
def test_what_would_be_pickled_raises_with_operation_and_type(value: Any) -> None:
    with pytest.raises(PermissionError, match=r"'queue_put' would send .* as a pickle"):
        sendable({"op": "queue_put", "data": [value]})


@pytest.mark.parametrize("value", [CYCLE, "\ud800"])
def test_what_nothing_could_carry_raises_likewise(value: Any) -> None:
    with pytest.raises(PermissionError, match="'queue_put' would send"):
        sendable({"op": "queue_put", "data": value})


@pytest.mark.parametrize("key", ["__Pickled__", "__Serialized__", "__Set__", "__Enum__"])
def test_a_dict_that_dask_would_mistake_raises(key: str) -> None:
    with pytest.raises(PermissionError, match=f"would send {key}"):
        sendable({"op": "queue_put", "data": [{"a": {key: 1}}]})
    assert sendable({"op": "queue_put", "data": key}) == {"op": "queue_put", "data": key}


@pytest.mark.parametrize("operation", ["heartbeat_worker", "register-worker"])
def test_a_report_goes_out_with_text_in_place_of_what_cannot(operation: str) -> None:
    figures = {"ok": 1, "array": np.arange(2), "number": np.int64(3), Colour.RED: 4}
    report = sendable({"op": operation, "metrics": figures})
    assert report["metrics"] == {"ok": 1, "array": "array([0, 1])", "number": 3, "<Colour.RED: 1>": 4}


def test_a_task_that_cannot_report_fails_alone() -> None:
    finished = {
        "op": "task-finished",
        "key": "k",
        "run_id": 4,
        "stimulus_id": "s",
        "thread": 5,
        "metadata": np.arange(3),
    }
    erred = failed_task(finished, PermissionError("why"))
    assert decode(dumps(erred))["exception_text"] == "PermissionError('why')"
    assert {field: erred[field] for field in ("op", "key", "run_id", "stimulus_id")} == {
        "op": "task-erred",
        "key": "k",
        "run_id": 4,
        "stimulus_id": "s",
    }
