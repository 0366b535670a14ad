"""On SIGTERM, a worker first has the scheduler move its data to other workers, then ends (`--retire`).

The worker's certificate allows that operation for its own address. So a scale-down, the preemption of a spot machine, a
rolling replacement and `docker stop` lose no data that another worker can take, and tasks that ran here start elsewhere
without being counted as killed. When that is done, or the time is over, the signal is raised again for Dask's own
handler. A second signal goes there at once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Collection
from functools import partial
from typing import Any, Final
from weakref import WeakSet

from daskpki.cluster.policy import Server, server_kind

_CLOSING: Final = 10.0
"""Seconds that Dask gives a nanny's worker process to end, if that much time is left."""

_LEAST: Final = 1.0
"""Seconds for that if no time is left."""

_REASON: Final = "daskpki-retire-on-sigterm"

logger = logging.getLogger("distributed.daskpki")
_SERVERS: Final[WeakSet[Any]] = WeakSet()
_leaving: set[asyncio.Task[None]] = set()


def retire_on_sigterm(server: Any, seconds: float) -> None:
    """On SIGTERM, retire `server`, a worker or a nanny, and all others of this process, within `seconds` in all.

    This works only if the main thread runs them, as in Dask's own commands: no other thread receives signals.
    """
    if server_kind(server) is Server.SCHEDULER or not seconds:
        return
    if threading.current_thread() is not threading.main_thread():
        return
    installed = bool(_SERVERS)
    _SERVERS.add(server)
    if not installed:
        _begin_at(signal.SIGTERM, seconds)


def _begin_at(number: signal.Signals, seconds: float) -> None:
    before, loop = signal.getsignal(number), asyncio.get_running_loop()

    def begin() -> None:
        loop.remove_signal_handler(number)
        signal.signal(number, before)
        task = loop.create_task(_leave(tuple(_SERVERS), seconds))
        _leaving.add(task)  # the loop itself keeps no task alive
        task.add_done_callback(end)

    def end(leaving: asyncio.Task[None]) -> None:
        if not leaving.cancelled():  # by a second signal, which Dask handles
            signal.raise_signal(number)

    loop.add_signal_handler(number, begin)


async def _leave(servers: Collection[Any], seconds: float) -> None:
    end = time.monotonic() + seconds
    nannies = [server for server in servers if server_kind(server) is Server.NANNY]
    for nanny in nannies:
        nanny.close_gracefully(reason=_REASON)  # else it starts the retired worker again
    async with asyncio.TaskGroup() as group:
        for server in servers:
            group.create_task(_retire(server, seconds))
    patience = min(_CLOSING, max(_LEAST, end - time.monotonic()))
    await asyncio.gather(*(_end(nanny, patience) for nanny in nannies))


async def _retire(server: Any, seconds: float) -> None:
    """Have the scheduler move the data of one worker; failures are logged, and the worker ends anyway.

    `remove` as in Dask's own Worker.close_gracefully: tasks that are still running are then not counted as killed here.
    """
    if server_kind(server) is Server.WORKER:  # else it waits 30 s for a task that runs elsewhere by then
        server.close = partial(server.close, executor_wait=False)
    address = server.address if server_kind(server) is Server.WORKER else server.worker_address
    if address is None:  # the nanny has no worker just now
        return
    logger.info("SIGTERM: retiring %s, for at most %g s", address, seconds)
    call = server.scheduler.retire_workers(
        workers=[address], close_workers=False, remove=True, stimulus_id=f"{_REASON}-{time.time()}"
    )
    try:
        moved = address in await asyncio.wait_for(call, seconds)
    except TimeoutError:
        logger.warning("%s was not retired within %g s: data that only it has is lost", address, seconds)
    except Exception as error:  # noqa: BLE001 - whatever the scheduler answers, this process has to end
        logger.warning("%s was not retired: %s", address, error)
    else:
        if not moved:
            logger.warning("%s has data that no other worker could take", address)


async def _end(nanny: Any, patience: float) -> None:
    """Stop the worker process now: Dask would wait for a task that runs elsewhere by now, or is lost."""
    try:
        await asyncio.wait_for(nanny.kill(timeout=patience, reason=_REASON), 2 * patience)
    except Exception as error:  # noqa: BLE001 - as above
        logger.warning("the worker of %s did not end: %s", nanny.address_safe, error)
