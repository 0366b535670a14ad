"""Many workers at one scheduler: registration, its CPU, memory and longest silence, and telling all of them.

Run as `scripts/bench fleet [COUNT...]`. Workers are simulated: Worker objects in one process, which shares the
machine's cores with the scheduler, so the times are those of this machine and only the ratios say something.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import psutil
from distributed import Client

from daskpki.cluster.security import client_security
from daskpki.identity import Role
from scripts.benchmarks.workshop import CONTESTANTS
from tests.cluster.conftest import stock_security
from tests.support.cluster_material import Authority
from tests.support.nodes import PRELOADS, STARTED, Node, handover_of, node_environment, stock_environment

COUNTS: Final = (10, 100)
STOCK: Final = "stock"
OURS: Final = "daskpki"
GOALS: Final = {"registered_s": 1.1, "cpu_s": 1.2, "memory_mb": 1.1, "silence_s": 1.2, "told_s": 1.5}
_SETTLED: Final = 3.0
_PAUSE: Final = 0.01


class Measured(NamedTuple):
    """One fleet: seconds until all were registered, and until a broadcast reached all.

    In between, of the scheduler: CPU seconds, growth in MB, and the longest time in which it answered nobody.
    """

    registered_s: float
    cpu_s: float
    memory_mb: float
    silence_s: float
    told_s: float


class Watcher(threading.Thread):
    """Asks the scheduler for nothing, over and over, and keeps the longest wait for its answer."""

    def __init__(self, client: Client) -> None:
        super().__init__(daemon=True)
        self.longest = 0.0
        self._client = client
        self._over = threading.Event()

    def run(self) -> None:
        """Until `stop`."""
        while not self._over.wait(_PAUSE):
            started = time.perf_counter()
            self._client.sync(self._client.scheduler.get_task_status, keys=[])
            self.longest = max(self.longest, time.perf_counter() - started)

    def stop(self) -> float:
        """The longest wait."""
        self._over.set()
        self.join()
        return self.longest


def measure(kind: str, count: int, directory: Path) -> Measured:
    """One fleet of that kind."""
    authority = Authority()
    with ExitStack() as stack:
        scheduler, address = stack.enter_context(_scheduler(kind, authority, directory / "scheduler"))
        alice = authority.leaf(Role.CLIENT, "alice")
        if kind == STOCK:
            security = stock_security(authority, alice, directory / "alice")
        else:
            security = client_security(alice.credential, authority.document())
        client = stack.enter_context(Client(address, security=security))
        process = psutil.Process(scheduler.process.pid)
        before, memory = sum(process.cpu_times()[:2]), process.memory_info().rss
        watcher = Watcher(client)
        watcher.start()
        started = time.perf_counter()
        stack.enter_context(_crew(kind, authority, address, count, directory / "crew"))
        registered = time.perf_counter() - started
        client.wait_for_workers(count)
        cpu, silence = sum(process.cpu_times()[:2]) - before, watcher.stop()
        grown = (process.memory_info().rss - memory) / 1e6
        started = time.perf_counter()
        reached = client.run(_nothing)
        told = time.perf_counter() - started
        if len(reached) != count:
            raise RuntimeError(f"{len(reached)} of {count} workers answered")
        return Measured(registered, cpu, grown, silence, told)


def _nothing() -> None:
    return None


@contextmanager
def _scheduler(kind: str, authority: Authority, directory: Path) -> Iterator[tuple[Node, str]]:
    leaf = authority.leaf(Role.SCHEDULER)
    environment = (
        stock_environment(authority, leaf, directory)
        if kind == STOCK
        else node_environment(authority, leaf, directory, "limited")
    )
    preloads = () if kind == STOCK else PRELOADS[Role.SCHEDULER]
    place = ["--host", "tls://127.0.0.1", "--port", "0", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    node = Node(["scheduler", *place, *preloads], environment)
    try:
        yield node, node.wait_for(STARTED["scheduler"]).group(1)
    finally:
        node.stop()


@contextmanager
def _crew(kind: str, authority: Authority, address: str, count: int, directory: Path) -> Iterator[None]:
    leaf = authority.leaf(Role.WORKER)
    environment = stock_environment(authority, leaf, directory)
    if kind == OURS:
        handover_of(authority, leaf, directory, "limited")
    command = [sys.executable, str(CONTESTANTS / "crew.py"), kind, address, str(count), str(directory)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as crew:
        assert crew.stdout is not None
        try:
            if crew.stdout.readline().strip() != "registered":
                raise RuntimeError(f"the {kind} workers ended with {crew.wait()}")
            yield
        finally:
            crew.kill()


def table(counts: Sequence[int], rounds: int) -> str:
    """The medians as Markdown, the kinds by turns."""
    lines = ["| workers | | " + " | ".join(Measured._fields) + " |", "|---:|---|" + "---:|" * len(Measured._fields)]
    for count in counts:
        taken: dict[str, list[Measured]] = {STOCK: [], OURS: []}
        for _ in range(rounds):
            for kind, several in taken.items():
                with tempfile.TemporaryDirectory(prefix="daskpki-fleet-") as directory:
                    several.append(measure(kind, count, Path(directory)))
        medians = {
            kind: [sorted(values)[len(values) // 2] for values in zip(*several, strict=True)]
            for kind, several in taken.items()
        }
        for kind, values in medians.items():
            lines.append(f"| {count} | {kind} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
        ratios = [ours / stock if stock else 1.0 for ours, stock in zip(medians[OURS], medians[STOCK], strict=True)]
        lines.append(f"| {count} | ratio | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")
    lines.append("| | goal | " + " | ".join(f"{GOALS[field]:.1f}" for field in Measured._fields) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table([int(entry) for entry in sys.argv[1:]] or COUNTS, rounds=3))
