"""Runs in PID and network namespaces of its own, as in a container: what `daskpki.health` says as things change."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

from daskpki.health import VARIABLE, check

WHERE = "127.0.0.1:8790"


def until(wanted: str | None) -> None:
    """Wait, at most 20 s, until the check says that."""
    end = time.monotonic() + 20
    while (found := check(WHERE, timeout=0.5)) != wanted:
        assert time.monotonic() < end, (found, wanted)


def ask() -> int:
    """The exit code of the program, as HEALTHCHECK sees it."""
    environ = os.environ | {VARIABLE: "0.0.0.0:8790"}
    return subprocess.run([sys.executable, "-m", "daskpki.health"], env=environ, check=False).returncode


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    assert check(None) == "DASKPKI_HEALTH is not set, so there is no address to ask"
    assert check(WHERE) == f"/health at {WHERE} gave no answer (ConnectionRefusedError)"
    assert ask() == 1
    with socket.create_server(("127.0.0.1", 8790)):
        assert check(WHERE, timeout=0.2) == f"/health at {WHERE} gave no answer (TimeoutError)"
    dask = (sys.executable, "-m", "distributed.cli.dask_scheduler")
    command = [*dask, "--host", "127.0.0.1", "--dashboard-address", WHERE]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as scheduler:
        until(None)
        assert ask() == 0
        os.kill(scheduler.pid, signal.SIGSTOP)
        until(f"/health at {WHERE} gave no answer (TimeoutError)")
        os.kill(scheduler.pid, signal.SIGCONT)
        until(None)
        scheduler.terminate()
    assert check(WHERE) == f"/health at {WHERE} gave no answer (ConnectionRefusedError)"


if __name__ == "__main__":
    main()
