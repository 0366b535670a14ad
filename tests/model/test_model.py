"""The Promela models hold within their bounds, and each variant of the rules that is known to be wrong fails.

docs/explanation/model.md says what that shows. Small bounds by day; larger ones, and all strangers, in the long run.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.nightly import by_day

HERE = Path(__file__).parent
SMALL = ("VERSIONS=3", "APPENDS=1")
TWO = ("VERSIONS=4", "APPENDS=2")
ONE_EACH = ("RECORDS=4", "DOCUMENTS=4", "COMMITS=1", "FORGERIES=1")
ROLLOVER = ("RECORDS=5", "DOCUMENTS=4", "COMMITS=2", "FORGERIES=1")
WHOLE = ("RECORDS=7", "DOCUMENTS=5", "COMMITS=2", "FORGERIES=2")

HOLDS: dict[str, Sequence[Sequence[str]]] = {
    "append": [(*SMALL, "LATE"), (*SMALL, "NODE"), (*SMALL, "RESTORER")],
    "trust": [(*ONE_EACH, stranger) for stranger in ("FORGER_RECORDS", "FORGER_TRUST", "RESTORER", "THIEF")],
}
HOLDS_AT_LENGTH: dict[str, Sequence[Sequence[str]]] = {
    "append": [TWO, (*TWO, "NODE"), ("VERSIONS=5", "APPENDS=2", "RESENDS=2", "NODE", "LATE", "RESTORER")],
    "trust": [
        *((*ROLLOVER, stranger) for stranger in ("FORGER_RECORDS", "FORGER_TRUST", "RESTORER", "THIEF")),
        (*WHOLE, "FORGER_RECORDS", "FORGER_TRUST"),
        (*WHOLE, "THIEF"),
    ],
}
FAILS = [
    ("append", (*SMALL, "VERSIONS=4", "NO_COMPARE"), "acknowledged"),
    ("append", (*SMALL, "VERSIONS=4", "HIGHEST_WINS"), "acknowledged"),
    ("append", (*SMALL, "VERSIONS=4", "LOSER_DESTROYS"), "unreadable"),
    ("trust", (*ONE_EACH, "FORGER_RECORDS", "UNSIGNED"), "false_record"),
    ("trust", (*ROLLOVER, "RESTORER", "FORGETFUL"), "good"),
    ("trust", (*ONE_EACH, "THIEF", "FIRST_DOCUMENT"), "replaced"),
]


class Search(NamedTuple):
    """What spin found."""

    errors: int
    states: int
    complete: bool
    said: str


def search(directory: Path, model: str, definitions: Sequence[str], *, hashed: bool = False) -> Search:
    """Every reachable state; with `hashed`, as many as two bits each in a table leave room for, until five minutes."""
    merged = {name: value for name, _, value in (entry.partition("=") for entry in definitions)}
    flags = [f"-D{name}={value}" if value else f"-D{name}" for name, value in merged.items()]
    kept = ["-DBITSTATE"] if hashed else ["-DCOLLAPSE", "-DMEMLIM=6000"]
    run(directory, "spin", "-a", *flags, str(HERE / f"{model}.pml"))
    run(directory, "gcc", "-O2" if hashed else "-O0", "-w", "-DSAFETY", *kept, "-o", "pan", "pan.c")
    limits = ["-w32", "-Q5"] if hashed else []
    said = run(directory, "./pan", "-m200000", "-E", "-n", *limits)
    errors, states = re.search(r"errors: (\d+)", said), re.search(r"([\d.e+]+) states, stored", said)
    assert errors is not None, said
    assert states is not None, said
    return Search(int(errors[1]), int(float(states[1])), "Search not completed" not in said, said)


def run(directory: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cases(chosen: dict[str, Sequence[Sequence[str]]]) -> list[tuple[str, Sequence[str]]]:
    return [(model, definitions) for model, several in chosen.items() for definitions in several]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("model", "definitions"), by_day(cases(HOLDS), night=cases(HOLDS) + cases(HOLDS_AT_LENGTH)))
def test_the_rules_hold(tmp_path: Path, model: str, definitions: Sequence[str]) -> None:
    at_length = definitions in HOLDS_AT_LENGTH[model]
    found = search(tmp_path, model, definitions, hashed=at_length)
    assert found.errors == 0, found.said
    assert found.complete or at_length, found.said
    assert found.states > 1_000, "the bounds are so small that nothing happens"


@pytest.mark.parametrize(("model", "definitions", "broken"), FAILS)
def test_a_wrong_rule_is_found(tmp_path: Path, model: str, definitions: Sequence[str], broken: str) -> None:
    found = search(tmp_path, model, definitions)
    assert found.errors == 1, found.said
    violated = re.search(r"assertion violated (.*) \(at depth", found.said)
    assert violated is not None, found.said
    assert broken in violated[1]
