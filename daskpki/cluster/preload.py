"""Dask's preload on a node: `distributed.{scheduler,worker,nanny}.preload = ["daskpki.cluster.preload"]`.

Everything that may fail does so at import, which ends Dask; an exception in `dask_setup` would only be logged. Checks
that need the server (its Security was replaced, all its operations are in the tables) are in `dask_setup`, which ends
the process on failure. A server reads no message before its start has finished.

`dask scheduler` and `dask worker` build a stock Security from Dask's configuration, and worker and nanny build their
client context before they import a preload. Each of them listens before it dials, so its `security` and
`connection_args` are replaced when it begins to listen with the handover's certificate. Another server in the same
process (a LocalCluster inside a task) keeps its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from distributed import Security

from daskpki.cluster import selftest, trust_updates
from daskpki.cluster.backend import PkiListener, install
from daskpki.cluster.child_processes import parent_source
from daskpki.cluster.enforcement import CONNECTION_ARGUMENT, Enforcement
from daskpki.cluster.node import explain_end, without_trace
from daskpki.cluster.policy import WorkerClients
from daskpki.cluster.refresh import Poller
from daskpki.cluster.security import NodeSecurity, PkiSecurity
from daskpki.cluster.trust_updates import TrustManager
from daskpki.cluster.web.server import serve_health, verify_guarded
from daskpki.errors import NotTrustedError
from daskpki.handover import SEALED, VARIABLE, load_handover
from daskpki.identity import Role

if TYPE_CHECKING:
    from daskpki.cluster.sealed.scheduler import Seal


def _adopt(node: NodeSecurity, server: Any) -> Enforcement | None:
    """Put a server that uses the handover's certificate under `node`; None for another server of this process."""
    security = getattr(server, "security", None)
    role = Role(node.handover.role)
    if not isinstance(security, Security) or isinstance(security, PkiSecurity):
        return None
    if security.get_tls_config_for_role(role.value)["cert"] != node.handover.cert:
        return None
    if getattr(server, "nanny", None):
        # A nanny under daskpki's rules passes its Security to its worker; this one did not, so its port is unguarded.
        raise NotTrustedError(
            f"the nanny at {server.nanny} runs without daskpki's rules",
            hint="dask worker needs --preload-nanny daskpki.cluster.preload: it ignores distributed.nanny.preload",
        )
    server.security = node
    server.connection_args.pop("ssl_context", None)
    server.connection_args.update(node.get_connection_args(role.value))
    return node.enforcement(role)


def verify_adopted(server: Any) -> None:
    """Raise NotTrustedError unless all listeners and connections of `server` are under an Enforcement."""
    for listener in server.listeners:
        if not isinstance(listener, PkiListener):
            raise NotTrustedError(
                f"{type(server).__name__} listens at {listener.listen_address} without daskpki's rules",
                hint="start it through daskpki-entrypoint, with tls:// and nothing else",
            )
    for arguments in (server.connection_args, server.rpc.connection_args):
        if CONNECTION_ARGUMENT not in arguments:
            raise NotTrustedError(f"{type(server).__name__} would dial without daskpki's rules")


_HANDED_PERIOD: Final = 5
"""Seconds between two reads of the nanny's handover; a read costs nothing."""

POLLS: list[asyncio.Task[None]] = []
"""Tasks that poll for newer material, as long as this process has a server."""

SERVERS: set[Any] = set()
"""Dask servers of this process: a scheduler, a worker, or nannies."""

SEALS: dict[Any, Seal] = {}
"""Seals of sealed schedulers, which keep clients' pickles out."""

logger = logging.getLogger("distributed.daskpki")  # under Dask's own logging configuration


def begin(environ: Mapping[str, str]) -> NodeSecurity:
    """Put the servers of this process under the credential of the handover; NotTrustedError, CorruptError."""
    path = environ.get(VARIABLE)
    if path is None:
        raise NotTrustedError(f"{VARIABLE} is not set", hint="daskpki-entrypoint sets it, and starts Dask")
    handover = load_handover(path)
    selftest.run()
    node = NodeSecurity(handover)
    install().adopt = partial(_adopt, node)
    logger.info("enforcing as %s/%s of %s", handover.role, handover.name, handover.trust_domain)
    if handover.worker_clients == WorkerClients.ALLOW and handover.scheduler_code != SEALED:
        logger.warning("DASKPKI_WORKER_CLIENTS=allow: a worker's certificate may run code on the scheduler")
    if handover.freshness.stale_trust == "allow":
        logger.warning("DASKPKI_STALE_TRUST=allow: once the revocation list expires, revoked peers are accepted")
    return node


def dask_setup(server: Any) -> None:
    """Called by Dask once `server` listens and before it reads; SystemExit if the rules are not enforced."""
    try:
        verify_adopted(server)
        verify_guarded(server)
        if unknown := selftest.unknown_operations(server):
            raise NotTrustedError(  # noqa: TRY301 - logged like all of these
                f"{type(server).__name__} has operations that daskpki does not know: {', '.join(sorted(unknown))}",
                hint=selftest.tested_with(),
            )
        handover = NODE.handover
        enforcement = NODE.enforcement(Role(handover.role))
        if handover.health is not None:
            serve_health(server, enforcement, handover.health, metrics=handover.metrics == "yes")
        if handover.role == Role.SCHEDULER.value and handover.scheduler_code == SEALED:
            from daskpki.cluster.sealed.scheduler import seal

            SEALS[server] = seal(server, enforcement, handover.helper_limits, handover.helper_user)
    except Exception as error:
        logger.critical("refused to start: %s", getattr(error, "with_hint", f"{type(error).__name__}: {error}"))
        raise SystemExit(getattr(error, "exit_code", 1)) from error
    SERVERS.add(server)
    if getattr(server, "nanny", None):
        pass_on_to_nanny(server)
        # Read the nanny's handover: on a host, only the process of the nannies asks the store.
        security: NodeSecurity = server.security
        source = parent_source(os.environ[VARIABLE])
        freshness = security.handover.freshness._replace(poll=_HANDED_PERIOD)
        poller = Poller(security.manager, source, freshness=freshness, share=0)
        POLLS.append(asyncio.create_task(poller.run()))
    else:
        os.environ[VARIABLE] = NODE.hand_to_children()  # for the processes that this one starts


async def dask_teardown(server: Any) -> None:
    """Called by Dask when `server` closes; one of several nannies in a process may be retired alone."""
    SERVERS.discard(server)
    if sealed := SEALS.pop(server, None):
        sealed.helpers.end()
    while POLLS and not SERVERS:
        POLLS.pop().cancel()


def pass_on_to_nanny(server: Any) -> None:
    """Let a worker forward newer trust documents to its nanny, which has no stream from the scheduler."""
    security, nanny = server.security, server.nanny

    async def pass_on(manager: TrustManager) -> None:
        assert manager.signed is not None, "it was just accepted"
        try:
            await trust_updates.send_trust(nanny, server.connection_args, manager.signed)
        except OSError as error:  # it also polls by itself, a little later
            logger.warning("the nanny at %s did not take the trust document: %s", nanny, error)

    security.manager.on_trust.append(lambda manager: server.loop.add_callback(pass_on, manager))


sys.excepthook = explain_end
for chatty in ("distributed.batched", "distributed.worker"):
    logging.getLogger(chatty).addFilter(without_trace)
NODE = begin(os.environ)
"""The Security under which this process runs."""
