"""The system calls that change what a store and its surroundings hold: found in a trace, and broken off by strace."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

KILL: Final = "signal=KILL"
EIO: Final = "error=EIO"
ENOSPC: Final = "error=ENOSPC"

_OPENING: Final = "openat"
"""Counted for the store's own files only: a program opens hundreds of others when it starts."""
_GROWING: Final = ("pwrite64", "write", "ftruncate", "link", "mkdir", "rename", _OPENING)
_CALLS: Final = (*_GROWING, "fsync", "fdatasync", "unlink")
FAULTS: Final = {KILL: _CALLS, EIO: _CALLS, ENOSPC: _GROWING}


class Point(NamedTuple):
    """Where a command is broken off: at its Nth call of that name, in that way."""

    case: str
    fault: str
    call: str
    number: int


def tracing(trace: Path) -> list[str]:
    """What to put before a command so that its calls stand in that file."""
    return ["strace", "-f", "--seccomp-bpf", "-qqq", "-y", "-o", str(trace), "-e", f"trace={','.join(_CALLS)}"]


def injecting(point: Point, root: Path) -> list[str]:
    """What to put before a command, whose store is below `root`, so that it is broken off there."""
    fault = f"inject={point.call}:{point.fault}:when={point.number}"
    only = [option for path in _files(root) for option in ("-P", str(path))] if point.call == _OPENING else []
    quick = [] if point.fault == KILL else ["--seccomp-bpf"]  # with which strace delivers no signals
    return ["strace", "-f", *quick, "-qqq", "-o", "/dev/null", *only, "-e", f"trace={point.call}", "-e", fault]


def points(case: str, trace: Sequence[str], root: Path) -> Iterator[Point]:
    """All the points that a trace shows."""
    counts = Counter(_counted(trace, root))
    for fault, calls in FAULTS.items():
        for call in calls:
            for number in range(1, counts[call] + 1):
                yield Point(case, fault, call, number)


def check_synced(trace: Sequence[str]) -> None:
    """Nothing is acknowledged while something that was written to the store's log is not on the disk."""
    dirty = False
    for line in trace:
        if "store.db-wal>" in line:
            dirty = "pwrite64" in line or (dirty and "sync" not in line)
        elif re.search(r" write\(1<", line):
            assert not dirty, f"acknowledged before it was synced: {line}"


def _counted(trace: Sequence[str], root: Path) -> Iterator[str]:
    ours = tuple(f'"{path}"' for path in _files(root))
    for line in trace:
        match = re.match(r"\d+ +(\w+)\(", line)
        if match and (match[1] != _OPENING or any(path in line for path in ours)):
            yield match[1]


def _files(root: Path) -> list[Path]:
    database = root / "store" / "store.db"
    return [root / "store.key", *(database.with_name(database.name + end) for end in ("", "-wal", "-shm"))]
