"""Logs a node's start: what it waits for, that it is ready, and in one line why it ended.

Dask logs nothing while it waits for a scheduler, and 60 lines of traceback for a taken port or a missing scheduler;
those are logged at level DEBUG.
"""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Collection
from contextlib import suppress
from types import TracebackType
from typing import Any, Final

import dask.config
import psutil
from distributed.core import Status

from daskpki.errors import DaskpkiError

_PATIENCE: Final = "distributed.comm.timeouts.connect"
_TEMPORARY: Final = 75  # as UnavailableError: the same start may succeed later

logger = logging.getLogger("distributed.daskpki")


async def announce(servers: Collection[Any]) -> None:
    """Log what these servers of a process wait for, and when all are ready; more may have joined by then."""
    first = next(iter(servers))
    scheduler = first.scheduler.address if hasattr(first, "scheduler") else None
    if scheduler:
        logger.info("waiting for the scheduler at %s (%s: %s)", scheduler, _PATIENCE, dask.config.get(_PATIENCE))
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
    raise SystemExit(_TEMPORARY)


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
