"""The honest worker's own side of the pickle gate: nothing leaves that the scheduler would have to unpickle.

distributed falls back to pickle in silence when msgpack meets a type that it does not know; a scheduler behind the gate
refuses such a message. So it is looked for before it is sent: numpy's scalars become Python's numbers,
and for what is left the caller gets a PermissionError that names operation and type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final

import msgpack
from distributed.protocol import pickle
from distributed.protocol.serialize import Serialize, Serialized, ToPickle, to_serialize

from daskpki.cluster.gate import may_name_enum

_TELEMETRY: Final = frozenset({"heartbeat_worker", "register-worker"})
"""Reports of figures: one that cannot travel is left out, since without any report the worker would count as lost."""
_MARKER: Final = re.compile(rb"__(Pickled|Serialized|Set|Enum)__")


class _WouldPickleError(Exception):
    """What msgpack and Dask's serialized frames cannot carry: a type's name, or a dict's key."""


_CANNOT_TRAVEL: Final = (TypeError, ValueError, OverflowError, RecursionError, _WouldPickleError)


def sendable(message: Any) -> Any:
    """`message` itself when no pickle is in it, else a copy with numpy's scalars as Python numbers.

    PermissionError, with operation and type in it, when that is not enough.
    """
    return message if travels(message) else _converted(message)


def travels(message: Any) -> bool:
    """Whether no pickle is in `message`, which may be a whole batch."""
    try:
        _check(message)
    except _CANNOT_TRAVEL:
        return False
    return True


def _check(message: Any) -> None:
    packed = msgpack.packb(message, default=_stand_in, use_bin_type=True)
    if _MARKER.search(packed) and (marker := _marker_in(message)):
        raise _WouldPickleError(marker)


def _marker_in(value: Any) -> str | None:
    """A key in a plain dict by which Dask's decoder would take it for something else."""
    if isinstance(value, dict):
        own = next((key for key in value if isinstance(key, str) and _MARKER.fullmatch(key.encode())), None)
        return own or _marker_in([*value.values()])
    if isinstance(value, (list, tuple, set)):
        return next((found for each in value if (found := _marker_in(each))), None)
    return None


def _stand_in(value: Any) -> Any:
    """What msgpack packs in place of `value`; only whether it can counts here, so frames are not looked into."""
    if isinstance(value, (Serialize, Serialized)):
        return None
    if isinstance(value, Enum) and may_name_enum(value.__module__):
        return value.name
    if isinstance(value, set):
        return list(value)
    kind = type(value.data if isinstance(value, ToPickle) else value)
    raise _WouldPickleError(f"{kind.__module__}.{kind.__qualname__}")


def _converted(message: Any) -> Any:
    operation = str(message.get("op", "a reply")) if isinstance(message, dict) else "a reply"
    leave_out = operation in _TELEMETRY
    try:
        copy = _numbers(message, _describe if leave_out else _keep)
        _check(copy)
    except _CANNOT_TRAVEL as error:
        raise PermissionError(
            f"{operation!r} would send {error} to the scheduler as a pickle, and a worker's certificate does not make "
            "the scheduler unpickle; send plain data, or a Future of it"
        ) from None
    return copy


def _numbers(value: Any, other: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {_number(key, other): _numbers(each, other) for key, each in value.items()}
    for kind in (list, tuple, set):  # a subclass arrives as its base, as msgpack sends it anyway
        if isinstance(value, kind):
            return kind(_numbers(each, other) for each in value)
    return _number(value, other)


def _number(value: Any, other: Callable[[Any], Any]) -> Any:
    if value is None or type(value) in (str, bytes, bool, int, float):
        return value
    if getattr(type(value), "__module__", "") == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    return other(value)


def _keep(value: Any) -> Any:
    return value


def _describe(value: Any) -> Any:
    """A figure that cannot travel, as text."""
    return value if travels(value) else repr(value)[:200]


def failed_task(message: Mapping[str, Any], error: Exception) -> dict[str, Any]:
    """`task-erred` in place of a `task-finished` that cannot travel (distributed.worker_state_machine.TaskErredMsg)."""
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
        "thread": message.get("thread"),
        "startstops": [],
    }
