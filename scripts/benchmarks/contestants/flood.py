"""A client that brings false trust documents to the scheduler without a pause: `flood.py ADDRESS NAME`, until it ends.

It says `flooding` once the first was refused. What it brings is in the name of a CA that the cluster has not heard of,
for which it is told to wait. For a forged signature its certificate would be cut off, and the busy client with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from typing import Any

from distributed.comm.core import connect

import daskpki
from daskpki.cluster import trust_updates
from daskpki.confidential import Confidential
from daskpki.credentials.source_selection import Wanted
from daskpki.credentials.sources import obtain, this_process

CONNECTIONS = 4
UNKNOWN_GENERATION = 99


def false_document(name: str) -> dict[str, Any]:
    """The cluster's own document as of a later epoch, in nobody's name, as it travels."""
    signed = obtain(Wanted(name=name, store="local:"), this_process()).verified.signed
    document = json.loads(signed.reveal())
    document["payload"] = json.dumps(json.loads(document["payload"]) | {"epoch": 10**6})
    document["signatures"] = [each | {"generation": UNKNOWN_GENERATION} for each in document["signatures"]]
    return trust_updates.message(Confidential(json.dumps(document).encode()))


async def flood(address: str, name: str) -> None:
    """Send for ever."""
    security = daskpki.security(name, store="local:")
    first = asyncio.Event()

    sent = false_document(name)

    async def sender() -> None:
        while True:
            with contextlib.suppress(OSError):
                comm = await connect(address, **security.get_connection_args("client"))
                while True:
                    await comm.write(sent)
                    await comm.read()
                    first.set()

    async def announce() -> None:
        await first.wait()
        print("flooding", flush=True)

    await asyncio.gather(announce(), *(sender() for _ in range(CONNECTIONS)))


if __name__ == "__main__":
    logging.disable()
    asyncio.run(flood(*sys.argv[1:]))
