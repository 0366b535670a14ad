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
from distributed.protocol.serialize import Serialize, Serialized, ToPickle, deserialize
from hypothesis import given, settings
from hypothesis import strategies as st

from daskpki.cluster.no_pickle import OpaquePickle, UnsafeMessageError, decode, from_text, nested

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
keys = st.text().filter(lambda key: not key.startswith("__"))  # Dask would mistake some; test_crafted_objects has them
plain = st.recursive(
    scalars | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.sets(st.text() | st.integers(0, 9)),
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
    with pytest.raises(UnsafeMessageError, match="a pickled object"):
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
    with pytest.raises(UnsafeMessageError):
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
    with pytest.raises(UnsafeMessageError, match="more than 4096 numbers"):
        decode(packed({"a": [value]}))


def test_control_many_texts_and_some_numbers_are_read() -> None:
    message = {"a": {("x", number): number for number in range(5000)}, "b": dict.fromkeys(range(4096))}
    assert decode(packed(message)) == message


@pytest.mark.parametrize(
    ("value", "count"),
    [
        *((number, 1) for number in (0, 127, 128, -1, -32, -33, 2**64 - 1, 1.5)),
        *((text, 1) for text in ("", "a" * 31, "a" * 2**8, "a" * 2**16, b"", b"a" * 2**8, None, True)),
        *(([None] * size, size + 1) for size in (0, 1, 15, 16, 2**16)),
        *((dict.fromkeys("abcdefghijklmnopq"[:size]), 2 * size + 1) for size in (0, 1, 15, 16)),
        (dict.fromkeys(map(str, range(2**16))), 2**17 + 1),
        ({"a": [{}, [[]]], "b": {"c": {"d": 1}}}, 12),
    ],
    ids=lambda value: f"{value!r:.12}",
)
def test_each_value_counts_whatever_its_form(monkeypatch: pytest.MonkeyPatch, value: Any, count: int) -> None:
    message = [value, "longer than the message has values" * 10_000]
    monkeypatch.setattr("daskpki.cluster.no_pickle.MOST_ITEMS", count + 2)
    decode(packed(message))
    monkeypatch.setattr("daskpki.cluster.no_pickle.MOST_ITEMS", count + 1)
    with pytest.raises(UnsafeMessageError, match=f"more than {count + 1} values"):
        decode(packed(message))


def test_a_message_has_at_most_four_million_values() -> None:
    assert len(decode(packed([None] * (2**22 - 5)))) == 2**22 - 5
    with pytest.raises(UnsafeMessageError, match="more than 4194304 values"):
        decode(packed([None] * 2**22))


def test_headers_are_counted_as_the_message_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is below the bound, and what it has beside its count takes 80 times its bytes.

    Frames that are no longer than the rest of the bound use it up by their length. The others are counted, by a bound
    as large, which two of these headers reach.
    """
    header = msgpack.packb({"num-sub-frames": 0, "x": [{}] * 1000})
    frames = [*packed([{"__Serialized__": number} for number in range(1, 5)]), *[header] * 4]
    enough = sum(map(len, frames[:3]))
    monkeypatch.setattr("daskpki.cluster.no_pickle.MOST_ITEMS", enough)
    assert len(decode(frames)) == 4
    monkeypatch.setattr("daskpki.cluster.no_pickle.MOST_ITEMS", enough - 1)
    with pytest.raises(UnsafeMessageError, match=f"more than {enough - 1} values"):
        decode(frames)


@pytest.mark.parametrize("levels", range(1000, 1008 + 16))
def test_what_is_read_can_be_nested_by_sixteen_levels(levels: int) -> None:
    """And no more is asked: a scheduler may put it into a message that deep."""
    message = nested("x", levels)
    try:
        msgpack.packb(nested(message, 16))
    except ValueError:
        with pytest.raises(UnsafeMessageError, match="malformed"):
            decode(packed(message))
    else:
        decode(packed(message))


def test_each_object_has_the_frames_behind_its_header() -> None:
    message = {"a": {"__Serialized__": 1}, "b": [{"__Serialized__": 6}, {"__Serialized__": 4}], "c": 7}
    headers = [msgpack.packb({"num-sub-frames": count}) for count in (2, 1, 0)]
    frames = [*packed(message), headers[0], b"a1", b"a2", headers[1], b"c1", headers[2]]
    read = decode(frames)
    assert [(each.header, each.frames) for each in (read["a"], *read["b"])] == [
        ({"num-sub-frames": 2}, [b"a1", b"a2"]),
        ({"num-sub-frames": 0}, []),
        ({"num-sub-frames": 1}, [b"c1"]),
    ]


@pytest.mark.parametrize("offset", [0, -1, 2, True, 1.0, "1", None])
def test_a_header_outside_the_message_is_refused(offset: Any) -> None:
    header = {"num-sub-frames": 0}
    with pytest.raises(UnsafeMessageError, match="a serialized object outside the message"):
        decode([*packed(header | {"x": {"__Serialized__": offset}}), *packed(header)])


@pytest.mark.parametrize(
    ("offsets", "headers", "reason"),
    [
        ([1], {1: {"num-sub-frames": 4}}, "does not count its frames"),
        ([4], {4: {"num-sub-frames": 1}}, "does not count its frames"),
        ([1], {1: {"num-sub-frames": -1}}, "does not count its frames"),
        ([1], {1: {"num-sub-frames": True}}, "does not count its frames"),
        ([1], {1: {"num-sub-frames": "1"}}, "does not count its frames"),
        ([1], {1: [1]}, "does not count its frames"),
        ([1], {1: {}}, "malformed message"),
        ([5], {}, "outside the message"),
        ([1, 1], {1: {"num-sub-frames": 0}}, "two serialized objects in one frame"),
        ([1, 2], {1: {"num-sub-frames": 1}, 2: {"num-sub-frames": 0}}, "two serialized objects in one frame"),
        ([2, 1], {1: {"num-sub-frames": 3}, 2: {"num-sub-frames": 1}}, "two serialized objects in one frame"),
        ([1, 3], {1: {"num-sub-frames": 2}, 3: {"num-sub-frames": 1}}, "two serialized objects in one frame"),
    ],
)
def test_objects_that_share_frames_or_have_others_than_there_are_are_refused(
    offsets: list[int], headers: dict[int, Any], reason: str
) -> None:
    frames = [msgpack.packb(headers.get(offset, {})) for offset in range(1, 5)]
    with pytest.raises(UnsafeMessageError, match=reason):
        decode([*packed([{"__Serialized__": offset} for offset in offsets]), *frames])


@pytest.mark.parametrize("reply", [None, "error", ["status"], {"status": "OK", "result": 1}])
def test_a_reply_without_an_error_is_itself(reply: Any) -> None:
    reply = decode(packed(reply))
    assert from_text(reply) is reply


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ValueError('x')", ValueError),
        ("KeyError('x')", KeyError),
        ("UnicodeDecodeError('x')", RuntimeError),
        ("OwnError('x')", RuntimeError),
        ("KeyboardInterrupt()", RuntimeError),
        ("int('x')", RuntimeError),
        ("print('x')", RuntimeError),
        ("ValueError", RuntimeError),
        ("a ValueError('x')", RuntimeError),
        ("", RuntimeError),
    ],
)
def test_an_error_is_rebuilt_from_its_text_as_a_built_in_exception(text: str, kind: type[Exception]) -> None:
    frames = dumps({"status": "error", "exception_text": text, "traceback_text": "line 1", "exception": ToPickle(1)})
    rebuilt = from_text(decode(frames, keeps_pickles=True))
    error, traceback = (deserialize(rebuilt[name].header, rebuilt[name].frames) for name in ("exception", "traceback"))
    exception = pickle.loads(error)  # noqa: S301 - of ours
    assert (type(exception), exception.args) == (kind, (text,))
    assert (rebuilt["status"], rebuilt["exception_text"]) == ("error", text)
    assert (traceback, rebuilt["traceback_text"]) == (None, "line 1")
    assert from_text({})["exception_text"] == "no text"


@settings(deadline=None)
@given(st.lists(st.binary(), max_size=4))
def test_hostile_bytes_raise_one_error(frames: list[bytes]) -> None:
    with contextlib.suppress(UnsafeMessageError):
        decode(frames)


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_damaged_messages_raise_one_error(noise: bytes, position: int) -> None:
    frame = bytearray(dumps({"op": "heartbeat_worker", "address": "tls://10.0.0.1:1", "metrics": {"a": [1, 2, 3]}})[0])
    frame[position % len(frame) : position % len(frame) + len(noise)] = noise
    with contextlib.suppress(UnsafeMessageError):
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
    with pytest.raises(UnsafeMessageError, match="without its pickle"):
        decode(frames, keeps_pickles=True)


def test_pickled_bytes_are_bytes() -> None:
    data = pickle.dumps(Canary())
    assert decode(packed({"key": data})) == {"key": data}
    assert not Canary.sang
