"""Counts the files of daskpki that a command enters, and the calls that cross from one file to another.

`python -m scripts.entered daskpki issue client/alice` runs that command, then prints the numbers and the files on
stderr, in the order of their first entry. `daskpki-entrypoint` in place of `daskpki` is counted until it would become
Dask. Only functions count, not the code that runs when a module or class is made; a file whose functions are called by
such code alone comes last.
"""

from __future__ import annotations

import os
import sys
import threading
from importlib import import_module
from inspect import CO_OPTIMIZED  # functions have it, bodies of modules and classes do not
from pathlib import Path
from types import FrameType
from typing import Any, Final

PACKAGE: Final = str(Path(__file__).parents[1] / "daskpki")
PROGRAMS: Final = {"daskpki": "daskpki.__main__", "daskpki-entrypoint": "daskpki.boot.__main__"}


class Counter:
    """Counts calls, as a profile function of Python."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.imported: set[str] = set()
        self.crossings = 0

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        """Count one event."""
        file = _file(frame)
        if event != "call" or file is None or not frame.f_code.co_flags & CO_OPTIMIZED:
            return
        if frame.f_back is not None and not frame.f_back.f_code.co_flags & CO_OPTIMIZED:
            self.imported.add(file)
        elif file not in self.files:
            self.files.append(file)
        caller = frame.f_back and _file(frame.f_back)
        self.crossings += caller is not None and caller != file


def _file(frame: FrameType) -> str | None:
    name = frame.f_code.co_filename
    return os.path.relpath(name, PACKAGE) if name.startswith(PACKAGE) else None


def _instead_of_exec(*_arguments: Any) -> None:
    raise SystemExit


def main() -> None:
    """Run the command that the arguments name."""
    program, *arguments = sys.argv[1:]
    os.execve = _instead_of_exec  # type: ignore[assignment]
    run = import_module(PROGRAMS[program]).main
    sys.argv = [program, *arguments]
    counter = Counter()
    threading.setprofile(counter)
    sys.setprofile(counter)
    try:
        run()
    finally:
        sys.setprofile(None)
        files = [*counter.files, *sorted(counter.imported.difference(counter.files))]
        print(
            f"{len(files)} files, {counter.crossings} crossings",
            *files,
            sep="\n  ",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
