"""A scheduler's boot, from start until it says that it is ready: the entrypoint against `dask scheduler` and files."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from scripts.benchmarks.booting import PROJECT
from scripts.benchmarks.report import Goal, Section
from scripts.benchmarks.servers import secret_manager
from scripts.benchmarks.timing import Contestant, take_turns, timed
from scripts.benchmarks.workshop import BIN, CONTESTANTS, DASKPKI, ENTRYPOINT, Workshop

OURS: Final = "daskpki-entrypoint, from Secret Manager"
FILES: Final = "dask scheduler, files on disk"
LEAN: Final = "-m distributed.cli.dask_scheduler, files on disk"
SHELL: Final = "shell script, key in the environment"
SCHEDULER: Final = (BIN / "python", "-m", "distributed.cli.dask_scheduler")
"""What `dask scheduler` runs, and the entrypoint."""
_READY: Final = re.compile(rb"Scheduler at:\s+tls://")
_ABOUT: Final = (
    "From start until `Scheduler at: tls://...` stands in the log. The entrypoint asks for a token, the credential and"
    " the trust document (the project's own servers on loopback), checks them, and puts the cluster's rules in force,"
    " with a self-test. The usual shell script takes certificate and key from environment variables, writes them to"
    " disk, and starts Dask as the entrypoint does, by `python -m distributed.cli.dask_scheduler`. `dask` first loads"
    " the commands of all packages that add some; here that is dask-kubernetes. All load the dashboard, since bokeh is"
    " installed, as in Dask's own images."
)
_GOALS: Final = (
    Goal(FILES, 1.2, "at most 1.2 times `dask scheduler` with files on disk"),
    Goal(LEAN, 1.2, "at most 1.2 times the program that `dask scheduler` runs, with files on disk"),
)


class Start(NamedTuple):
    """A command that becomes a scheduler, and its environment."""

    command: Sequence[object]
    environment: Mapping[str, str]


def scheduler_ready(workshop: Workshop) -> Section:
    """Run the benchmark."""
    with secret_manager(PROJECT) as servers:
        environment = {**servers, "DASKPKI_STORE": f"gsm://{PROJECT}"}
        made = workshop.directory / "scheduler"
        for arguments in (("init-ca", "--with", "scheduler"), ("export", "scheduler", "--out", made)):
            timed(Contestant("daskpki", partial(_command, arguments), environment))
        samples = take_turns(
            {label: partial(_seconds, start) for label, start in _starts(made, environment).items()},
            workshop.rounds,
        )
    return Section("Boot of a scheduler", _ABOUT, OURS, samples, _GOALS)


def _command(arguments: Sequence[object], _number: int) -> Sequence[object]:
    return [DASKPKI, *arguments]


def _starts(made: Path, environment: Mapping[str, str]) -> Mapping[str, Start]:
    options = ["--port", "0", "--dashboard-address", "127.0.0.1:0"]
    files = ["--tls-ca-file", made / "ca.pem", "--tls-cert", made / "cert.pem", "--tls-key", made / "key.pem"]
    quiet = {"DASKPKI_QUIET": "1"}
    contents = {"TMPDIR": str(made)} | {
        name: (made / file).read_text()
        for name, file in (("TLS_CA", "ca.pem"), ("TLS_CERT", "cert.pem"), ("TLS_KEY", "key.pem"))
    }
    return {
        OURS: Start([ENTRYPOINT, "scheduler", "--", *options], {**environment, **quiet}),
        "daskpki-entrypoint, from a directory": Start(
            [ENTRYPOINT, "scheduler", "--credential-dir", made, "--", *options], quiet
        ),
        FILES: Start([BIN / "dask", "scheduler", "--protocol", "tls", *files, *options], {}),
        LEAN: Start([*SCHEDULER, "--protocol", "tls", *files, *options], {}),
        SHELL: Start([CONTESTANTS / "shell_boot.sh", *SCHEDULER, *options], contents),
    }


def _seconds(start: Start, _number: int) -> float:
    """Seconds until the scheduler is ready; it is ended before this returns."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DASK_"))}
    began = time.perf_counter()
    with subprocess.Popen(
        list(map(str, start.command)), env={**kept, **start.environment}, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stderr is not None, "it was asked for"
        said = b""
        while not _READY.search(said):
            if not (data := os.read(process.stderr.fileno(), 1 << 16)):
                raise RuntimeError(f"{start.command[0]} ended: {said.decode(errors='replace')}")
            said += data
        seconds = time.perf_counter() - began
        os.killpg(process.pid, signal.SIGKILL)
    return seconds
