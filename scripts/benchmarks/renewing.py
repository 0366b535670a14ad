"""`daskpki renew --due` of 1,000 leaves against `issue --count 1000`, in leaves per second; whole processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from daskpki.pki.profile import DAY
from scripts.benchmarks.report import Goal, Section
from scripts.benchmarks.scale import populated
from scripts.benchmarks.timing import Contestant, Sample, timed
from scripts.benchmarks.workshop import Workshop

COUNT: Final = 1_000
ROUNDS: Final = 5
OURS: Final = "daskpki renew --due"
ISSUE: Final = "daskpki issue --count"
NOTHING: Final = "daskpki renew --due, of which none is"
_GOALS: Final = (Goal(ISSUE, 0.75, "at least three quarters of the rate of issuing"),)
_ABOUT: Final = (
    f"A store with {COUNT:,} certificates that are due, each renewed with a new key, recorded and durable; against as"
    " many new ones in a store that holds as many; and against a run that finds nothing due, as most of cron's do"
    f" (it counts the {COUNT:,} that it looked at)."
)
_COMMANDS: Final[dict[str, tuple[int, Sequence[str]]]] = {
    OURS: (25 * DAY, ("renew", "--due")),
    ISSUE: (25 * DAY, ("issue", "worker", "--name", "new", "--count", str(COUNT))),
    NOTHING: (DAY, ("renew", "--due")),
}
"""The age of the store's certificates, which live for 30 days, and the command."""


def renewing(workshop: Workshop) -> Section:
    """Run the benchmark."""
    rates = {label: _rate(workshop, label, age, command) for label, (age, command) in _COMMANDS.items()}
    values: dict[str, list[float]] = {label: [] for label in rates}
    for number in range(1 + min(ROUNDS, workshop.rounds)):
        for label, rate in rates.items():
            values[label].append(rate(number))
    samples = [Sample(label, tuple(counted[1:])) for label, counted in values.items()]  # the first warms up
    return Section("Renewing what is due", _ABOUT, OURS, samples, _GOALS, rate=True)


def _rate(workshop: Workshop, label: str, age: int, command: Sequence[str]) -> Callable[[int], float]:
    """Leaves per second; each run has a store of its own, made beforehand."""

    def rate(number: int) -> float:
        directory = workshop.new_directory(f"{label.replace(' ', '-')}-{number}")
        common = populated(directory, COUNT, age=age, life=30 * DAY)
        return COUNT / timed(Contestant(label, lambda _: [*common, *command]))

    return rate
