"""The reader without pickle: the same messages as Dask's own decoder, and an error for everything else."""

from __future__ import annotations

import contextlib
import pickle
from typing import Any

import msgpack
import numpy as np
import pytest
from distributed.core import Status
from distributed.protocol.core import dumps, loads
from distributed.protocol.serialize import Serialize, Serialized, ToPickle
from hypothesis import given, settings
from hypothesis import strategies as st

from daskpki.cluster.no_pickle import GateError, OpaquePickle, decode

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
plain = st.recursive(
    scalars | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.sets(st.text() | st.integers(0, 9)),
    max_leaves=20,
)


def packed(message: Any) -> list[Any]:
    return [msgpack.packb(message)]


@settings(deadline=None)
@given(plain)
def test_reads_what_dask_reads(message: Any) -> None:
    frames = dumps({"op": "x", "value": message})
    assert decode(frames) == loads(frames, deserialize=False)


@pytest.mark.every_version
def test_serialized_objects_stay_closed() -> None:
    message = decode(dumps({"op": "x", "value": Serialize({"a": 1}), "other": [Serialize(b"b" * 100)]}))
    assert isinstance(message["value"], Serialized)
    assert isinstance(message["other"][0], Serialized)


@pytest.mark.every_version
def test_enums_of_dask_are_members() -> None:
    assert decode(dumps({"status": Status.running}))["status"] is Status.running


class Canary:
    sang = False

    def __reduce__(self) -> Any:
        return setattr, (Canary, "sang", True)


def sang() -> bool:
    return Canary.sang


@pytest.mark.every_version
@pytest.mark.parametrize("message", [{"op": ToPickle(Canary())}, ToPickle(Canary()), [{"a": [ToPickle(Canary())]}]])
def test_pickles_are_refused_unread(message: Any) -> None:
    frames = dumps(message)
    with pytest.raises(GateError, match="a pickled object"):
        decode(frames)
    assert not sang()
    loads(frames)  # the control: Dask's decoder runs it
    assert sang()
    Canary.sang = False


@pytest.mark.every_version
@pytest.mark.parametrize(
    "message",
    [
        {"__Pickled__": 0},
        {"__Pickled__": False},
        {"__Serialized__": 7},
        {"__Serialized__": -1},
        {"__Serialized__": 0},
        {"__Serialized__": "1"},
        {"__Serialized__": True},
        {"__Enum__": True, "__module__": "os", "__name__": "system", "name": "x"},
        {"__Enum__": True, "__module__": "distributed.core", "__name__": "Server", "name": "close"},
        {"__Enum__": True, "__module__": "distributed.never_imported", "__name__": "X", "name": "x"},
        {"__Enum__": True, "__module__": "distributed.core", "__name__": "Status", "name": "mro"},
        {"__Enum__": True},
        {"__Set__": True},
    ],
)
def test_crafted_objects_are_refused(message: Any) -> None:
    with pytest.raises(GateError):
        decode(packed(message))


@pytest.mark.parametrize(
    "value",
    [
        dict.fromkeys(range(5000)),
        dict.fromkeys((number, (None, 1.5)) for number in range(5000)),
        {"__Set__": True, "as-list": list(range(5000))},
    ],
)
def test_numbers_that_could_collide_are_refused(value: Any) -> None:
    """Of 700,000 numbers in a dict each may meet all others: a message of 6 MB would stop a scheduler for an hour."""
    with pytest.raises(GateError, match="more than 4096 numbers"):
        decode(packed({"a": [value]}))


def test_control_many_texts_and_some_numbers_are_read() -> None:
    message = {"a": {("x", number): number for number in range(5000)}, "b": dict.fromkeys(range(4096))}
    assert decode(packed(message)) == message


def test_headers_are_counted_as_the_message_is() -> None:
    """Each of 200 is below the bound, and what it has beside its count takes 80 times its bytes."""
    header = msgpack.packb({"num-sub-frames": 0, "x": [{}] * 100_000})
    message = [{"__Serialized__": number} for number in range(1, 201)]
    with pytest.raises(GateError, match="more than 4194304 values"):
        decode([*packed(message), *[header] * 200])
    assert len(decode([*packed(message[:60]), *[header] * 60])) == 60


@settings(deadline=None)
@given(st.lists(st.binary(), max_size=4))
def test_hostile_bytes_raise_one_error(frames: list[bytes]) -> None:
    with contextlib.suppress(GateError):
        decode(frames)


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_damaged_messages_raise_one_error(noise: bytes, position: int) -> None:
    frame = bytearray(dumps({"op": "heartbeat_worker", "address": "tls://10.0.0.1:1", "metrics": {"a": [1, 2, 3]}})[0])
    frame[position % len(frame) : position % len(frame) + len(noise)] = noise
    with contextlib.suppress(GateError):
        decode([bytes(frame)])


@pytest.mark.every_version
def test_a_sealed_reader_keeps_pickles_as_they_came() -> None:
    frames = dumps({"op": "x", "value": ToPickle(Canary()), "many": [ToPickle(np.arange(5))]})
    message = decode(frames, keeps_pickles=True)
    assert not sang()
    assert isinstance(message["value"], OpaquePickle)
    assert len({message["value"], decode(frames, keeps_pickles=True)["value"]}) == 1  # a name may be one
    (array,) = loads(dumps({"many": message["many"]}))["many"]  # whoever it is handed on to may open it
    assert array.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("header", [{"num-sub-frames": 0}, {"num-sub-frames": 0, "pickled-obj": [1]}])
def test_a_pickle_without_bytes_is_refused(header: dict[str, Any]) -> None:
    frames = [msgpack.packb({"x": {"__Pickled__": 1}}), msgpack.packb(header)]
    with pytest.raises(GateError, match="without its pickle"):
        decode(frames, keeps_pickles=True)


def test_pickled_bytes_are_bytes() -> None:
    data = pickle.dumps(Canary())
    assert decode(packed({"key": data})) == {"key": data}
    assert not Canary.sang
