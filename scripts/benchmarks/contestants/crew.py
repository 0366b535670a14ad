"""Many workers in one process: crew.py KIND SCHEDULER COUNT DIRECTORY, where KIND is stock or daskpki.

Each is a Worker object of Dask with its own TLS settings. It answers commands, a line each, with `done`; the end of its
input ends the process:

    prepare         read what each worker has in DIRECTORY; in a real fleet each does it on its own machine
    start AT_ONCE   start the workers, so many at a time, and wait until all are registered
    beat AT_ONCE    have each worker send a heartbeat, so many at a time
    epoch N COUNT   wait until the first COUNT workers go by trust document N
    renew           give all workers but the last the certificate in DIRECTORY/renewed
    gone            wait until all workers have ended, as they do when the scheduler is gone

The last worker has what is in DIRECTORY/revoked, if there is such a directory.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from distributed import Security, Worker

from daskpki.cluster.backend import install
from daskpki.cluster.security import NodeSecurity
from daskpki.cluster.tls import KeyPair
from daskpki.cluster.trust_updates import TrustManager
from daskpki.confidential import Confidential
from daskpki.handover import load_handover

_OPTIONS: dict[str, Any] = {"nthreads": 1, "host": "127.0.0.1", "dashboard": False, "memory_limit": 0}
_NO_HEARTBEAT = "1h"
"""A thousand workers send 167 heartbeats a second, which keep one process busy; so they come when asked for."""


def _manager(worker: Worker) -> TrustManager:
    security = worker.security
    assert isinstance(security, NodeSecurity)
    return security.manager


class Crew:
    """The workers, and the TLS settings of each."""

    def __init__(self, kind: str, scheduler: str, count: int, directory: Path) -> None:
        self._kind, self._scheduler, self._count, self._directory = kind, scheduler, count, directory
        self._news = asyncio.Event()
        self._securities: list[Security] = []
        self._workers: list[Worker] = []

    async def prepare(self) -> None:
        """See the module's docstring, also for the others."""
        *others, last = [self._directory] * self._count
        revoked = last / "revoked"
        self._securities = [self._security(each) for each in (*others, revoked if revoked.is_dir() else last)]

    def _security(self, directory: Path) -> Security:
        if self._kind == "daskpki":
            security = NodeSecurity(load_handover(str(directory / "handover.json")))
            security.manager.on_trust.append(lambda _manager: self._news.set())
            return security
        cert, key, ca = (str(directory / f"{name}.pem") for name in ("cert", "key", "ca"))
        return Security(tls_ca_file=ca, tls_worker_cert=cert, tls_worker_key=key, require_encryption=True)

    async def start(self, at_once: str) -> None:
        places = asyncio.Semaphore(int(at_once))

        async def one(number: int) -> Worker:
            async with places:
                worker: Worker = await Worker(
                    self._scheduler,
                    name=number,
                    security=self._securities[number],
                    heartbeat_interval=_NO_HEARTBEAT,
                    **_OPTIONS,
                )
                return worker

        self._workers = await asyncio.gather(*map(one, range(self._count)))

    async def beat(self, at_once: str) -> None:
        places = asyncio.Semaphore(int(at_once))

        async def one(worker: Worker) -> None:
            async with places:
                await worker.heartbeat()
            worker.periodic_callbacks["heartbeat"].callback_time = 3_600_000  # the scheduler asked for one in seconds

        await asyncio.gather(*map(one, self._workers))

    async def epoch(self, epoch: str, count: str) -> None:
        waiting = [_manager(worker) for worker in self._workers[: int(count)]]
        while waiting := [manager for manager in waiting if manager.document.epoch < int(epoch)]:
            await self._news.wait()
            self._news.clear()

    async def renew(self) -> None:
        directory = self._directory / "renewed"
        pair = KeyPair((directory / "cert.pem").read_text(), Confidential((directory / "key.pem").read_bytes()))
        for worker in self._workers[:-1]:
            _manager(worker).renew(pair)

    async def gone(self) -> None:
        await asyncio.gather(*(worker.finished() for worker in self._workers))


async def main() -> None:
    """Do what is asked."""
    kind, scheduler, count, directory = sys.argv[1:]
    if kind == "daskpki":
        install()
    crew = Crew(kind, scheduler, int(count), Path(directory))
    while words := (await asyncio.to_thread(sys.stdin.readline)).split():
        await getattr(crew, words[0])(*words[1:])
        print("done", flush=True)
    os._exit(0)  # a thousand workers take minutes to say good-bye


if __name__ == "__main__":
    asyncio.run(main())
