"""A client that brings false trust documents to the scheduler without a pause: `flood.py ADDRESS NAME`, until it ends.

It says `flooding` once the first was refused. Half of its connections bring what is forged, for which they are cut off,
and come back; the other half what only does not hold, for which they are told to wait.
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
from daskpki.cluster import news
from daskpki.confidential import Confidential
from daskpki.credentials.choice import Wanted
from daskpki.credentials.sources import obtain, this_process

CONNECTIONS = 4
UNKNOWN_GENERATION = 99


def false_documents(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cluster's own document as of a later epoch: with the signature that it had, and in nobody's name."""
    signed = obtain(Wanted(name=name, store="local:"), this_process()).held.signed
    forged = json.loads(signed.reveal())
    forged["payload"] = json.dumps(json.loads(forged["payload"]) | {"epoch": 10**6})
    unknown = forged | {"signatures": [each | {"generation": UNKNOWN_GENERATION} for each in forged["signatures"]]}
    return message(forged), message(unknown)


def message(document: dict[str, Any]) -> dict[str, Any]:
    """How it travels."""
    return news.message(Confidential(json.dumps(document).encode()), {})


async def flood(address: str, name: str) -> None:
    """Send for ever."""
    security = daskpki.security(name, store="local:")
    first = asyncio.Event()

    async def sender(sent: dict[str, Any]) -> None:
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

    documents = false_documents(name)
    await asyncio.gather(announce(), *(sender(documents[number % 2]) for number in range(CONNECTIONS)))


if __name__ == "__main__":
    logging.disable()
    asyncio.run(flood(*sys.argv[1:]))
