"""A scheduler, its client with data that must not be lost, and workers that are to end."""

from __future__ import annotations

import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from distributed import Client
from distributed.security import Security

from tests.support.boot_cloud import plain_environ
from tests.support.booted import running
from tests.support.ports import free_port

PAYLOAD = b"only here" * 100_000


class Machine:
    """A scheduler with its client, and workers to be ended, each a process of the entrypoint's."""

    def __init__(self, directory: Path, logs: Path, stack: ExitStack, options: tuple[str, ...] = ()) -> None:
        self._directory = directory
        self._logs = logs
        self._stack = stack
        self.address = f"tls://127.0.0.1:{free_port()}"
        port = self.address.rpartition(":")[2]
        self.scheduler = self._run("scheduler", *options, "--", "--port", port, "--dashboard-address", "127.0.0.1:0")
        self.client: Any = stack.enter_context(Client(self.address, security=self._security(), timeout=60))

    def _security(self) -> Security:
        path = self._directory / "client"
        return Security(
            tls_ca_file=str(path / "ca.pem"),
            tls_client_cert=str(path / "cert.pem"),
            tls_client_key=str(path / "key.pem"),
            require_encryption=True,
        )

    def _run(self, role: str, *argv: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        environ = plain_environ(
            DASKPKI_CREDENTIAL_DIR=str(self._directory / role), DASKPKI_SCHEDULER=self.address, THREADS_PER_WORKER="2"
        )
        log = self._logs / f"{role}-{argv[-1].replace('/', '-')}.log"
        return self._stack.enter_context(running(environ, log, role, *argv, prefix=prefix))

    def worker(
        self, name: str, *dask: str, options: tuple[str, ...] = (), prefix: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        """A worker of that name, once the scheduler has it."""
        argv = (*options, "--", *dask, "--nworkers", "1", "--name", name)
        process = self._run("worker", *argv, prefix=prefix)
        end = time.monotonic() + 60
        while name not in self.names():
            assert time.monotonic() < end, self.log(name)
            time.sleep(0.05)
        return process

    def names(self) -> set[str]:
        return {str(info["name"]) for info in self.client.scheduler_info(n_workers=-1)["workers"].values()}

    def log(self, name: str) -> str:
        return (self._logs / f"worker-{name}.log").read_text()
