"""Reads messages of Dask's protocol without ever unpickling: for peers whose bytes must not run code here.

distributed's `protocol.loads` calls `pickle.loads` on each `__Pickled__` frame, whatever the comm is told about
deserializing. This reader knows the same format (msgpack in frame 0, further frames by offset) less every
way to run code: `__Pickled__` raises, `__Serialized__` stays opaque, as it does on a scheduler anyway, and an enum must
be a member of a class of Dask's own that is already imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from enum import EnumMeta
from typing import Any, Final

import msgpack
from distributed.protocol.serialize import Serialized

from daskpki.errors import NotTrustedError

_ENUM_PACKAGES: Final = frozenset({"dask", "distributed"})


class GateError(NotTrustedError):
    """A message that would run code, or is no message of Dask's; nothing of it was acted upon."""


def decode(frames: Sequence[memoryview | bytes]) -> Any:
    """The message in `frames`; GateError when it holds a pickle or is malformed."""
    try:
        return _unpack(frames[0], _hook(frames))
    except GateError:
        raise
    except Exception as error:
        raise GateError(f"malformed message ({type(error).__name__})") from error


def _unpack(frame: memoryview | bytes, hook: Callable[[dict[Any, Any]], Any]) -> Any:
    return msgpack.loads(frame, object_hook=hook, use_list=False, strict_map_key=False, raw=False)


def _hook(frames: Sequence[memoryview | bytes]) -> Callable[[dict[Any, Any]], Any]:
    def decode_object(value: dict[Any, Any]) -> Any:
        if "__Pickled__" in value:
            raise GateError("a pickled object")
        if "__Serialized__" in value:
            return _opaque(value, frames)
        return _plain(value)

    return decode_object


def _opaque(value: dict[Any, Any], frames: Sequence[memoryview | bytes]) -> Serialized:
    offset = value["__Serialized__"]
    if offset is True:  # inline, as distributed nests them
        return Serialized(*value["data"])
    if not 0 < offset < len(frames):
        raise GateError("a serialized object outside the message")
    header = _unpack(frames[offset], _plain)
    return Serialized(header, list(frames[offset + 1 : offset + 1 + header["num-sub-frames"]]))


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
        raise GateError(f"an enum of {module!r}")
    enum = vars(sys.modules[module]).get(name)  # not getattr, which runs a module's own __getattr__
    if not isinstance(enum, EnumMeta):
        raise GateError(f"{module}.{name}, which is no enum")
    return enum[member]
