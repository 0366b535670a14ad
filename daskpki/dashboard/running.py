"""Which proxies of this user run on this machine: one small file for each, locked as long as its process lives."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from daskpki.errors import DaskpkiError
from daskpki.files import make_private_directory, names_in, read_private, write_private

_DIRECTORY: Final = "dashboards"


@contextmanager
def announce(home: Path, scheduler: str, port: int) -> Iterator[None]:
    """Let other programs of this user find the proxy of that scheduler, for as long as the block lasts."""
    import fcntl

    directory = home / _DIRECTORY
    make_private_directory(directory)
    path = directory / str(port)
    write_private(path, json.dumps({"scheduler": scheduler}).encode(), force=True)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def find_port(home: Path, scheduler: str) -> int | None:
    """The port of a running proxy of that scheduler; None when there is none."""
    directory = home / _DIRECTORY
    try:
        names = [name for name in names_in(directory) if name.isdigit()]
        ports = [int(name) for name in names if _is_for(directory / name, scheduler) and _is_locked(directory / name)]
    except (DaskpkiError, OSError):  # a link is a convenience: nobody's Client fails for it
        return None
    return min(ports, default=None)


def _is_for(path: Path, scheduler: str) -> bool:
    try:
        document = json.loads(read_private(path))
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("scheduler") == scheduler


def _is_locked(path: Path) -> bool:
    """Whether its process lives: a lock ends with the process, unlike a file or the use of a process number."""
    if os.name == "nt":
        return False
    import fcntl

    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
