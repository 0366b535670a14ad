"""Console sessions of the documentation: found in Markdown, run in an empty home, compared with what they promise.

A block behind `<!-- runs -->` is run as it stands; all blocks of a page share one shell. What differs from run to run
(dates, numbers, fingerprints, paths) is reduced to its shape on both sides; `...` stands for anything.
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
    r"(?P<mark><!-- runs(?:: (?P<where>\w+))? -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_MARK: Final = "\x1e"
_SHAPES: Final = (
    (re.compile(r"(?:[0-9A-F]{2}:){5,}[0-9A-F]{2}"), "FINGERPRINT"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(?: \d\d:\d\d UTC)?"), "DATE"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b"), "HEX"),
    (re.compile(r"local:/\S+|/(?:[\w.-]+/)+[\w.-]+"), "PATH"),
    (re.compile(r"in \d+ (?:day|hour|minute)s?"), "in SOME TIME"),
    (re.compile(r"  +"), "  "),
)


class Block(NamedTuple):
    """A fenced block: its language, its text, and whether it is run (`where` names surroundings that it needs)."""

    language: str
    text: str
    runs: bool
    where: str | None


class Step(NamedTuple):
    """A command and the output that the page promises."""

    command: str
    promised: tuple[str, ...]


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    return [
        Block(found["language"], found["text"], found["mark"] is not None, found["where"])
        for found in _FENCE.finditer(page.read_text())
    ]


def console_steps(text: str) -> Iterator[Step]:
    """The commands of a console block, with continuation lines (`> `) joined, and their outputs."""
    command: str | None = None
    promised: list[str] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            if command is not None:
                yield Step(command, tuple(promised))
            command, promised = line[2:], []
        elif line.startswith("> ") and command is not None and not promised:
            command += "\n" + line[2:]
        else:
            promised.append(line)
    if command is not None:
        yield Step(command, tuple(promised))


def steps(page: Path, directory: Path) -> Iterator[Step]:
    """What to run of a page, in order; a Python session becomes a doctest in a file of its own."""
    for number, block in enumerate(block for block in blocks(page) if block.runs):
        if block.language == "console":
            yield from console_steps(block.text)
        else:
            assert block.language == "pycon", f"{page}: a {block.language} block cannot be run"
            session = directory.parent / f"session-{number}.txt"
            session.write_text(block.text)
            yield Step(f"python -m doctest -o ELLIPSIS {session}", ())


def run(page: Path, directory: Path, environment: Mapping[str, str]) -> list[tuple[Step, list[str]]]:
    """Run a page's steps in one shell in `directory`; each with the lines that it printed, both streams together."""
    planned = [step for step in steps(page, directory) if not step.command.startswith("pip install ")]
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
    outputs = [part.strip("\n").splitlines() for part in said.split(_MARK)]
    assert len(outputs) >= len(planned), said
    return list(zip(planned, outputs, strict=False))


def _scripted(step: Step) -> str:
    command = step.command
    if command.endswith("&"):  # what a terminal shows of it comes at any moment
        command = f"{command[:-1]} >>background.log 2>&1 &"
    return f"{command}\n{{ status=$?; printf '\\n{_MARK}'; (exit $status); }} 2>/dev/null"


def differences(step: Step, printed: Sequence[str]) -> str | None:
    """Why the output is not the promised one, None if it is."""
    wanted = "\n".join(shape(line) for line in step.promised)
    found = "\n".join(shape(line) for line in printed)
    pattern = ".*".join(map(re.escape, wanted.split("...")))
    if re.fullmatch(pattern, found, re.DOTALL):
        return None
    return f"$ {step.command}\npromised:\n{wanted}\nprinted:\n" + "\n".join(printed)


def shape(line: str) -> str:
    """The line without what differs from run to run."""
    for pattern, name in _SHAPES:
        line = pattern.sub(name, line)
    return line.rstrip()
