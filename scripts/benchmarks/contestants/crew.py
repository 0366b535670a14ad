"""Many workers in one process: crew.py KIND SCHEDULER COUNT DIRECTORY, where KIND is stock or daskpki.

Each is a Worker object of Dask with its own TLS context. It prints `registered` once all are, and ends with its input.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from distributed import Security, Worker

from daskpki.cluster.backend import install
from daskpki.cluster.security import NodeSecurity
from daskpki.handover import load_handover


def security(kind: str, directory: Path) -> Any:
    """What one worker speaks TLS by."""
    if kind == "daskpki":
        return NodeSecurity(load_handover(str(directory / "handover.json")))
    cert, key, ca = (str(directory / f"{name}.pem") for name in ("cert", "key", "ca"))
    return Security(tls_ca_file=ca, tls_worker_cert=cert, tls_worker_key=key, require_encryption=True)


async def main() -> None:
    """Start them, a few at a time as a fleet's machines come up, and stay."""
    kind, scheduler, count, directory = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    if kind == "daskpki":
        install()
    at_once = asyncio.Semaphore(20)
    options: dict[str, Any] = {"nthreads": 1, "host": "127.0.0.1", "dashboard": False, "memory_limit": 0}

    async def one(number: int) -> Worker:
        async with at_once:
            return await Worker(scheduler, name=number, security=security(kind, directory), **options)

    await asyncio.gather(*map(one, range(count)))
    sys.stdout.write("registered\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    import os

    os._exit(0)  # a thousand workers take minutes to say good-bye


if __name__ == "__main__":
    asyncio.run(main())
