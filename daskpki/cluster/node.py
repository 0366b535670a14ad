"""Logs a node's start and end, and retires a worker before SIGTERM ends it (`--retire`).

Dask logs nothing while it waits for a scheduler, and 60 lines of traceback for a taken port or a missing scheduler. So
a node logs what it waits for, that it is ready, and in one line why it ended; the traceback is at level DEBUG.

On SIGTERM, a worker first has the scheduler move its data to other workers, then ends. Its certificate allows that
operation for its own address. So a scale-down, the preemption of a spot machine, a rolling replacement and
`docker stop` lose no data that another worker can take, and tasks that ran here start elsewhere without being counted
as killed. When that is done, or the time is over, the signal is raised again for Dask's own handler. A second signal
goes there at once.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import sys
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Final

import dask.config
import psutil
from distributed.core import Status

from daskpki.cluster.policy import Server, server_kind
from daskpki.errors import DaskpkiError, UnavailableError

_CONNECT_TIMEOUT: Final = "distributed.comm.timeouts.connect"
_CLOSING: Final = 10.0
"""Seconds that Dask gives a nanny's worker process to end, if that much time is left."""
_LEAST: Final = 1.0
"""Seconds for that if no time is left."""
_REASON: Final = "daskpki-retire-on-sigterm"

logger = logging.getLogger("distributed.daskpki")
_leaving: set[asyncio.Task[None]] = set()


async def announce(servers: Collection[Any]) -> None:
    """Log what these servers of a process wait for, and when all are ready; more may have joined by then."""
    first = next(iter(servers))
    scheduler = first.scheduler.address if hasattr(first, "scheduler") else None
    if scheduler:
        seconds = dask.config.get(_CONNECT_TIMEOUT)
        logger.info("waiting for the scheduler at %s (%s: %s)", scheduler, _CONNECT_TIMEOUT, seconds)
    while starting := [server for server in servers if server.status is Status.init]:
        try:
            await starting[0]
        except Exception:  # noqa: BLE001 - Dask raises it as well, where it ends the process
            return
    workers = f" (workers here: {len(servers)})" if scheduler else ""
    logger.info("ready at %s%s", scheduler or first.address, workers)


def explain_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log in one line the error that ended this process, as its `sys.excepthook`; exit with the code of the cause."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    found = next((each for each in chain if isinstance(each, (DaskpkiError, OSError))), None)
    if found is None:
        sys.__excepthook__(kind, error, trace)
        return
    logger.debug("the way to the end", exc_info=error)
    if isinstance(found, DaskpkiError):
        logger.critical("ended: %s", found.with_hint)
        raise SystemExit(found.exit_code)
    root = chain[-1]
    said, why = found.strerror or str(found), root.strerror if isinstance(root, OSError) else None
    logger.critical("ended: %s", said if not why or why in said else f"{said}: {why}")
    raise SystemExit(UnavailableError.exit_code)  # the same start may succeed later


def without_trace(record: logging.LogRecord) -> bool:
    """Take off a traceback of `distributed` that only says that a connection ended.

    `distributed.batched` adds one at INFO whenever a peer has left, and `distributed.worker` one to a heartbeat that
    fails, for example because the worker itself is ending.
    """
    error = record.exc_info[1] if record.exc_info else None
    if record.name == "distributed.worker" and record.funcName == "heartbeat" and isinstance(error, OSError):
        record.msg, record.exc_info = f"{record.msg} {error}", None
    elif record.name == "distributed.batched" and record.levelno == logging.INFO:
        record.exc_info = None
    return True


def port_is_taken(address: str, port: int) -> OSError:
    """Make an error to raise instead of EADDRINUSE, with the address, and the process there if this user may see it.

    Dask recognises it by its errno when it looks for a free port in a range.
    """
    holder = ""
    with suppress(psutil.Error):  # on macOS, only root may ask
        for found in psutil.net_connections("tcp"):
            if found.status == psutil.CONN_LISTEN and found.laddr.port == port and found.pid:
                process = psutil.Process(found.pid)
                holder = f" by {process.name()}, process {process.pid} of user {process.username()}"
    return OSError(errno.EADDRINUSE, f"{address} is taken{holder}: end that, or choose another port")


def retire_on_sigterm(servers: Collection[Any], seconds: float) -> None:
    """On SIGTERM, retire the workers or nannies that `servers` contains at that time, within `seconds` in all.

    This works only if the main thread runs them, as in Dask's own commands: no other thread receives signals.
    """
    if len(servers) > 1 or not seconds or server_kind(next(iter(servers))) is Server.SCHEDULER:
        return
    if threading.current_thread() is not threading.main_thread():
        return
    before, loop = signal.getsignal(signal.SIGTERM), asyncio.get_running_loop()

    def begin() -> None:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)
        task = loop.create_task(_leave(tuple(servers), seconds))
        _leaving.add(task)  # the loop itself keeps no task alive
        task.add_done_callback(end)

    def end(leaving: asyncio.Task[None]) -> None:
        if not leaving.cancelled():  # by a second signal, which Dask handles
            signal.raise_signal(signal.SIGTERM)

    loop.add_signal_handler(signal.SIGTERM, begin)


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

    Sets `remove`, as Dask's own Worker.close_gracefully does, so that tasks still running here do not count as killed.
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
