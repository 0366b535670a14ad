"""A preload of Dask: writes each time that the event loop came late, with the moment, to the file in BENCH_STALLS."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

_PERIOD = 0.005
_WATCHES: list[asyncio.Task[None]] = []


async def dask_setup(_server: Any) -> None:
    """Begin to watch the loop on which the server runs."""
    _WATCHES.append(asyncio.create_task(_watch(Path(os.environ["BENCH_STALLS"]))))


async def _watch(path: Path) -> None:
    with path.open("a", buffering=1) as file:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(_PERIOD)
            ended = time.perf_counter()
            if ended - began > 2 * _PERIOD:
                file.write(f"{ended} {ended - began - _PERIOD}\n")
