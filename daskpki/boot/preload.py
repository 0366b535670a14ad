"""Dask's preload on a booted node: `daskpki.cluster.preload`, plus polling of the node's source.

One process of a host polls: the scheduler, or the process of the nannies. Its workers read its handover.
"""

from __future__ import annotations

import asyncio
from typing import Any

from daskpki.boot.refresh import open_source
from daskpki.cluster.node import announce, retire_on_sigterm
from daskpki.cluster.preload import NODE, POLLS, SERVERS, dask_teardown
from daskpki.cluster.preload import dask_setup as enforce
from daskpki.cluster.refresh import SHARE, Poller
from daskpki.identity import Role

__all__ = ["dask_setup", "dask_teardown"]


async def dask_setup(server: Any) -> None:
    """Enforce the rules as `daskpki.cluster.preload.dask_setup` does, and begin to poll the source."""
    enforce(server)
    handover = NODE.handover
    retire_on_sigterm(SERVERS, float(handover.retire or 0))
    if POLLS:  # a nanny's worker, or a further nanny of this process
        return
    source = open_source(handover)
    share = 0 if handover.directory or handover.file else SHARE  # reading files costs nothing
    poller = Poller(NODE.manager, source, freshness=handover.freshness, share=share)
    POLLS.append(asyncio.create_task(poller.run()))
    if handover.command != "node" or handover.role == Role.WORKER:  # a node is ready when its workers are
        POLLS.append(asyncio.create_task(announce(SERVERS)))
