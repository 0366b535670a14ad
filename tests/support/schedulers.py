"""A stock `dask scheduler` and worker over TLS, as separate processes that read what `daskpki export` writes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daskpki.credentials.credential_files import CA_FILE, CERTIFICATE_FILE, KEY_FILE


def _command(directory: Path, program: str, *arguments: str) -> list[str]:
    files = {"ca-file": CA_FILE, "cert": CERTIFICATE_FILE, "key": KEY_FILE}
    options = [f"--tls-{option}={directory / name}" for option, name in files.items()]
    return [sys.executable, "-m", f"distributed.cli.dask_{program}", *options, *arguments]


@contextmanager
def scheduler(directory: Path) -> Iterator[str]:
    """Start one on a port of its own choice; yields its address."""
    command = _command(
        directory, "scheduler", "--protocol=tls", "--host=127.0.0.1", "--port=0", "--no-dashboard", "--no-show"
    )
    with _running(command, re.compile(r"Scheduler at:\s+(tls://\S+)")) as address:
        yield address


@contextmanager
def worker(directory: Path, address: str) -> Iterator[None]:
    """Start one that has registered when the block begins."""
    command = _command(directory, "worker", address, "--no-nanny", "--nthreads=1", "--no-dashboard")
    with _running(command, re.compile(r"Registered to:\s+(tls://\S+)")):
        yield


@contextmanager
def _running(command: list[str], announced: re.Pattern[str]) -> Iterator[str]:
    environ = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := announced.search(line):
                yield found[1]
                return
        raise AssertionError("ended before it was ready: " + "".join(lines))
    finally:
        process.terminate()
        process.communicate(timeout=20)
