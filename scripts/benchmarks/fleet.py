"""Many workers at one scheduler, under daskpki and under stock TLS: what registering, telling and restarting costs.

Run as `scripts/bench fleet [COUNT...] [--rounds N]`. Workers are simulated: Worker objects in one process, which shares
the machine's cores with the scheduler, so the times are those of this machine and only the ratios say something.

Stock TLS has no trust document: to be compared, it broadcasts as many bytes to all workers (`Client.run`).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import psutil
from distributed import Client
from distributed.comm.core import connect
from distributed.core import send_recv
from distributed.protocol.pickle import dumps

from daskpki.cluster.security import client_security
from daskpki.cluster.trust_updates import send_trust
from daskpki.identity import Role
from daskpki.pki.certificates import der
from scripts.benchmarks.workshop import CONTESTANTS
from tests.support.cluster_material import Authority, Leaf, stock_security
from tests.support.nodes import PRELOADS, STARTED, Node, handover_of, node_environment, stock_environment

T = TypeVar("T")

COUNTS: Final = (10, 100)
STOCK: Final = "stock"
OURS: Final = "daskpki"
_AT_ONCE: Final = 20
"""How many workers of a fleet come at a time at first; after a restart, all do."""
_PAUSE: Final = 0.005
"""Seconds between two looks at the scheduler's workers, which cost it time."""
_QUIET: Final = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "60s",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "10s",
}
"""What every worker looks at several times a second, which a thousand in one process cannot."""
_PATIENT: Final = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "1h"}
"""The scheduler misses no heartbeats: the crew sends them when they are measured."""
GOALS: Final = {"registered_s": 1.1, "memory_mb": 1.1, "stall_s": 1.2, "revoked_s": 1.5, "restart_stall_s": 1.2}


class Measured(NamedTuple):
    """One fleet. All but the memory in seconds; CPU and memory are the scheduler's, while all register.

    What a worker does before it dials is not in it: in a real fleet each does it on its own machine. A stall is the
    longest time by which the scheduler's event loop was late. `beats_cpu`: the scheduler's CPU for a heartbeat of each
    worker; at other times there are none. `pushed`: until all workers go by a new trust document;
    `revoked`: the same for one that revokes a worker, and until that one is gone; `rollover`: the three documents of
    one, and a new certificate for each worker. `restart`: until all, who come at once, are registered at a scheduler
    that was killed and is there again.
    """

    registered_s: float
    cpu_s: float
    memory_mb: float
    stall_s: float
    beats_cpu_s: float
    pushed_s: float
    revoked_s: float
    rollover_s: float
    restart_s: float
    restart_stall_s: float


class Crew:
    """The process of the workers; see contestants/crew.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, *words: object) -> float:
        """Have it do something, and wait until it is done: the seconds that it took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        began = time.perf_counter()
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        if not self._process.stdout.readline():
            raise RuntimeError(f"the workers ended with {self._process.wait()}")
        return time.perf_counter() - began


