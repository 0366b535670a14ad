"""Reads messages of Dask's protocol without ever unpickling: for peers whose bytes must not run code here.

distributed's `protocol.loads` calls `pickle.loads` on each `__Pickled__` frame, whatever the comm is told about
deserializing. This reader knows the same format (msgpack in frame 0, further frames by offset) less every
way to run code: `__Pickled__` raises, `__Serialized__` stays opaque, as it does on a scheduler anyway, and an enum must
be a member of a class of Dask's own that is already imported.

What it returns can be encoded again. A scheduler passes on what it was told, and Dask cuts the stream, and with it the
worker or client at its other end, to whom it finds a message that it cannot encode.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from enum import Enum, EnumMeta
from typing import Any, Final

import msgpack
from distributed.protocol.serialize import Serialized

from daskpki.cluster.values import shown
from daskpki.errors import NotTrustedError

_ENUM_PACKAGES: Final = frozenset({"dask", "distributed"})
_LEVELS: Final = 16
"""By so much deeper than it came may a value stand in what a scheduler passes on; msgpack ends at 1024."""


class GateError(NotTrustedError):
    """A message that would run code, or is no message of Dask's; nothing of it was acted upon."""


def decode(frames: Sequence[memoryview | bytes]) -> Any:
    """The message in `frames`; GateError when it holds a pickle, is malformed or could not be encoded again."""
    try:
        message = _unpack(frames[0], _hook(frames))
        msgpack.packb(nested(message), default=_encodable, use_bin_type=True)
    except GateError:
        raise
    except Exception as error:
        raise GateError(f"malformed message ({type(error).__name__})") from error
    return message


def nested(message: Any, levels: int = _LEVELS) -> Any:
    """`message` in that many lists, so that what can be encoded as that can be encoded wherever it is passed on to."""
    for _ in range(levels):
        message = [message]
    return message


def _encodable(value: Any) -> Any:
    """What msgpack packs in place of a value that it does not know; only whether it can counts."""
    if isinstance(value, Serialized):
        return value.header
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, set):
        return list(value)
    raise GateError(f"a {type(value).__name__}, which no message of Dask's holds")


def _unpack(frame: memoryview | bytes, hook: Callable[[dict[Any, Any]], Any]) -> Any:
    # A timestamp becomes a datetime, which does not pass _encodable.
    return msgpack.loads(
        frame, object_hook=hook, ext_hook=_extension, use_list=False, strict_map_key=False, raw=False, timestamp=3
    )


def _extension(code: int, _data: bytes) -> Any:
    raise GateError(f"msgpack's extension {code}, which no message of Dask's holds")


def _hook(frames: Sequence[memoryview | bytes]) -> Callable[[dict[Any, Any]], Any]:
    unused = set(range(1, len(frames)))

    def decode_object(value: dict[Any, Any]) -> Any:
        if "__Pickled__" in value:
            raise GateError("a pickled object")
        if "__Serialized__" in value:
            return _opaque(value["__Serialized__"], frames, unused)
        return _plain(value)

    return decode_object


def _opaque(offset: object, frames: Sequence[memoryview | bytes], unused: set[int]) -> Serialized:
    """The object whose header is at `offset` among the frames, which belong to it alone.

    Where many objects named one frame, the scheduler would send it on as often. An object without frames (`offset` is
    True) is one that distributed nests in a header, never in a message.
    """
    if isinstance(offset, bool) or not isinstance(offset, int) or not 0 < offset < len(frames):
        raise GateError("a serialized object outside the message")
    header = _unpack(frames[offset], _plain)
    count = header["num-sub-frames"] if isinstance(header, dict) else None
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < len(frames) - offset:
        raise GateError("a serialized object whose header does not count its frames")
    own = set(range(offset, offset + count + 1))
    if not own <= unused:
        raise GateError("two serialized objects in one frame")
    unused -= own
    return Serialized(header, list(frames[offset + 1 : offset + 1 + count]))


def _plain(value: dict[Any, Any]) -> Any:
    if "__Set__" in value:
        return set(value["as-list"])
    if "__Enum__" in value:
        return _member(value["__module__"], value["__name__"], value["name"])
    return value


def may_name_enum(module: str) -> bool:
    """Whether enums of that module are read."""
    return module.partition(".")[0] in _ENUM_PACKAGES


def _member(module: str, name: str, member: str) -> Any:
    if not may_name_enum(module):
        raise GateError(f"an enum of {shown(module)}")
    enum = vars(sys.modules[module]).get(name)  # not getattr, which runs a module's own __getattr__
    if not isinstance(enum, EnumMeta):
        raise GateError(f"{shown(module)}.{shown(name)}, which is no enum")
    return enum[member]
