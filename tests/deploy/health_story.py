"""Runs in PID and network namespaces of its own, as in a container: what `daskpki.health` says as things change."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

from daskpki.health import check


def until(wanted: str | None) -> None:
    """Wait, at most 20 s, until the check says that."""
    end = time.monotonic() + 20
    while (found := check(timeout=0.5)) != wanted:
        assert time.monotonic() < end, (found, wanted)


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    assert check() == "nothing listens"
    assert subprocess.run([sys.executable, "-m", "daskpki.health"], check=False).returncode == 1
    with socket.create_server(("127.0.0.1", 9000)):
        assert check() == "nothing listens beyond loopback"
    with socket.create_server(("0.0.0.0", 9000)):  # noqa: S104 - in a network namespace without a network
        assert check() is None
        assert subprocess.run([sys.executable, "-m", "daskpki.health"], check=False).returncode == 0
    with socket.create_server(("127.0.0.1", 8787)) as silent, socket.create_server(("0.0.0.0", 8786)):  # noqa: S104
        assert check(timeout=0.2) == "/health gave no answer (TimeoutError)"
        silent.close()
        assert check() is None
    with socket.create_server(("0.0.0.0", 8787)):  # noqa: S104 - a dashboard under mutual TLS, which is not asked
        assert check() is None
    command = [
        sys.executable,
        "-m",
        "dask",
        "scheduler",
        "--host",
        "127.0.0.1",
        "--dashboard-address",
        "127.0.0.1:8787",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as scheduler:
        until(None)
        os.kill(scheduler.pid, signal.SIGSTOP)
        until("/health gave no answer (TimeoutError)")
        os.kill(scheduler.pid, signal.SIGCONT)
        until(None)
        chosen = {"DASKPKI_HEALTH": "0.0.0.0:8787"}
        assert check(environ=chosen) is None
        assert check(environ={"DASKPKI_HEALTH": "0.0.0.0:8790"}) == "/health gave no answer (ConnectionRefusedError)"
        scheduler.terminate()
    assert check() == "nothing listens"


if __name__ == "__main__":
    main()
