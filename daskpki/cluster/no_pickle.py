"""Decodes and checks messages of Dask's protocol without ever unpickling.

distributed's `protocol.loads` calls `pickle.loads` on each `__Pickled__` frame, whatever the comm is told about
deserializing. The decoder here reads the same format (msgpack in frame 0, further frames by offset) without any way to
run code: `__Pickled__` raises, `__Serialized__` stays opaque, as it does on a scheduler anyway, and an enum must be a
member of a class of Dask that is already imported. What it returns can be encoded again, since Dask closes the
stream to a peer if it cannot encode a message for that peer.

Three parts:

- the reader, for peers whose bytes must not run code here;
- error replies that scheduler code would unpickle, rebuilt from their text. `PipInstall`, `CondaInstall` and
  `UploadDirectory` deserialize the exceptions of nannies and workers (distributed.diagnostics.plugin);
- the honest sender's side. distributed falls back to pickle silently when msgpack meets an unknown type, so the worker
  looks before it sends: numpy scalars become Python numbers, anything else raises a PermissionError that names
  operation and type. Stock Dask closes the stream, and loses the worker, on values that nothing can carry.
"""

from __future__ import annotations

import builtins
import contextlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, EnumMeta
from numbers import Number
from typing import Any, Final

import msgpack
from distributed.protocol import pickle
from distributed.protocol.serialize import Pickled, Serialize, Serialized, ToPickle, serialize, to_serialize

from daskpki.cluster.values import MOST_NUMBERS, may_collide
from daskpki.errors import NotTrustedError
from daskpki.quoting import shown

_ENUM_PACKAGES: Final = frozenset({"dask", "distributed"})
MOST_ITEMS: Final = 1 << 22
"""Most values of one message: so many empty maps, of 80 bytes each, take 340 MB."""
_MAPS: Final = frozenset({*range(0x80, 0x90), 0xDE, 0xDF})
_ARRAYS: Final = frozenset({*range(0x90, 0xA0), 0xDC, 0xDD})
_LEVELS: Final = 16
"""Levels of nesting that a scheduler may add to a value that it passes on; msgpack's limit is 1024."""


class UnsafeMessageError(NotTrustedError):
    """A message that would run code, or is not a message of Dask; no part of it was used."""


class OpaquePickle(Pickled):
    """A peer's pickle, passed on unread to its receiver. It can be hashed, since a name or a key may be one."""

    def __hash__(self) -> int:
        return hash(self.header.get("pickled-obj"))


def decode(frames: Sequence[memoryview | bytes], *, keeps_pickles: bool = False) -> Any:
    """Decode a message; UnsafeMessageError if it has a pickle, is malformed, or could not be encoded again.

    With `keeps_pickles`, for a sealed scheduler's clients, a pickle becomes an OpaquePickle.
    """
    try:
        items = _Items()
        message = items.unpack(frames[0], _hook(frames, items, keeps_pickles=keeps_pickles))
        msgpack.packb(nested(message), default=_encodable, use_bin_type=True)
    except UnsafeMessageError:
        raise
    except Exception as error:
        raise UnsafeMessageError(f"malformed message ({type(error).__name__})") from error
    return message


def nested(message: Any, levels: int = _LEVELS) -> Any:
    """Nest `message` in lists: if the result can be encoded, `message` can be encoded wherever it is passed on."""
    for _ in range(levels):
        message = [message]
    return message


def _encodable(value: Any) -> Any:
    """Return a stand-in for a value that msgpack does not know; only whether it can be packed matters."""
    if isinstance(value, Serialized):
        return value.header
    if isinstance(value, OpaquePickle):
        return value.header | {"pickled-obj": b""}  # bytes can always be encoded, and there may be many
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, set):
        return list(value)
    raise UnsafeMessageError(f"a {type(value).__name__}, which no message of Dask has")


class _Items:
    """Limits the number of values in one message's frames: an empty map is 1 byte on the wire, and 80 in memory."""

    def __init__(self) -> None:
        self._uncounted = self._left = MOST_ITEMS

    def unpack(self, frame: memoryview | bytes, hook: Callable[[dict[Any, Any]], Any]) -> Any:
        """Unpack `frame` by msgpack; UnsafeMessageError if it has too many values."""
        if len(frame) <= self._uncounted:  # a value takes at least one byte
            self._uncounted -= len(frame)
        else:
            self._left -= _count(frame, self._left)
        # A timestamp becomes a datetime, which does not pass _encodable.
        return msgpack.loads(
            frame,
            object_pairs_hook=lambda pairs: hook(_mapping(pairs)),
            ext_hook=_extension,
            use_list=False,
            strict_map_key=False,
            raw=False,
            timestamp=3,
        )


