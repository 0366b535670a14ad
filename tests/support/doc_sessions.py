"""Shell sessions of the documentation: found in Markdown, run in an empty home, compared with what they promise.

A `sh` block behind `<!-- runs -->` is run as it stands, and prints what the `text` block right behind it shows, or
nothing. All blocks of a page share one shell. What differs from run to run (dates, numbers, fingerprints, the
directories of a path) is reduced to its shape on both sides; `...` stands for anything.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

_FENCE: Final = re.compile(
    r"(?P<mark><!-- runs(?:: \w+)? -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$"
    r"(?:\n\n```text\n(?P<output>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
_MARK: Final = "\x1e"
DASK_S_LATE_TIMER: Final = """\
Future exception was never retrieved
future: <Future finished exception=TimeoutError('Timeout')>
TimeoutError: Timeout
"""
"""What stock Dask prints, rarely, at the end of a program whose event loop stops as the timer of a BatchedSend fires.

`test_sessions.py` has Dask do it without daskpki.
"""
_SHAPES: Final = (
    (re.compile(r"(?:[0-9A-F]{2}:){5,}[0-9A-F]{2}"), "FINGERPRINT"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(?: \d\d:\d\d UTC)?"), "DATE"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b"), "HEX"),
    (re.compile(r"(?:local:)?/(?:[\w.-]+/)+"), "PATH/"),
    (re.compile(r"in \d+ (?:day|hour|minute)s?"), "in SOME TIME"),
    (re.compile(r"  +"), "  "),
)


class Block(NamedTuple):
    """A fenced block: its language, its text, whether it is run, and the output that a `text` block behind it shows."""

    language: str
    text: str
    runs: bool
    output: str


class Step(NamedTuple):
    """Commands and the output that the page promises."""

    commands: str
    promised: tuple[str, ...]


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page; an output belongs to the block before it."""
    return [
        Block(found["language"], found["text"], found["mark"] is not None, found["output"] or "")
        for found in _FENCE.finditer(page.read_text())
    ]


def shell_commands(text: str) -> list[str]:
    """The commands of a `sh` block, continuation lines joined."""
    return text.replace("\\\n", " ").splitlines()


def steps(page: Path, directory: Path) -> Iterator[Step]:
    """What to run of a page, in order; a Python session becomes a doctest in a file."""
    for number, block in enumerate(block for block in blocks(page) if block.runs):
        if block.language == "sh":
            yield Step(block.text, tuple(block.output.splitlines()))
        else:
            assert block.language == "pycon", f"{page}: a {block.language} block cannot be run"
            session = directory.parent / f"session-{number}.txt"
            session.write_text(block.text)
            yield Step(f"python -m doctest -o ELLIPSIS {session}", ())


def run(page: Path, directory: Path, environment: Mapping[str, str]) -> list[tuple[Step, list[str]]]:
    """Run a page's steps in one shell in `directory`; each with the lines that it printed, both streams together."""
    planned = list(steps(page, directory))
    process = subprocess.Popen(
        ["bash", "-c", "\n".join(map(_scripted, planned))],
        cwd=directory,
        env={**environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=150)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what runs in the background, too
    outputs = [part.strip("\n").splitlines() for part in said.replace(DASK_S_LATE_TIMER, "").split(_MARK)]
    assert len(outputs) >= len(planned), said
    return list(zip(planned, outputs, strict=False))


def _scripted(step: Step) -> str:
    lines = [line for line in step.commands.splitlines() if not line.startswith("pip install ")]
    # What a terminal shows of a background job comes at any moment.
    lines = [f"{line[:-1]} >>background.log 2>&1 &" if line.endswith(" &") else line for line in lines]
    return "\n".join([*lines, f"{{ status=$?; printf '\\n{_MARK}'; (exit $status); }} 2>/dev/null"])


def differences(step: Step, printed: Sequence[str]) -> str | None:
    """Why the output is not the promised one, None if it is."""
    wanted = "\n".join(shape(line) for line in step.promised)
    found = "\n".join(shape(line) for line in printed)
    pattern = ".*".join(map(re.escape, wanted.split("...")))
    if re.fullmatch(pattern, found, re.DOTALL):
        return None
    return f"{step.commands}\npromised:\n{wanted}\nprinted:\n" + "\n".join(printed)


def shape(line: str) -> str:
    """The line without what differs from run to run."""
    for pattern, name in _SHAPES:
        line = pattern.sub(name, line)
    return line.rstrip()
