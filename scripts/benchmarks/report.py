"""What the benchmarks write, as Markdown: first a table of what a user waits for, then a section for each benchmark."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Final, NamedTuple

from scripts.benchmarks.timing import Sample

_SHORT: Final = 0.1
"""Seconds under which a tenth of a millisecond is shown."""
_LONG: Final = 10
"""Seconds from which on no tenth of a second is shown in the first table."""


_EVEN: Final = 0.05
"""Difference of two medians that is no lead: the same two differ by as much from one run to the next."""


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


class Question(NamedTuple):
    """A row of the first table: what a user waits for, in which section and under which labels the answer stands."""

    text: str
    title: str
    ours: str
    usual: str | None


STOCK: Final = "Dask's own mutual TLS"
QUESTIONS: Final = (
    Question("issue a certificate", "One leaf", "daskpki issue, random key file", "easy-rsa"),
    Question("issue 3,000", "Many leaves", "daskpki issue --count", "OpenBao over HTTP, on disk (raft)"),
    Question(
        "fetch and check a VM's credential, before Dask starts",
        "Boot of a VM",
        "daskpki-entrypoint worker",
        "official client over gRPC",
    ),
    Question(
        "start a scheduler",
        "Boot of a scheduler",
        "daskpki-entrypoint, from Secret Manager",
        "dask scheduler, files on disk",
    ),
    Question("compute 20,000 small tasks", "20,000 small tasks", "daskpki", STOCK),
    Question("the same, with a sealed scheduler", "Sealed: 20,000 small tasks", "daskpki, sealed", STOCK),
    Question("scatter 200 MB and gather them", "200 MB there and back", "daskpki", STOCK),
    Question("connect 100 times", "100 new connections", "daskpki", STOCK),
    Question(
        "cut off a busy client, from `daskpki revoke` to its last answer",
        "Revocation of a busy client",
        "pushed, from the start",
        None,
    ),
    Question(
        "`import distributed`, and `Client` to a `tcp://` address",
        "A plain Client",
        "with daskpki installed",
        "without",
    ),
)


def document(sections: Sequence[Section], rounds: int, load: float) -> str:
    """The whole of docs/benchmarks.md; `load` is what else the machine had to do when it began."""
    details = f"## Every measurement\n\n{_conditions(rounds, load)}"
    parts = [_first_table(sections), details, *(markdown(section, level=3) for section in sections)]
    return "\n\n".join(parts) + "\n"


def _first_table(sections: Sequence[Section]) -> str:
    by_title = {section.title: section for section in sections}
    rows = [_answer(question, by_title[question.title]) for question in QUESTIONS]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "What you wait for, in the median, on two cores; and what the usual way takes.",
            "",
            "| to ... | with daskpki | the usual way |",
            "|---|---:|---|",
            *rows,
            "",
            "One shared key cannot be taken from one person, so revocation has no usual way to compare with.",
        ]
    )


def _answer(question: Question, section: Section) -> str:
    ours = section.sample(question.ours)
    assert ours is not None, "our own half always runs"
    theirs = section.sample(question.usual) if question.usual else None
    usual = f"{_readable(section, theirs.median)} ({theirs.label})" if theirs else "-"
    return f"| {question.text} | {_readable(section, ours.median)} | {usual} |"


def _readable(section: Section, value: float) -> str:
    if section.rate:
        return f"{value:,.0f} a second"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < _LONG else f"{value:.0f} s"


def _conditions(rounds: int, load: float) -> str:
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    return (
        f"Written by `scripts/bench` on a machine with {machine}. One command fetches the peers into a scratch"
        f" directory and runs everything; nothing but loopback is measured. The load average when it began was"
        f" {load:.1f}: well above 0 means that the times are long and the ratios rough.\n\n"
        f"The contestants take turns (A B C A B C ...), so that a slow moment falls on all alike. Of {rounds}"
        " rounds (fewer where a round takes seconds) a table gives the median, the fastest and the slowest. Times"
        " are of whole processes, from start to exit. The ratio compares a median with that of the row in bold. A goal"
        " is what this project set itself; one that is missed stands here as well."
    )


def markdown(section: Section, level: int = 2) -> str:
    """One section."""
    unit = "leaves/s" if section.rate else "MB" if section.memory else "ms"
    tail = "p99 | " if section.percentile else ""
    lines = [
        f"{'#' * level} {section.title}",
        "",
        section.about,
        "",
        f"| | median, {unit} | {tail}min-max | ratio |",
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
    verdict = "Even" if goal.ratio == 1 and abs(ratio - 1) <= _EVEN else "Met" if met else "Missed"
    return f"Goal: {goal.text}. **{verdict}**: {_words(section, ratio)}."


def _words(section: Section, ratio: float) -> str:
    if section.rate:
        return f"{ratio:.2f}x the rate"
    if section.memory:
        return f"{ratio:.2f}x the memory"
    return f"{ratio:.2f}x the time" if ratio >= 1 - _EVEN else f"{1 / ratio:.1f}x faster"
