"""From `daskpki revoke` to the last operation that a connected, busy client gets through, pushed and polled."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

from daskpki.cli.demo import Stage
from scripts.benchmarks.report import Section
from scripts.benchmarks.timing import Sample
from scripts.benchmarks.workshop import CONTESTANTS, DASKPKI, Workshop

PERIOD: Final = 2
"""Seconds between two looks of the polled nodes; usually they are 60."""
_NEVER: Final = 86_400
_ROUNDS: Final = 7
"""Revocations for each round of the others, so that there are enough for a 99th percentile."""
_LOCAL: Final = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0", "--no-dashboard")
_ABOUT: Final = (
    "A client that computes without a pause, one small task after the other, is revoked; what counts is the last task"
    " that the cluster answered. Scheduler, worker and nanny were booted by the entrypoint from a local store. Pushed:"
    " the command takes the trust document to the scheduler. Polled (`--no-push`): the nodes look into the store every"
    f" {PERIOD} s, where 60 s are usual, so that half of the difference is added in a real cluster. From the"
    " start: of the command's process. From publication: of the trust document, after which the command prints its"
    " result. Under a flood: meanwhile the same client brings false trust documents to the scheduler, on four more"
    " connections and without a pause."
)


class Moments(NamedTuple):
    """Of one revocation, in seconds on the monotonic clock."""

    started: float
    published: float
    last: float


class Site(NamedTuple):
    """A running cluster, and a client that is busy on it."""

    stage: Stage
    address: str
    client: subprocess.Popen[str]

    @property
    def environ(self) -> Mapping[str, str]:
        """The operator's, who holds a credential of the cluster."""
        pushing = {"DASKPKI_CREDENTIAL_DIR": str(self.stage.home / "admin"), "DASKPKI_SCHEDULER": self.address}
        return {**self.stage.environ, **pushing, "PYTHONUNBUFFERED": "1"}

    def flooded(self, name: str, *options: str) -> Moments:
        """The same while the client brings false trust documents."""
        command = [sys.executable, str(CONTESTANTS / "flood.py"), self.address, name]
        with subprocess.Popen(
            command, env=self.stage.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as flood:
            assert flood.stdout is not None
            assert flood.stdout.readline().strip() == "flooding"
            try:
                return self.revoke(name, *options)
            finally:
                flood.kill()

    def revoke(self, name: str, *options: str) -> Moments:
        """Revoke that client while it is busy."""
        assert self.client.stdin is not None
        self.client.stdin.write(f"{name}\n")
        self.client.stdin.flush()
        assert self._answer() == "busy"
        started = time.monotonic()
        command = [str(DASKPKI), "revoke", f"client/{name}", *options]
        with subprocess.Popen(command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            process.stdout.readline()
            published = time.monotonic()
            return Moments(started, published, float(self._answer()))

    def _answer(self) -> str:
        assert self.client.stdout is not None
        return self.client.stdout.readline().strip()


def revocation(workshop: Workshop) -> Section:
    """Run the benchmark."""
    rounds = workshop.rounds * _ROUNDS
    samples = [
        *_series("pushed", rounds, _NEVER),
        *_series("polled", rounds, PERIOD, "--no-push"),
        *_series("pushed under a flood", rounds, _NEVER, flood=True),
        *_series("polled under a flood", rounds, PERIOD, "--no-push", flood=True),
    ]
    return Section("Revocation of a busy client", _ABOUT, "pushed, from publication", samples, (), percentile=True)


def _series(label: str, rounds: int, poll: int, *options: str, flood: bool = False) -> Iterator[Sample]:
    with _site(rounds, poll) as site:
        revoke = site.flooded if flood else site.revoke
        moments = [revoke(f"c-{number}", *options) for number in range(rounds)]
    yield Sample(f"{label}, from the start", tuple(each.last - each.started for each in moments))
    yield Sample(f"{label}, from publication", tuple(each.last - each.published for each in moments))


@contextmanager
def _site(clients: int, poll: int) -> Iterator[Site]:
    with Stage() as stage:
        stage.run("init-ca", "--with", "scheduler,worker,client/admin")
        stage.run("issue", "client", "--name", "c", "--count", str(clients))
        stage.run("export", "client/admin", "--out", str(stage.home / "admin"))
        looking = ("--poll", str(poll))
        scheduler = stage.start("scheduler", "scheduler", *looking, "--", *_LOCAL, "--port", "0")
        address = scheduler.wait_for(r"Scheduler at:\s+(tls://\S+)")
        worker = stage.start("worker", "worker", *looking, "--scheduler", address, "--num-workers", "1", "--", *_LOCAL)
        worker.wait_for(r"(Registered) to:\s+tls://\S+")
        command = [sys.executable, str(CONTESTANTS / "busy.py"), address]
        with subprocess.Popen(
            command, env=stage.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as client:
            yield Site(stage, address, client)
            client.kill()
