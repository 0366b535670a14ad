"""What the benchmarks write: a section with a table and a verdict for each, as Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Final, NamedTuple

from scripts.benchmarks.timing import Sample

_SHORT: Final = 0.1
"""Seconds under which a tenth of a millisecond is shown."""


class Goal(NamedTuple):
    """That our sample is at most `ratio` times that of `against` (a time), or at least that (a rate)."""

    against: str
    ratio: float
    text: str


class Section(NamedTuple):
    """One benchmark: what was compared (`about`), what came out, and what it had to show.

    `ours` labels our sample, to which all others are set in relation. Samples are seconds, unless `rate` says that they
    are leaves per second, or `memory` that they are megabytes. `missing` says which contestants could not run here, and
    why; `percentile` adds the 99th.
    """

    title: str
    about: str
    ours: str
    samples: Sequence[Sample]
    goals: Sequence[Goal]
    rate: bool = False
    missing: Sequence[str] = ()
    percentile: bool = False
    memory: bool = False

    def sample(self, label: str) -> Sample | None:
        """The sample of that label, None when it could not be taken here."""
        return next((sample for sample in self.samples if sample.label == label), None)


def document(sections: Sequence[Section], rounds: int, load: float) -> str:
    """The whole of docs/benchmarks.md; `load` is what else the machine had to do when it began."""
    return "\n\n".join([_preface(rounds, load), *(markdown(section) for section in sections)]) + "\n"


def _preface(rounds: int, load: float) -> str:
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    return (
        "# Benchmarks\n\n"
        f"Written by `scripts/bench` on a machine with {machine}. One command fetches the peers into a scratch"
        f" directory and runs everything; nothing but loopback is measured. The load average when it began was"
        f" {load:.1f}: well above 0 means that the times are long and the ratios rough.\n\n"
        f"The contestants take turns (A B C A B C ...), so that a slow moment falls on all alike. Of {rounds}"
        " rounds (fewer where a round takes seconds) a table gives the median, the fastest and the slowest. Times"
        " are of whole processes, from start to exit. The ratio compares a contestant's median with daskpki's."
    )


def markdown(section: Section) -> str:
    """One section."""
    unit, what = ("leaves/s", "rate") if section.rate else ("MB", "memory") if section.memory else ("ms", "time")
    tail = "p99 | " if section.percentile else ""
    lines = [
        f"## {section.title}",
        "",
        section.about,
        "",
        f"| | median, {unit} | {tail}min-max | {what} relative to daskpki |",
        f"|---|---:|{'---:|' if tail else ''}---:|---:|",
        *(_row(section, sample) for sample in _ordered(section)),
    ]
    if section.missing:
        lines += ["", *(f"- Not measured here: {reason}" for reason in section.missing)]
    if section.goals:
        lines += ["", *(f"- {_verdict(section, goal)}" for goal in section.goals)]
    return "\n".join(lines)


def _ordered(section: Section) -> list[Sample]:
    return sorted(section.samples, key=lambda sample: sample.median, reverse=section.rate)


def _row(section: Section, sample: Sample) -> str:
    ours = section.sample(section.ours)
    assert ours is not None, "our own half always runs"
    label = f"**{sample.label}**" if sample is ours else sample.label
    scale = 1 if section.rate or section.memory else 1000
    digits = 1 if not section.rate and sample.median < _SHORT else 0
    values = (sample.median, sample.percentile99, sample.low, sample.high)
    median, tail, low, high = (f"{value * scale:,.{digits}f}" for value in values)
    tail = f" {tail} |" if section.percentile else ""
    return f"| {label} | {median} |{tail} {low}-{high} | {sample.median / ours.median:.2f}x |"


def _verdict(section: Section, goal: Goal) -> str:
    ours, theirs = section.sample(section.ours), section.sample(goal.against)
    assert ours is not None, "our own half always runs"
    if theirs is None:
        return f"Goal: {goal.text}. Not decided here."
    ratio = ours.median / theirs.median
    met = ratio >= goal.ratio if section.rate else ratio <= goal.ratio
    return f"Goal: {goal.text}. **{'Met' if met else 'Missed'}**: {_words(section, ratio)}."


def _words(section: Section, ratio: float) -> str:
    if section.rate:
        return f"{ratio:.2f}x the rate"
    if section.memory:
        return f"{ratio:.2f}x the memory"
    return f"{ratio:.2f}x the time" if ratio >= 1 else f"{1 / ratio:.1f}x faster"
