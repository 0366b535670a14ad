"""The reader without pickle: the same messages as Dask's own decoder, and an error for everything else."""

from __future__ import annotations

import contextlib
import pickle
from typing import Any

import msgpack
import pytest
from distributed.core import Status
from distributed.protocol.core import dumps, loads
from distributed.protocol.serialize import Serialize, Serialized, ToPickle
from hypothesis import given, settings
from hypothesis import strategies as st

from daskpki.cluster.no_pickle import GateError, decode

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


def test_pickled_bytes_are_bytes() -> None:
    data = pickle.dumps(Canary())
    assert decode(packed({"key": data})) == {"key": data}
    assert not Canary.sang
