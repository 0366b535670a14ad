"""Time commands against each other: A B C A B C ..., so that a slow minute of the machine falls on all alike."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

# An installed package has its bytecode; PYTHONDONTWRITEBYTECODE would make each run compile what is not there yet.
_AS_INSTALLED: Final = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


class Contestant(NamedTuple):
    """A command to be timed from start to exit.

    `command` is given the run's number, for names that must be new; its words are turned into text.
    """

    label: str
    command: Callable[[int], Sequence[object]]
    environment: Mapping[str, str] = {}


class Sample(NamedTuple):
    """What the runs of one contestant took, in seconds, or achieved, in leaves per second."""

    label: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle run."""
        return statistics.median(self.values)

    @property
    def percentile99(self) -> float:
        """The value that 99 of 100 runs do not exceed (nearest rank)."""
        return sorted(self.values)[math.ceil(0.99 * len(self.values)) - 1]

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The greatest value."""
        return max(self.values)


def race(contestants: Sequence[Contestant], rounds: int, warm_up: int = 2) -> list[Sample]:
    """Run each contestant once a round; the warm-up rounds fill caches and are not counted."""
    runs = {each.label: lambda number, each=each: timed(each, number) for each in contestants}
    return take_turns(runs, rounds, warm_up)


def take_turns(runs: Mapping[str, Callable[[int], float]], rounds: int, warm_up: int = 2) -> list[Sample]:
    """The same for functions, by label, that are given the run's number and return what they measured."""
    values: dict[str, list[float]] = {label: [] for label in runs}
    for number in range(warm_up + rounds):
        for label, run in runs.items():
            value = run(number)
            if number >= warm_up:
                values[label].append(value)
    return [Sample(label, tuple(measured)) for label, measured in values.items()]


def timed(contestant: Contestant, number: int = 0) -> float:
    """Seconds from start to exit of one run; RuntimeError with its own words when it fails."""
    command = list(map(str, contestant.command(number)))
    environment = {**_AS_INSTALLED, **contestant.environment}
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        status = subprocess.call(command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        seconds = time.perf_counter() - started
        if status != 0:
            said.seek(0)
            raise RuntimeError(f"{contestant.label} ended with {status}: {said.read().decode(errors='replace')}")
    return seconds