class Fleet:
    """One CA, a scheduler, a client and a crew of that many workers."""

    def __init__(self, kind: str, count: int, directory: Path, stack: ExitStack) -> None:
        self._kind, self._count, self._directory, self._stack = kind, count, directory, stack
        self._authority = Authority()
        self._stalls = directory / "stalls"

    def measure(self) -> Measured:
        """All of it, in the order of the fields."""
        scheduler, address = self._start_scheduler("0")
        client = self._client(address)
        crew = self._stack.enter_context(self._crew(address))
        spare = self._leaf("revoked")
        crew.ask("prepare")
        process = psutil.Process(scheduler.process.pid)
        memory = process.memory_info().rss
        (registered, stall), cpu = _cpu(process, lambda: self._timed(lambda: crew.ask("start", _AT_ONCE)))
        grown = (process.memory_info().rss - memory) / 1e6
        _, beats = _cpu(process, lambda: crew.ask("beat", _AT_ONCE))
        pushed = self._push(client, crew, self._count)
        self._authority.revoke(spare)
        revoked = self._push(client, crew, self._count - 1, leaves=True)
        rollover = self._roll_over(client, crew)
        client.close()
        scheduler.process.kill()
        crew.ask("gone")
        shutil.rmtree(self._directory / "crew" / "revoked")
        self._leaf("")
        crew.ask("prepare")
        self._start_scheduler(address.rpartition(":")[2])
        restart, restart_stall = self._timed(lambda: crew.ask("start", self._count))
        return Measured(registered, cpu, grown, stall, beats, pushed, revoked, rollover, restart, restart_stall)

    def _timed(self, act: Callable[[], float]) -> tuple[float, float]:
        """The seconds of it, and the scheduler's longest stall meanwhile."""
        began = time.perf_counter()
        seconds = act()
        entries = (map(float, line.split()) for line in self._stalls.read_text().splitlines())
        return seconds, max((late for moment, late in entries if moment >= began), default=0.0)

    def _push(self, client: Client, crew: Crew, count: int, *, leaves: bool = False) -> float:
        """Seconds until so many workers have the next trust document, or as many bytes; one may have to leave."""
        document = self._authority.document()
        signed = self._authority.signed(document)
        began = time.perf_counter()
        arguments = client.security.get_connection_args("client")
        assert client.scheduler is not None
        if self._kind == STOCK:
            client.sync(_broadcast, client.scheduler.address, arguments, signed.reveal())
        else:
            client.sync(send_trust, client.scheduler.address, arguments, signed)
            crew.ask("epoch", document.epoch, count)
            while leaves and len(client.ncores()) > count:
                time.sleep(_PAUSE)
        return time.perf_counter() - began

    def _roll_over(self, client: Client, crew: Crew) -> float:
        total = 0.0
        for step in (
            self._authority.add_authority,
            self._authority.activate_authority,
            self._authority.finish_rollover,
        ):
            step()
            total += self._push(client, crew, self._count - 1)
            if self._kind == OURS and step == self._authority.activate_authority:
                self._authority.files(self._authority.leaf(Role.WORKER), self._directory / "crew" / "renewed")
                total += crew.ask("renew")
        self._authority.der = der(self._authority.issuer.root)  # what nodes that start from now on are given
        return total

    def _client(self, address: str) -> Client:
        alice = self._authority.leaf(Role.CLIENT, "alice")
        if self._kind == STOCK:
            security = stock_security(self._authority, alice, self._directory / "alice")
        else:
            security = client_security(alice.credential, self._authority.document())
        client: Client = self._stack.enter_context(Client(address, security=security))
        return client

    def _start_scheduler(self, port: str) -> tuple[Node, str]:
        leaf, directory = self._authority.leaf(Role.SCHEDULER), self._directory / "scheduler"
        place = ["--host", "tls://127.0.0.1", "--port", port, "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        preloads = ["--preload", str(CONTESTANTS / "stalls.py")]
        if self._kind == STOCK:
            environment = stock_environment(self._authority, leaf, directory)
        else:
            environment = node_environment(self._authority, leaf, directory, "limited")
            preloads += PRELOADS[Role.SCHEDULER]
        node = Node(["scheduler", *place, *preloads], environment | _PATIENT | {"BENCH_STALLS": str(self._stalls)})
        self._stack.callback(node.stop)
        return node, node.wait_for(STARTED["scheduler"]).group(1)

    def _leaf(self, name: str) -> Leaf:
        """What a worker finds in the crew's directory, or in one below it."""
        leaf, directory = self._authority.leaf(Role.WORKER), self._directory / "crew" / name
        if self._kind == STOCK:
            self._authority.files(leaf, directory)
        else:
            handover_of(self._authority, leaf, directory, "limited")
        return leaf

    @contextmanager
    def _crew(self, address: str) -> Iterator[Crew]:
        directory = self._directory / "crew"
        environment = stock_environment(self._authority, self._leaf(""), directory) | _QUIET
        command = [sys.executable, str(CONTESTANTS / "crew.py"), self._kind, address, str(self._count), str(directory)]
        with subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                yield Crew(process)
            finally:
                process.kill()


def _cpu(process: psutil.Process, act: Callable[[], T]) -> tuple[T, float]:
    """The result of it, and the processor time that the process took meanwhile, in seconds."""
    before = sum(process.cpu_times()[:2])
    result = act()
    return result, sum(process.cpu_times()[:2]) - before


async def _broadcast(address: str, arguments: Mapping[str, Any], data: bytes) -> None:
    """What Client.run does, on a connection of its own as a pushed document has."""
    comm = await connect(address, **arguments)
    try:
        run = {"op": "run", "function": dumps(len), "args": dumps((data,))}
        await send_recv(comm, op="broadcast", msg=run)
    finally:
        comm.abort()


def table(counts: Sequence[int], rounds: int) -> str:
    """The medians as Markdown, the kinds by turns."""
    lines = ["| workers | | " + " | ".join(Measured._fields) + " |", "|---:|---|" + "---:|" * len(Measured._fields)]
    for count in counts:
        taken: dict[str, list[Measured]] = {STOCK: [], OURS: []}
        for _ in range(rounds):
            for kind, several in taken.items():
                with tempfile.TemporaryDirectory(prefix="daskpki-fleet-") as directory, ExitStack() as stack:
                    several.append(Fleet(kind, count, Path(directory), stack).measure())
        medians = {
            kind: [sorted(values)[len(values) // 2] for values in zip(*several, strict=True)]
            for kind, several in taken.items()
        }
        for kind, values in medians.items():
            lines.append(f"| {count} | {kind} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
        ratios = [ours / stock if stock else 1.0 for ours, stock in zip(medians[OURS], medians[STOCK], strict=True)]
        lines.append(f"| {count} | ratio | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")
    lines.append(
        "| | goal | " + " | ".join(f"{GOALS[name]:.1f}" if name in GOALS else "" for name in Measured._fields) + " |"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench fleet", description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=COUNTS, metavar="COUNT")
    parser.add_argument("--rounds", type=int, default=3, help="fleets of each size and kind (default: 3)")
    options = parser.parse_args()
    print(table(options.counts, options.rounds))