def _mapping(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    if may_collide([key for key, _ in pairs] if len(pairs) > MOST_NUMBERS else ()):
        raise UnsafeMessageError(f"more than {MOST_NUMBERS} numbers as keys")
    return dict(pairs)


def _count(frame: memoryview | bytes, most: int) -> int:
    """Count the values in `frame`; UnsafeMessageError above `most`."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(frame))  # type: ignore[attr-defined]  # of the extension's or Python
    unpacker.feed(frame)
    passed, announced = 0, 1
    while passed < announced:
        if announced > most:
            raise UnsafeMessageError(f"more than {MOST_ITEMS} values")
        kind = frame[unpacker.tell()]
        if kind in _MAPS:
            announced += 2 * unpacker.read_map_header()
        elif kind in _ARRAYS:
            announced += unpacker.read_array_header()
        else:
            unpacker.skip()
        passed += 1
    return announced


def _extension(code: int, _data: bytes) -> Any:
    raise UnsafeMessageError(f"msgpack's extension {code}, which no message of Dask has")


def _hook(
    frames: Sequence[memoryview | bytes], items: _Items, *, keeps_pickles: bool
) -> Callable[[dict[Any, Any]], Any]:
    unused = set(range(len(frames)))

    def decode_object(value: dict[Any, Any]) -> Any:
        if "__Pickled__" in value:
            if not keeps_pickles:
                raise UnsafeMessageError("a pickled object")
            header, own = _opaque(value["__Pickled__"], frames, items, unused)
            if not isinstance(header.get("pickled-obj"), bytes):
                raise UnsafeMessageError("a pickled object without its pickle")
            return OpaquePickle(header, own)
        if "__Serialized__" in value:
            return Serialized(*_opaque(value["__Serialized__"], frames, items, unused))
        return _plain(value)

    return decode_object


def _opaque(
    offset: object, frames: Sequence[memoryview | bytes], items: _Items, unused: set[int]
) -> tuple[dict[Any, Any], list[memoryview | bytes]]:
    """Return header and frames of the object whose header is at `offset`; no two objects may share a frame.

    If many objects named one frame, the scheduler would send it many times. distributed nests an object without frames
    (`offset` is True) in a header, never in a message.
    """
    if isinstance(offset, bool) or not isinstance(offset, int) or not 0 < offset < len(frames):
        raise UnsafeMessageError("a serialized object outside the message")
    header = items.unpack(frames[offset], _plain)
    count = header["num-sub-frames"] if isinstance(header, dict) else None
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < len(frames) - offset:
        raise UnsafeMessageError("a serialized object whose header does not count its frames")
    end = offset + 1 + count
    own = set(range(offset, end))
    if not own <= unused:
        raise UnsafeMessageError("two serialized objects in one frame")
    unused -= own
    return header, list(frames[offset + 1 : end])


def _plain(value: dict[Any, Any]) -> Any:
    if "__Set__" in value:
        if may_collide(value["as-list"]):
            raise UnsafeMessageError(f"more than {MOST_NUMBERS} numbers in a set")
        return set(value["as-list"])
    if "__Enum__" in value:
        return _member(value["__module__"], value["__name__"], value["name"])
    return value


def may_name_enum(module: str) -> bool:
    """True if enums of that module are read."""
    return module.partition(".")[0] in _ENUM_PACKAGES


def _member(module: str, name: str, member: str) -> Any:
    if not may_name_enum(module):
        raise UnsafeMessageError(f"an enum of {shown(module)}")
    enum = vars(sys.modules[module]).get(name)  # not getattr, which runs a module's own __getattr__
    if not isinstance(enum, EnumMeta):
        raise UnsafeMessageError(f"{shown(module)}.{shown(name)}, which is no enum")
    return enum[member]


UNPICKLED: Final = frozenset({"plugin-add", "plugin_add", "plugin-remove", "plugin_remove"})
"""Operations whose error replies the scheduler reads."""

_TYPE: Final = re.compile(r"(\w+)\(")


def from_text(reply: Any) -> Any:
    """Return `reply`; an error is rebuilt from its text with a built-in exception."""
    if not isinstance(reply, dict) or reply.get("status") == "OK":
        return reply
    text = str(reply.get("exception_text", "no text"))
    return {
        "status": "error",
        "exception": Serialized(*serialize(pickle.dumps(_exception(text)))),
        "traceback": Serialized(*serialize(None)),
        "exception_text": text,
        "traceback_text": str(reply.get("traceback_text", "")),
    }


def _exception(text: str) -> Exception:
    """Make an exception of the type that the text names, if it is built-in, else a RuntimeError."""
    found = _TYPE.match(text)
    kind = getattr(builtins, found.group(1), None) if found else None
    if not isinstance(kind, type) or not issubclass(kind, Exception):
        return RuntimeError(text)
    try:
        return kind(text)
    except TypeError:  # UnicodeDecodeError, for example, takes more than a text
        return RuntimeError(text)


REPORTS: Final = frozenset({"heartbeat_worker", "log-event", "register-worker", "task-erred"})
"""Operations whose unsendable values are sent as text: else the worker would seem lost, or its task running."""
_MARKER: Final = re.compile(rb"__(Pickled|Serialized|Set|Enum)__")
_DEEPEST: Final = 100
"""Levels down to which an unsendable value is converted."""


class _WouldPickleError(Exception):
    """A value that msgpack and Dask's serialized frames cannot carry: a type's name, or a dict's key."""


_CANNOT_TRAVEL: Final = (TypeError, ValueError, OverflowError, RecursionError, _WouldPickleError)


def sendable(message: Any) -> Any:
    """Return `message` if no pickle is in it, else a copy with numpy's scalars as Python numbers.

    PermissionError with operation and type if the copy would have a pickle, too.
    """
    copy, refused = try_sendable(message)
    if refused:  # not raised in `except`: to pickle an error, Dask pickles its context as well
        raise PermissionError(refused)
    return copy


def try_sendable(message: Any) -> tuple[Any, str]:
    """Return the result of `sendable`, or the text of its error."""
    if travels(message):
        return message, ""
    operation = str(message.get("op", "a reply")) if isinstance(message, dict) else "a reply"
    try:
        copy = _numbers(message, _describe if operation in REPORTS else _refuse)
        _check(copy)
    except _CANNOT_TRAVEL as error:
        return None, (
            f"{operation!r} would send {error}, which only a pickle can carry; the scheduler unpickles nothing that a "
            "worker's certificate sends. Send plain data, or a Future of it"
        )
    return copy, ""


def travels(message: Any) -> bool:
    """True if no pickle is in `message`, which may be a batch."""
    try:
        _check(message)
    except _CANNOT_TRAVEL:
        return False
    return True


def _check(message: Any) -> None:
    # Four levels deeper than is asked for: the message may go in a batch, and an enum in a set is two levels
    # deeper than its stand-in.
    packed = msgpack.packb([[[[nested(message)]]]], default=_stand_in, use_bin_type=True)
    if _MARKER.search(packed) and (marker := _marker_in(message)):
        raise _WouldPickleError(marker)


def _marker_in(value: Any) -> str | None:
    """Find a key because of which Dask's decoder would take a plain dict for an encoded object."""
    if isinstance(value, dict):
        own = next(filter(_is_marker, value), None)
        return own or _marker_in([*value.values()])
    if isinstance(value, (list, tuple, set)):
        return next((found for each in value if (found := _marker_in(each))), None)
    return None


def _stand_in(value: Any) -> Any:
    """Return a stand-in for `value`; only whether it can be packed matters, so frames are not examined."""
    if isinstance(value, (Serialize, Serialized)):
        return None
    if isinstance(value, Enum) and may_name_enum(value.__module__):
        return value.name
    if isinstance(value, set):
        return list(value)
    return _refuse(value)


def _numbers(value: Any, other: Callable[[Any], Any], above: tuple[int, ...] = ()) -> Any:
    """Convert `value` to sendable types, by `other` for the rest; `above` are the ids of its containers."""
    if not isinstance(value, (dict, list, tuple, set)):
        if getattr(type(value), "__module__", "") == "numpy" and getattr(value, "ndim", None) == 0:
            value = value.item()
        return value if travels(value) else other(value)
    if id(value) in above or len(above) > _DEEPEST:
        return other(value)
    here = (*above, id(value))
    if isinstance(value, dict):
        keys = (other(key) if _is_marker(key) else _numbers(key, other, here) for key in value)
        return dict(zip(keys, (_numbers(each, other, here) for each in value.values()), strict=True))
    kind = next(kind for kind in (list, tuple, set) if isinstance(value, kind))  # a subclass arrives as its base
    return kind(_numbers(each, other, here) for each in value)


def _is_marker(key: Any) -> bool:
    return isinstance(key, str) and _MARKER.fullmatch(key.encode(errors="replace")) is not None


def _refuse(value: Any) -> Any:
    """Raise an error that names the type of `value`, or the key that Dask would mistake."""
    if _is_marker(value):
        raise _WouldPickleError(value)
    kind = type(value.data if isinstance(value, ToPickle) else value)
    within = " (within itself, or too deep)" if isinstance(value, (dict, list, tuple, set)) else ""
    raise _WouldPickleError(f"{kind.__module__}.{kind.__qualname__}{within}")


def _describe(value: Any) -> Any:
    """Convert an unsendable value to a float if it is a number, else to text."""
    if isinstance(value, Number):
        with contextlib.suppress(TypeError, OverflowError):  # a complex number, and one beyond every float
            return float(value)  # type: ignore[arg-type]
    try:
        return repr(value)[:200].encode(errors="backslashreplace").decode()
    except Exception:  # noqa: BLE001 - a user's own __repr__ may raise anything
        return f"<{type(value).__qualname__}>"


def failed_task(message: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """Make a `task-erred` in place of an unsendable outcome (distributed.worker_state_machine.TaskErredMsg)."""
    error = PermissionError(reason)
    return {
        "op": "task-erred",
        "status": "error",
        "key": message["key"],
        "run_id": message.get("run_id"),
        "stimulus_id": message.get("stimulus_id"),
        "exception": to_serialize(pickle.dumps(error)),
        "traceback": None,
        "exception_text": repr(error),
        "traceback_text": "",
        "thread": None,
        "startstops": [],
    }
