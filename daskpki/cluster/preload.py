"""Dask's preload on a node: `distributed.{scheduler,worker,nanny}.preload = ["daskpki.cluster.preload"]`.

Everything that may fail does so at import, which ends Dask; an exception in `dask_setup` would only be logged. What can
be known only once the server exists (its Security was replaced, all of its operations are in the tables) is checked in
`dask_setup`, which ends the process on failure. A server reads no message before its start has finished.

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
from typing import TYPE_CHECKING, Any, Final

from distributed import Security

from daskpki.cluster import selftest, trust_updates
from daskpki.cluster.backend import PkiListener, install
from daskpki.cluster.child_processes import HandedSource
from daskpki.cluster.enforcement import CONNECTION_ARGUMENT, Enforcement
from daskpki.cluster.policy import WorkerClients
from daskpki.cluster.refresh import Watch
from daskpki.cluster.security import NodeSecurity, PkiSecurity, node_security
from daskpki.cluster.startup import explain_end
from daskpki.cluster.trust_updates import TrustManager
from daskpki.cluster.web.health import serve_health
from daskpki.cluster.web.server import verify_guarded
from daskpki.errors import NotTrustedError
from daskpki.handover import SEALED, VARIABLE, Handover, load_handover
from daskpki.identity import Role

if TYPE_CHECKING:
    from daskpki.cluster.sealed.scheduler import Seal


def adopt_servers(node: NodeSecurity) -> None:
    """From now on, put servers of this process that use the handover's certificate under `node`."""

    def adopt(server: Any) -> Enforcement | None:
        return _adopt(server, node)

    install().adopt = adopt


def _adopt(server: Any, node: NodeSecurity) -> Enforcement | None:
    security = getattr(server, "security", None)
    role = Role(node.handover.role)
    if not isinstance(security, Security) or isinstance(security, PkiSecurity):
        return None
    if security.get_tls_config_for_role(role.value)["cert"] != node.handover.cert:
        return None
    if getattr(server, "nanny", None):
        # A nanny under the rules hands its Security down to its worker; this one did not, so nobody guards its port.
        raise NotTrustedError(
            f"the nanny at {server.nanny} runs without daskpki's rules",
            hint="dask worker needs --preload-nanny daskpki.cluster.preload: it ignores distributed.nanny.preload",
        )
    server.security = node
    server.connection_args.pop("ssl_context", None)
    server.connection_args.update(node.get_connection_args(role.value))
    return node.enforcement(role)


def verify_adopted(server: Any) -> None:
    """Raise NotTrustedError unless every way into and out of `server` is under an Enforcement."""
    for listener in server.listeners:
        if not isinstance(listener, PkiListener):
            raise NotTrustedError(
                f"{type(server).__name__} listens at {listener.listen_address} without daskpki's rules",
                hint="start it through daskpki-entrypoint, with tls:// and nothing else",
            )
    for arguments in (server.connection_args, server.rpc.connection_args):
        if CONNECTION_ARGUMENT not in arguments:
            raise NotTrustedError(f"{type(server).__name__} would dial without daskpki's rules")


_HANDED_PERIOD: Final = 5.0
"""Seconds between two looks at what the nanny's process hands on, which cost nothing."""

WATCHING: list[asyncio.Task[None]] = []
"""The looks for newer material that this process takes, for as long as it has a server."""

SERVERS: set[Any] = set()
"""Those of this process: a scheduler, a worker, or nannies."""

SEALS: dict[Any, Seal] = {}
"""Of a sealed scheduler what stands between its clients' pickles and itself."""

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
    _log_modes(handover)
    return node


def _log_modes(handover: Handover) -> None:
    logger.info("enforcing as %s/%s of %s", handover.role, handover.name, handover.trust_domain)
    if handover.worker_clients == WorkerClients.ALLOW and handover.scheduler_code != SEALED:
        logger.warning("DASKPKI_WORKER_CLIENTS=allow: a worker's certificate may run code on the scheduler")
    if handover.freshness.stale_trust == "allow":
        logger.warning("DASKPKI_STALE_TRUST=allow: once the revocation list runs out, revoked peers are taken in")


def dask_setup(server: Any) -> None:
    """Called by Dask once `server` listens and before it reads; SystemExit when the rules do not hold for it."""
    try:
        verify_adopted(server)
        verify_guarded(server)
        if unknown := selftest.unknown_operations(server):
            raise NotTrustedError(  # noqa: TRY301 - told as all of these are
                f"{type(server).__name__} has operations that daskpki does not know: {', '.join(sorted(unknown))}",
                hint=selftest.tested_with(),
            )
        _serve_health(server)
        _seal(server)
    except Exception as error:
        logger.critical("refused to start: %s", getattr(error, "with_hint", f"{type(error).__name__}: {error}"))
        raise SystemExit(getattr(error, "exit_code", 1)) from error
    SERVERS.add(server)
    if getattr(server, "nanny", None):
        pass_on_to_nanny(server)
        _watch_nanny(server)
    else:
        os.environ[VARIABLE] = NODE.hand_on()  # for the processes that this one starts


async def dask_teardown(server: Any) -> None:
    """Called by Dask when `server` closes; of several nannies in one process, one may be retired by itself."""
    SERVERS.discard(server)
    if sealed := SEALS.pop(server, None):
        sealed.helpers.end()
    while WATCHING and not SERVERS:
        WATCHING.pop().cancel()


def _watch_nanny(server: Any) -> None:
    """Follow what the nanny's process goes by: of a host's processes only that one asks the store."""
    security: NodeSecurity = server.security
    role, freshness = Role(security.handover.role), security.handover.freshness
    source = HandedSource(os.environ[VARIABLE])
    watch = Watch(security.enforcement(role), security.keeper, source, freshness=freshness, share=0)
    WATCHING.append(asyncio.create_task(watch.run(_HANDED_PERIOD)))


def _seal(server: Any) -> None:
    handover = NODE.handover
    if handover.role == Role.SCHEDULER.value and handover.scheduler_code == SEALED:
        from daskpki.cluster.sealed.scheduler import seal

        enforcement = NODE.enforcement(Role.SCHEDULER)
        SEALS[server] = seal(server, enforcement, handover.helper_limits, handover.helper_user)


def _serve_health(server: Any) -> None:
    handover = NODE.handover
    if handover.health is not None:
        enforcement = NODE.enforcement(Role(handover.role))
        serve_health(server, enforcement, handover.health, metrics=handover.metrics == "yes")


def pass_on_to_nanny(server: Any) -> None:
    """Have a worker pass newer trust documents on to its nanny, which has no stream from the scheduler."""
    security, nanny = server.security, server.nanny

    async def pass_on(keeper: TrustManager) -> None:
        assert keeper.signed is not None, "it was just taken in"
        try:
            await trust_updates.send_trust(nanny, server.connection_args, keeper.signed)
        except OSError as error:  # it asks for itself as well, a little later
            logger.warning("the nanny at %s did not take the trust document: %s", nanny, error)

    security.keeper.on_news.append(lambda keeper: server.loop.add_callback(pass_on, keeper))


sys.excepthook = explain_end
NODE = begin(os.environ)
"""The Security under which this process runs."""
