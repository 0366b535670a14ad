"""Dask's preload on a node: `distributed.{scheduler,worker,nanny}.preload = ["daskpki.cluster.preload"]`.

Everything that may fail, fails at import, which Dask does not survive; an exception in `dask_setup` it would only log.
What can be known only once the server stands (that it was adopted, and which operations it has) is checked in
`dask_setup`, which ends the process when it does not hold. A server reads no message before its start has finished.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from daskpki.cluster import news, selftest
from daskpki.cluster.adoption import adopt_servers, verify_adopted
from daskpki.cluster.keeper import Keeper
from daskpki.cluster.policy import WorkerClients
from daskpki.cluster.security import NodeSecurity, node_security
from daskpki.errors import NotTrustedError
from daskpki.handover import VARIABLE, Handover, load_handover

logger = logging.getLogger("distributed.daskpki")  # under Dask's own logging configuration


def begin(environ: Mapping[str, str]) -> NodeSecurity:
    """Put the servers of this process under the credential that was handed over; NotTrustedError, CorruptError."""
    path = environ.get(VARIABLE)
    if path is None:
        raise NotTrustedError(f"{VARIABLE} is not set", hint="daskpki-entrypoint sets it, and starts Dask")
    handover = load_handover(path)
    selftest.run()
    node = node_security(handover)
    adopt_servers(node)
    _announce(handover)
    return node


def _announce(handover: Handover) -> None:
    logger.info("enforcing as %s/%s of %s", handover.role, handover.name, handover.trust_domain)
    if handover.worker_clients == WorkerClients.ALLOW:
        logger.warning("DASKPKI_WORKER_CLIENTS=allow: a worker's certificate may run code on the scheduler")


def dask_setup(server: Any) -> None:
    """Called by Dask once `server` listens and before it reads; SystemExit when the rules do not hold for it."""
    try:
        verify_adopted(server)
        if unknown := selftest.unknown_operations(server):
            raise NotTrustedError(  # noqa: TRY301 - one place that logs and ends
                f"{type(server).__name__} has operations that daskpki does not know: {', '.join(sorted(unknown))}",
                hint=f"tested with distributed {selftest.TESTED}",
            )
    except NotTrustedError as error:
        logger.critical("refused to start: %s (%s)", error, error.hint)
        raise SystemExit(error.exit_code) from error
    pass_on_to_nanny(server)


def pass_on_to_nanny(server: Any) -> None:
    """Have a worker pass newer trust documents on to its nanny, which has no stream from the scheduler."""
    security, nanny = server.security, getattr(server, "nanny", None)
    if nanny is None:
        return

    async def pass_on(keeper: Keeper) -> None:
        try:
            await news.bring(nanny, security.get_connection_args("worker"), keeper)
        except OSError as error:  # it asks for itself as well, a little later
            logger.warning("the nanny at %s did not take the trust document: %s", nanny, error)

    security.keeper.on_news.append(lambda keeper: server.loop.add_callback(pass_on, keeper))


NODE = begin(os.environ)
"""The Security under which this process runs."""
