"""Real Dask processes as daskpki-entrypoint starts them: `dask scheduler`, `dask worker`, preload and handover."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daskpki.handover import VARIABLE, Handover, encode_handover
from daskpki.identity import Role
from tests.support.cluster_material import Authority, Leaf

STARTED = {
    "scheduler": re.compile(r"Scheduler at:\s+(tls://\S+)"),
    "worker": re.compile(r"Registered to:\s+(tls://\S+)"),
}
WORKER_AT = re.compile(r"Start worker at:\s+(tls://\S+)")
PRELOADS = {
    Role.SCHEDULER: ("--preload", "daskpki.cluster.preload"),
    Role.WORKER: ("--preload", "daskpki.cluster.preload", "--preload-nanny", "daskpki.cluster.preload"),
}
DEADLINE = 120.0


ASKED_FOR = "DASKPKI_TEST_DISTRIBUTED"
"""Set where the tests run under another distributed than the installed one (test_versions)."""


class Node:
    """A Dask process. A thread keeps its standard error empty: a full pipe would stop the process."""

    def __init__(self, arguments: list[str], environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"distributed.cli.dask_{arguments[0]}", *arguments[1:]],
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self.process.stderr is not None
        self.log = ""
        self._pipe = self.process.stderr
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()

    def wait_for(self, pattern: re.Pattern[str], count: int = 1) -> re.Match[str]:
        """The last of `count` matches in the log; AssertionError when the process ends or the deadline passes first."""
        with self._news:
            self._news.wait_for(lambda: self._ended or len(pattern.findall(self.log)) >= count, DEADLINE)
            found = list(pattern.finditer(self.log))
        assert len(found) >= count, f"{'ended' if self._ended else 'too slow'}:\n{self.log}"
        return found[count - 1]

    def _follow(self) -> None:
        while not self._ended:
            select.select([self._pipe], [], [])
            self.drain()

    def drain(self) -> str:
        """The log so far, with all that the process has written by now."""
        with self._news:
            while not self._ended and select.select([self._pipe], [], [], 0)[0]:
                data = os.read(self._pipe.fileno(), 1 << 16)
                self.log += data.decode(errors="replace")
                self._ended = not data
                self._news.notify_all()
            return self.log

    def exit_code(self) -> int:
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return code

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(DEADLINE)
        self._pipe.close()


def handover_of(
    authority: Authority, leaf: Leaf, directory: Path, mode: str, *, code: str = "stock", limits: str | None = None
) -> Path:
    """Write what daskpki-entrypoint would leave in memory."""
    files = authority.files(leaf, directory)
    trust = directory / "trust.json"
    document = authority.document()
    trust.write_bytes(authority.signed(document).reveal())
    handover = Handover(
        cluster=authority.cluster,
        trust_domain=authority.trust_domain,
        role=leaf.identity.role.value,
        name=leaf.identity.name,
        cert=files.cert,
        key=files.key,
        ca=files.ca,
        trust=str(trust),
        worker_clients=mode,
        dashboard="off",
        tls_min="1.3",
        scheduler_code=code,
        helper_limits=limits,
    )
    path = directory / "handover.json"
    path.write_bytes(encode_handover(handover))
    return path


def stock_environment(authority: Authority, leaf: Leaf, directory: Path) -> dict[str, str]:
    """Dask's own mutual TLS, by configuration."""
    files = authority.files(leaf, directory)
    role = leaf.identity.role.value.upper()
    return os.environ | {
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
        "DASK_DISTRIBUTED__COMM__TLS__MIN_VERSION": "1.3",
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": files.ca,
        f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT": files.cert,
        f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY": files.key,
        "DASK_TEMPORARY_DIRECTORY": str(directory),
        # Tasks are defined in the tests; and distributed may be another than the installed one.
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
        "PYTHONUNBUFFERED": "1",
        # Dask's own habits of looking at itself 100 times a second are most of what idle clusters cost.
        "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "200ms",
        "DASK_DISTRIBUTED__WORKER__PROFILE__INTERVAL": "100ms",
    }


def node_environment(
    authority: Authority, leaf: Leaf, directory: Path, mode: str, *, code: str = "stock", limits: str | None = None
) -> dict[str, str]:
    """The same, under daskpki."""
    return stock_environment(authority, leaf, directory) | {
        VARIABLE: str(handover_of(authority, leaf, directory, mode, code=code, limits=limits)),
    }


class Cluster:
    """A scheduler and a worker program with a nanny for each of its workers."""

    def __init__(
        self,
        authority: Authority,
        directory: Path,
        mode: str | None,
        *,
        code: str = "stock",
        limits: str | None = None,
    ) -> None:
        self.code = code
        self.preloaded: tuple[str, ...] = ()
        """Further preloads of the scheduler."""
        self.variables: dict[str, str] = {}
        self.limits = limits
        self.authority = authority
        self.directory = directory
        self.mode = mode
        self._nodes: list[Node] = []

    def begin(self, nworkers: int) -> None:
        self.nworkers = nworkers
        self.scheduler = self.start(
            Role.SCHEDULER, "scheduler", "--host", "tls://127.0.0.1", "--port", "0", *self.preloaded
        )
        self.address = self.scheduler.wait_for(STARTED["scheduler"]).group(1)
        self.workers = self.start(
            Role.WORKER, "worker", self.address, "--nworkers", str(nworkers), "--nthreads", "2", "--host", "127.0.0.1"
        )
        self.workers.wait_for(STARTED["worker"], nworkers)
        self.nanny = self.workers.wait_for(re.compile(r"Start Nanny at: '(tls://\S+)'")).group(1)

    @property
    def worker(self) -> str:
        """The address of a worker; after a restart, of a new one."""
        return str(WORKER_AT.findall(self.workers.drain())[-1])

    def start(self, role: Role, *arguments: str) -> Node:
        directory = self.directory / role.value
        leaf = self.authority.leaf(role)
        if self.mode is None:
            environ = stock_environment(self.authority, leaf, directory)
        else:
            environ = node_environment(self.authority, leaf, directory, self.mode, code=self.code, limits=self.limits)
            arguments = (*arguments, *PRELOADS[role])
        arguments = (*arguments, "--no-dashboard", "--dashboard-address", "127.0.0.1:0")
        node = Node([*arguments], environ | self.variables)
        self._nodes.append(node)
        return node

    def stop(self) -> None:
        for node in reversed(self._nodes):
            node.stop()


@contextmanager
def cluster(
    authority: Authority,
    directory: Path,
    mode: str | None,
    nworkers: int = 2,
    *,
    code: str = "stock",
    limits: str | None = None,
) -> Iterator[Cluster]:
    running = Cluster(authority, directory, mode, code=code, limits=limits)
    try:
        running.begin(nworkers)
        yield running
    finally:
        running.stop()
