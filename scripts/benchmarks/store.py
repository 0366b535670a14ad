"""What nodes and an operator ask of Secret Manager under its real quotas, and what that costs a month.

Run as `scripts/bench store [NODES]` (default: 1,000). Every node has its own name, which is the worst case: workers
that share one cost the operator as much as one worker. Nodes boot and look by the code that real ones run, one after
the other, in this process with the emulator; their clock is moved by hand. The operator's commands are whole processes.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Final, NamedTuple

from daskpki.boot.launch import boot
from daskpki.boot.refresh import open_source
from daskpki.cluster.refresh import SHARE, Poller
from daskpki.cluster.security import NodeSecurity
from daskpki.handover import USUAL, VARIABLE, load_handover
from scripts.benchmarks.booting import PROJECT
from scripts.benchmarks.workshop import DASKPKI
from tests.emulator.metadata import MetadataServer
from tests.emulator.quotas import PER_MINUTE, quota_of
from tests.emulator.server import SecretManagerServer
from tests.support.boot_cloud import plain_environ

NODES: Final = 1_000
_HOUR: Final = 3_600
_HOURS: Final = 720
"""Of a month of thirty days."""
# US dollars, https://cloud.google.com/secret-manager/pricing; listing and writing are free.
_VERSION_A_MONTH: Final = 0.06
_ACCESS: Final = 0.03 / 10_000


class Asked(NamedTuple):
    """What one step asked of Secret Manager, by quota; refused requests, which were repeated, are among them."""

    step: str
    requests: Mapping[str, int]
    refused: int
    seconds: float


class Site:
    """An emulator that enforces Google's quotas, an operator, and nodes that were booted from it."""

    def __init__(self, server: SecretManagerServer, environ: Mapping[str, str]) -> None:
        server.quotas.enforced = True
        self.server = server
        self.steps: list[Asked] = []
        self._environ = dict(environ)
        self._nodes: list[tuple[NodeSecurity, Poller]] = []
        self._clock = 0.0

    def step(self, name: str, act: Callable[[], object]) -> Asked:
        """Do it, and keep what it asked for."""
        self.server.reset_journal()
        began = time.monotonic()
        act()
        seconds = time.monotonic() - began
        entries = self.server.requests()
        counts = Counter(quota_of(entry.method) for entry in entries)
        refused = sum(entry.status == "RESOURCE_EXHAUSTED" for entry in entries)
        self.steps.append(Asked(name, counts, refused, seconds))
        return self.steps[-1]

    def command(self, *words: str) -> Asked:
        """One of the operator's commands."""
        run = partial(subprocess.run, [DASKPKI, *words], env=self._environ, stdout=subprocess.DEVNULL, check=True)
        return self.step(f"`daskpki {' '.join(words)}`", run)

    def boot(self, name: str) -> None:
        """Boot a worker up to the exec of Dask, and keep what Dask would have kept."""

        def keep(_command: str, _arguments: Sequence[str], environ: Mapping[str, str]) -> None:
            security = NodeSecurity(load_handover(environ[VARIABLE]))
            source = open_source(security.handover, environ)
            poller = Poller(security.manager, source, share=SHARE, clock=lambda: self._clock)
            self._nodes.append((security, poller))

        with redirect_stderr(StringIO()):  # a line of each node's log
            boot(["worker", "--name", name], self._environ, keep)

    def boot_all(self, number: int) -> None:
        """Boot that many workers."""
        for each in range(number):
            self.boot(f"w-{each}")

    def look(self, after: float = USUAL.poll) -> None:
        """Every node's next look, so many seconds after its last; afterwards all go by the same trust document."""
        self._clock += after
        if not all(poller.poll() for _security, poller in self._nodes):
            raise RuntimeError("a node's look found no answer")
        if len({security.manager.document.epoch for security, _poller in self._nodes}) > 1:
            raise RuntimeError("a node missed a trust document")

    def versions(self) -> int:
        """The versions that are billed."""
        return sum(len(self.server.active_versions(secret)) for secret in self.server.secrets())


def measure(nodes: int, directory: Path) -> str:
    """All steps of a cluster's life, and what a month at rest costs, as Markdown."""
    with ExitStack() as stack:
        server = stack.enter_context(SecretManagerServer())
        metadata = stack.enter_context(MetadataServer(server.tokens, project=PROJECT))
        site = Site(
            server,
            {
                **plain_environ(),
                **metadata.environment,
                "DASKPKI_STORE": f"gsm://{PROJECT}",
                "DASKPKI_SECRET_MANAGER_ENDPOINT": server.rest_url,
                "DASKPKI_HOME": str(directory),
                "DASKPKI_SCHEDULER": "tls://127.0.0.1:8786",
                "DASKPKI_QUIET": "1",
            },
        )
        site.command("init-ca")
        site.command("issue", "worker", "--name", "w", "--count", str(nodes))
        site.step(f"{nodes:,} nodes boot", partial(site.boot_all, nodes))
        site.step("their first look, a minute later", site.look)
        rest = site.step("a look at rest", site.look)
        hour = partial(site.look, _HOUR + USUAL.poll)
        site.step("their first look for a newer certificate, after an hour", hour)
        hourly = site.step("that look in each later hour", hour)
        month = _month(rest.requests["access"], hourly.requests["access"], site.versions())
        for verb in ("start", "promote", "finish"):
            site.command("rotate-ca", verb, "--no-push")
            site.step("every node's next look", site.look)
        return "\n".join([*_table(site.steps, nodes), "", month])


def _table(steps: Sequence[Asked], nodes: int) -> list[str]:
    limits = ", ".join(f"{limit:,} {quota}" for quota, limit in PER_MINUTE.items())
    lines = [
        f"{nodes:,} nodes; Secret Manager allows a project {limits} requests a minute.",
        "",
        "| step | " + " | ".join(PER_MINUTE) + " | refused, repeated | took here, s |",
        "|---|" + "---:|" * (len(PER_MINUTE) + 2),
    ]
    for step in steps:
        counts = " | ".join(f"{step.requests[quota]:,}" for quota in PER_MINUTE)
        lines.append(f"| {step.step} | {counts} | {step.refused:,} | {step.seconds:.0f} |")
    return lines


def _month(rest: int, hourly: int, versions: int) -> str:
    looks = _HOUR // USUAL.poll
    accesses = _HOURS * ((looks - 1) * rest + hourly)
    return (
        f"A month at rest, with a look every {USUAL.poll} s: {accesses:,} accesses, ${accesses * _ACCESS:,.2f}, and"
        f" {versions:,} versions, ${versions * _VERSION_A_MONTH:,.2f}."
    )


if __name__ == "__main__":
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="daskpki-store-") as scratch:
        print(measure(int(sys.argv[1]) if len(sys.argv) > 1 else NODES, Path(scratch)))
