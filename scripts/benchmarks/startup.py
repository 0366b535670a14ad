"""What a command costs before it does anything."""

from __future__ import annotations

from sys import executable
from typing import Final

from scripts.benchmarks.report import Section
from scripts.benchmarks.timing import Contestant, race
from scripts.benchmarks.workshop import DASKPKI, ENTRYPOINT, Workshop

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
