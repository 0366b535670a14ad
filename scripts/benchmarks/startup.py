"""What a command costs before it does anything, and what daskpki costs a program that does not use it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from sys import executable
from typing import Final

from distributed import LocalCluster

from scripts.benchmarks.report import Section
from scripts.benchmarks.timing import Contestant, Sample, race
from scripts.benchmarks.workshop import DASKPKI, ENTRYPOINT, Workshop
from tests.support.environments import build_wheel, make_venv

OURS: Final = "daskpki --help"


def start_up(workshop: Workshop) -> Section:
    """Run the benchmark."""
    python = Contestant("python -c pass", lambda _: [executable, "-c", "pass"])
    ours = Contestant(OURS, lambda _: [DASKPKI, "--help"])
    import_only = Contestant("python -c 'import daskpki'", lambda _: [executable, "-c", "import daskpki"])
    entrypoint = Contestant("daskpki-entrypoint --help", lambda _: [ENTRYPOINT, "--help"])
    samples = race([ours, python, import_only, entrypoint], workshop.rounds)
    about = "Start-up: the help loads every command, and sets it in panels; the other commands load only themselves."
    return Section("Start-up", about, OURS, samples, ())


WITH: Final = "with daskpki installed"
WITHOUT: Final = "without"
_PLAIN: Final = "import sys; from distributed import Client\nwith Client(sys.argv[1]): pass"


def _plain(python: object, address: str, _number: int) -> Sequence[object]:
    return [python, "-P", "-c", _PLAIN, address]


def plain_client(workshop: Workshop) -> Section:
    """Run the benchmark of a Client of plain Dask, in two environments that differ in daskpki only."""
    with_it, without = (make_venv(workshop.directory / name) for name in ("with", "without"))
    with_it.pip("install", "--no-deps", "--ignore-installed", str(build_wheel(workshop.directory)))
    with LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        contestants = [
            Contestant(label, partial(_plain, made.python, address))
            for label, made in ((WITH, with_it), (WITHOUT, without))
        ]
        ours, theirs = race(contestants, 2 * workshop.rounds)
    pairs = tuple(one - other for one, other in zip(ours.values, theirs.values, strict=True))
    about = (
        "`import distributed` and a `Client` to a plain `tcp://` scheduler, from start to exit, in two virtual"
        " environments that differ in daskpki only. The last row is the difference of each pair of runs, of which the"
        " median is the one that counts."
    )
    return Section("A plain Client", about, WITH, (ours, theirs, Sample("difference", pairs)), ())
