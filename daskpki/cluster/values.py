"""Kinds of argument values, by name, for the tables of `operations`. Pure.

A stock scheduler accepts what a worker reports: `nthreads=NaN` in its tables fails every client's submissions,
`versions=5` every other worker's registration. So a value that the scheduler computes with has a type and a range. A
value that it only stores and passes on (custom metrics, `extra`, extensions, data) is bounded in shape and size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from distributed.core import Status
from distributed.protocol.serialize import Serialize, Serialized

from daskpki.quoting import shown

_TEXT: Final = 4096
"""Characters of a name, an address or a path: PATH_MAX of Linux."""
_LONG: Final = 1 << 24
"""Characters or bytes of texts that a task may make long: a type, the text of an error."""
_EXACT: Final = 1 << 53
"""Sums of a few such integers still travel in msgpack's 64 bits."""
_WIDEST: Final = 1 << 64
_THREADS: Final = 1 << 20  # far more than any machine runs
_STATUSES: Final = frozenset(status.name for status in Status)
_IDENTITY: Final = frozenset(
    {
        *("type", "id", "host", "resources", "local_directory", "name", "nthreads", "memory_limit", "last_seen"),
        *("services", "metrics", "status", "nanny"),
    }
)
"""Fields of `WorkerState.identity`, over which Dask merges a worker's `extra`."""

SMALL: Final = (10_000, 1 << 20)
"""Items, and characters or bytes, of one custom metric, `extra` or extension."""
_LARGE: Final = (1_000_000, 1 << 26)
"""The same limits for data that a worker sends, such as an item of a queue."""
MOST_NUMBERS: Final = 4096
"""Most keys of one dict or set whose hash is known beforehand (`may_collide`)."""


# --- single values


def _is_text(value: object, longest: int = _TEXT) -> bool:
    return isinstance(value, str) and len(value) <= longest


def _is_integer(value: object, least: int = 0, most: int = _EXACT) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: object) -> bool:
    """True for a finite number, so small that sums stay finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and abs(value) <= _WIDEST


def _is_figure(value: object) -> bool:
    """A user's number, which may be NaN or infinite: only the user's own statistics use it."""
    return isinstance(value, float) or _is_integer(value, -_WIDEST, _WIDEST)


def _is_rate(value: object) -> bool:
    """A number by which the scheduler divides."""
    return _is_number(value) and value > 0  # type: ignore[operator]  # a number


def _is_key(value: object) -> bool:
    waiting = [value]
    while waiting:  # not by recursion: msgpack reads deeper than Python recurses
        each = waiting.pop()
        if isinstance(each, tuple):
            waiting.extend(each)
        elif not isinstance(each, (str, bytes, int, float)):
            return False
    return True


def _is_name(value: object) -> bool:
    """The name of an event, a lock or a queue: a key, and small, since the scheduler keeps it."""
    return _is_key(value) and is_plain(value, 100, _TEXT)


# --- collections


def may_collide(keys: Collection[Any]) -> bool:
    """True if a sender may have chosen the hashes of too many keys, so that all of them collide in a dict.

    Hashes of texts are salted in each process. Numbers hash to themselves: 700,000 chosen ones take an hour.
    """
    return len(keys) > MOST_NUMBERS and sum(not _is_salted(key) for key in keys) > MOST_NUMBERS


def _is_salted(key: Any) -> bool:
    waiting = [key]
    while waiting:  # as in _is_key
        each = waiting.pop()
        if isinstance(each, tuple):
            waiting.extend(each)
        elif each is not None and not isinstance(each, (int, float)):
            return True
    return False


def _is_collection(value: object, each: Callable[[Any], bool], most: int = _LARGE[0]) -> bool:
    return isinstance(value, (list, tuple, set)) and len(value) <= most and all(map(each, value))


def _is_mapping(value: object, key: Callable[[Any], bool], each: Callable[[Any], bool], most: int = _LARGE[0]) -> bool:
    if not isinstance(value, dict) or len(value) > most:
        return False
    return all(map(key, value)) and all(map(each, value.values()))


def _has(value: object, fields: Mapping[str, Callable[[Any], bool]]) -> bool:
    """True if the fields are there and valid; other fields may be there."""
    return isinstance(value, dict) and all(name in value and judge(value[name]) for name, judge in fields.items())


def is_plain(value: object, items: int, size: int) -> bool:
    """True if `value` is plain data of at most `items` items and `size` characters or bytes, with nothing opaque."""
    waiting: list[Any] = [value]
    while waiting:
        items -= 1
        each = waiting.pop()
        if isinstance(each, (str, bytes, bytearray, memoryview)):
            size -= len(each)
        elif isinstance(each, Mapping):
            waiting.extend(each)
            waiting.extend(each.values())
        elif isinstance(each, (Sequence, AbstractSet)):
            waiting.extend(each)
        elif isinstance(each, (Serialize, Serialized)):
            return False
        if items < len(waiting) or size < 0:
            return False
    return True


def _is_small(value: object) -> bool:
    return is_plain(value, *SMALL)


def _is_small_by_name(value: object) -> bool:
    return _is_mapping(value, _is_text, _is_small, 1000)


def _is_data(value: object) -> bool:
    return is_plain(value, *_LARGE)


# --- what Dask reports


def _is_transferred(value: object) -> bool:
    """A bandwidth and its number of transfers; the scheduler divides one by the other."""
    return isinstance(value, (list, tuple)) and len(value) == 2 and _is_rate(value[0]) and _is_integer(value[1], 1)  # noqa: PLR2004 - a pair


def _is_measured(value: object) -> bool:
    return _is_mapping(value, _is_text, _is_transferred)


_MEASURED: Final[Mapping[str, Callable[[Any], bool]]] = {
    "bandwidth": lambda value: _has(value, {"total": _is_rate, "workers": _is_measured, "types": _is_measured}),
    "digests_total_since_heartbeat": lambda value: _is_mapping(value, _is_key, _is_figure),
    "event_loop_interval": _is_number,
    "managed_bytes": _is_integer,
    "memory": _is_integer,
    "spilled_bytes": lambda value: _has(value, {"memory": _is_integer, "disk": _is_integer}),
    "task_counts": lambda value: _is_mapping(value, _is_text, _is_integer),
    "transfer": lambda value: _is_mapping(value, _is_text, _is_number),
}
"""Dask's metrics that the scheduler, its pages and its clients use in computations."""


