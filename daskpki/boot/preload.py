"""Dask's preload on a node that was booted: the rules of `daskpki.cluster.preload`, and an eye on the source.

One process of a host looks there: the scheduler, or the nannies' parent, whose workers look at what that one hands on.
"""

from __future__ import annotations

import asyncio
from typing import Any

from daskpki.boot.refresh import open_source
from daskpki.cluster.preload import NODE, WATCHING, dask_teardown
from daskpki.cluster.preload import dask_setup as enforce
from daskpki.cluster.refresh import SHARE, Watch
from daskpki.identity import Role

__all__ = ["dask_setup", "dask_teardown"]


async def dask_setup(server: Any) -> None:
    """Called by Dask before the server reads; see `daskpki.cluster.preload.dask_setup`."""
    enforce(server)
    if WATCHING:  # a nanny's worker, or not the first nanny of this process
        return
    handover = NODE.handover
    source, share = open_source(handover), SHARE if handover.store else 0  # a look into a directory costs nothing
    enforcement = NODE.enforcement(Role(handover.role))
    watch = Watch(enforcement, NODE.keeper, source, freshness=handover.freshness, share=share)
    WATCHING.append(asyncio.create_task(watch.run()))
