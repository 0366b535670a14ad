"""The entrypoint as a process until a block ends, its children, and what a client gets of the cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.boot_cloud import ENTRYPOINT

LONG = 60.0
"""Seconds, longer than any boot takes."""


@contextmanager
def running(
    environ: Mapping[str, str], log: Path, *argv: str, prefix: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """The entrypoint until the block ends; then it and all that it started are gone. Without pages by default."""
    environ = {"DASKPKI_DASHBOARD": "off", **environ}
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [*prefix, *ENTRYPOINT, *argv], env=environ, stdout=file, stderr=file, start_new_session=True
        ) as process,
    ):
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def compute(directory: Path, port: int, *, workers: int, prefix: Sequence[str] = ()) -> str:
    """What a client with these credentials gets from the cluster: a result, then uid and pid of every process."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "tests.support.stock_client", str(directory), str(port), str(workers)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def children_of(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def child_of(process: int) -> int:
    """The one child, once it is there."""
    until(lambda: children_of(process))()
    return children_of(process)[0]


def until(happened: Callable[[], object]) -> Callable[[], None]:
    def wait() -> None:
        end = time.monotonic() + LONG
        while not happened():
            assert time.monotonic() < end, "the boot did not get there"
            time.sleep(0.02)

    return wait