def _is_metrics(value: object) -> bool:
    if not isinstance(value, dict) or not _has(value, _MEASURED):
        return False
    return _is_small_by_name({name: each for name, each in value.items() if name not in _MEASURED})


def _is_versions(value: object) -> bool:
    if not value:
        return isinstance(value, dict)
    return _has(value, {"packages": _is_packages}) and _is_small(value)


def _is_packages(value: object) -> bool:
    """Versions by the names of packages; None for one that is not installed."""
    return _is_mapping(value, _is_text, lambda version: version is None or _is_text(version), 1000)


def _is_resource(value: object) -> bool:
    return _is_figure(value) and value >= 0  # type: ignore[operator]  # a number, and not NaN


def _is_startstop(value: object) -> bool:
    return _has(value, {"action": _is_text, "start": _is_number, "stop": _is_number}) and _is_small(value)


def _is_error(value: object) -> bool:
    """Bytes as `distributed.core.error_message` serializes them; each client that waits for the task unpickles them."""
    if not isinstance(value, Serialized):
        return value is None or isinstance(value, Serialize)  # the latter on the worker, which has still to send it
    header, frames = value.header, len(value.frames)
    return (
        (header.get("serializer"), header.get("type"), header.get("sub-header")) == ("dask", "bytes", {})
        and header.get("split-num-sub-frames") == (frames,)
        and header.get("split-offsets") == (0,)
        and isinstance(header.get("compression"), tuple)
        and len(header["compression"]) == frames
    )


KINDS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "anything": lambda _value: True,
    "bytes": lambda value: isinstance(value, bytes) and len(value) <= _LONG,
    "count": _is_integer,
    "data": _is_data,
    "durations": lambda value: _is_mapping(value, _is_key, _is_number),
    "error": _is_error,
    "extensions": _is_small_by_name,
    "extra": lambda value: _is_small_by_name(value) and _IDENTITY.isdisjoint(value),
    "flag": lambda value: isinstance(value, bool),
    "flag-or-count": lambda value: isinstance(value, bool) or _is_integer(value),
    "integer": lambda value: _is_integer(value, -_WIDEST, _WIDEST - 1),
    "key": _is_key,
    "keys": lambda value: _is_collection(value, _is_key) and not may_collide(value),
    "long-text": lambda value: _is_text(value, _LONG),
    "mapping": lambda value: isinstance(value, dict) and _is_data(value),
    "metrics": _is_metrics,
    "name": _is_name,
    "names": lambda value: _is_collection(value, _is_name, 10_000),
    "number": _is_number,
    "ports": lambda value: _is_mapping(value, _is_text, lambda port: _is_integer(port, 0, 65535), 100),
    "positive": lambda value: _is_integer(value, 1),
    "resources": lambda value: _is_mapping(value, _is_text, _is_resource, 1000),
    "startstops": lambda value: _is_collection(value, _is_startstop, 100_000),
    "status": lambda value: isinstance(value, str) and value in _STATUSES,
    "text": _is_text,
    "texts": lambda value: _is_collection(value, _is_text),
    "threads": lambda value: _is_integer(value, 1, _THREADS),
    "timeout": lambda value: _is_number(value) or _is_text(value, 100),
    "topic": lambda value: _is_text(value) or _is_collection(value, _is_text, 100),
    "versions": _is_versions,
    "worker-name": lambda value: _is_text(value) or _is_integer(value, -_EXACT),
}
"""The condition of each kind."""


def arguments(text: str) -> dict[str, str]:
    """Parse a line of a table, `argument:kind` words; a value of a kind that ends in `?` may be None."""
    return dict(word.split(":") for word in text.split())


def misfit(kinds: Mapping[str, str], message: Mapping[str, Any]) -> str | None:
    """Describe the first value in `message` that is not of its kind; None if all are."""
    for argument, kind in kinds.items():
        value = message.get(argument)
        if argument not in message or (kind.endswith("?") and value is None):
            continue
        if not KINDS[kind.removesuffix("?")](value):
            return f"{argument}={shown(value)} is not a valid {kind.removesuffix('?')}"
    return None


def fitted(message: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a worker's report; its user's values that are too large become a text, or are left out."""
    copy = dict(message)
    if isinstance(metrics := message.get("metrics"), dict):
        copy["metrics"] = {
            name: value if name in _MEASURED or _is_small(value) else f"<a {type(value).__name__}, too large>"
            for name, value in metrics.items()
        }
    if isinstance(extensions := message.get("extensions"), dict):
        copy["extensions"] = {name: value for name, value in extensions.items() if _is_small(value)}
    return copy
