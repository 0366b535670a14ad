"""The honest worker's own side of the pickle gate: nothing leaves that the scheduler would have to unpickle.

distributed falls back to pickle in silence when msgpack meets a type that it does not know; a scheduler behind the gate
refuses such a message. So it is looked for before it is sent: numpy's scalars become Python's numbers,
and for what is left the caller gets a PermissionError that names operation and type. So it does for what nothing could
carry (a list within itself, an integer beyond 64 bits), at which stock Dask closes the stream, and the worker with it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from enum import Enum
from numbers import Number
from typing import Any, Final

import msgpack
from distributed.protocol import pickle
from distributed.protocol.serialize import Serialize, Serialized, ToPickle, to_serialize

from daskpki.cluster.gate import may_name_enum, nested

REPORTS: Final = frozenset({"heartbeat_worker", "log-event", "register-worker", "task-erred"})
"""What of these cannot travel goes as text: without them the worker would count as lost, or its task as running."""
_MARKER: Final = re.compile(rb"__(Pickled|Serialized|Set|Enum)__")
_DEEPEST: Final = 100
"""Levels down to which a value that cannot travel as it is gets looked through."""


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
    # Deeper than the gate asks for by four levels: it may go in a batch, and an enum in a set is two levels deeper than
    # its stand-in.
    packed = msgpack.packb([[[[nested(message)]]]], default=_stand_in, use_bin_type=True)
    if _MARKER.search(packed) and (marker := _marker_in(message)):
        raise _WouldPickleError(marker)


def _marker_in(value: Any) -> str | None:
    """A key in a plain dict by which Dask's decoder would take it for something else."""
    if isinstance(value, dict):
        own = next(filter(_is_marker, value), None)
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
    return _refuse(value)


def _converted(message: Any) -> Any:
    operation = str(message.get("op", "a reply")) if isinstance(message, dict) else "a reply"
    copy, refused = _attempt(message, _describe if operation in REPORTS else _refuse)
    if refused:  # not raised where it is caught: to pickle an error, Dask pickles the errors before it as well
        raise PermissionError(
            f"{operation!r} would send {refused} to the scheduler, where it can come as a pickle at best, and a "
            "worker's certificate does not make the scheduler unpickle; send plain data, or a Future of it"
        )
    return copy


def _attempt(message: Any, other: Callable[[Any], Any]) -> tuple[Any, str]:
    """A copy that can travel, or why there is none."""
    try:
        copy = _numbers(message, other)
        _check(copy)
    except _CANNOT_TRAVEL as error:
        return None, str(error)
    return copy, ""


def _numbers(value: Any, other: Callable[[Any], Any], above: tuple[int, ...] = ()) -> Any:
    """`value` in types that travel, with what `other` makes of the rest; `above` are the ids of what it stands in."""
    if not isinstance(value, (dict, list, tuple, set)):
        return _number(value, other)
    if id(value) in above or len(above) > _DEEPEST:
        return other(value)
    here = (*above, id(value))
    if isinstance(value, dict):
        return {_key(key, other, here): _numbers(each, other, here) for key, each in value.items()}
    kind = next(kind for kind in (list, tuple, set) if isinstance(value, kind))  # a subclass arrives as its base
    return kind(_numbers(each, other, here) for each in value)


def _key(key: Any, other: Callable[[Any], Any], above: tuple[int, ...]) -> Any:
    return other(key) if _is_marker(key) else _numbers(key, other, above)


def _is_marker(key: Any) -> bool:
    return isinstance(key, str) and _MARKER.fullmatch(key.encode(errors="replace")) is not None


def _number(value: Any, other: Callable[[Any], Any]) -> Any:
    if getattr(type(value), "__module__", "") == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()
    return value if travels(value) else other(value)


def _refuse(value: Any) -> Any:
    """Raise what names the type of `value`, or the key that Dask would mistake."""
    if _is_marker(value):
        raise _WouldPickleError(value)
    kind = type(value.data if isinstance(value, ToPickle) else value)
    within = " (within itself, or too deep)" if isinstance(value, (dict, list, tuple, set)) else ""
    raise _WouldPickleError(f"{kind.__module__}.{kind.__qualname__}{within}")


def _describe(value: Any) -> Any:
    """What cannot travel, as a number if it is one, else as text."""
    if isinstance(value, Number):
        with contextlib.suppress(TypeError, OverflowError):  # a complex number, and one beyond every float
            return float(value)  # type: ignore[arg-type]
    try:
        return repr(value)[:200].encode(errors="backslashreplace").decode()
    except Exception:  # noqa: BLE001 - a user's own __repr__ may raise anything
        return f"<{type(value).__qualname__}>"


def failed_task(message: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """`task-erred` in place of an outcome that cannot travel (distributed.worker_state_machine.TaskErredMsg)."""
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
