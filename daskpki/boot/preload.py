"""Dask's preload on a node that was booted: the rules of `daskpki.cluster.preload`, and an eye on the source.

One process of a host looks: the scheduler, or the nannies' parent; a worker looks for itself only without a nanny.
"""

from __future__ import annotations

import asyncio
from typing import Any

from daskpki.boot.polling import open_source
from daskpki.cluster.preload import NODE
from daskpki.cluster.preload import dask_setup as enforce
from daskpki.cluster.watch import Watch
from daskpki.identity import Role

_WATCHING: list[asyncio.Task[None]] = []


async def dask_setup(server: Any) -> None:
    """Called by Dask before the server reads; see `daskpki.cluster.preload.dask_setup`."""
    enforce(server)
    source = open_source(NODE.handover)
    if source is None or _WATCHING or getattr(server, "nanny", None):
        return
    watch = Watch(NODE.enforcement(Role(NODE.handover.role)), NODE.keeper, source)
    _WATCHING.append(asyncio.create_task(watch.run()))


async def dask_teardown(server: Any) -> None:  # noqa: ARG001 - Dask's signature
    """Called by Dask when the first of the process's servers closes: all of them end together."""
    while _WATCHING:
        _WATCHING.pop().cancel()
