"""The Security of a cluster that one process starts: `LocalCluster(security=...)`.

It has a credential for each role. It can be pickled only into the pipe of a process that multiprocessing starts here,
and then carries the worker's credential alone. Elsewhere its keys would be written down (SSHCluster puts them on the
command line of `ssh`), so pickling is refused there.

A trust document reaches all processes: the managers of the roles share it, the scheduler's streams carry it to the
workers, and the scheduler polls the store. Credentials are read once, at the start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from multiprocessing.context import get_spawning_popen
from typing import Any, Final

from tornado.ioloop import PeriodicCallback

from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.peer import trust_of
from daskpki.cluster.policy import Dashboard, WorkerClients
from daskpki.cluster.refresh import Poller, Source
from daskpki.cluster.security import PkiSecurity
from daskpki.cluster.tls import KeyPair, key_pair
from daskpki.cluster.trust_updates import TrustManager
from daskpki.confidential import Confidential
from daskpki.errors import NotFoundError
from daskpki.handover import USUAL
from daskpki.identity import Role, parse_identity
from daskpki.pki.credential import Credential
from daskpki.pki.trust_document import TrustDocument

POLL: Final = "daskpki-poll"
"""Name of a scheduler's periodic callback that polls for newer trust documents."""


class LocalSecurity(PkiSecurity):
    """Credentials of all roles of a cluster; a worker process that is started from it gets the worker's only."""

    def __reduce_ex__(self, protocol: object) -> Any:
        if get_spawning_popen() is None:
            raise TypeError(
                "this Security holds private keys, and goes to worker processes of this machine only; for SSHCluster "
                "and the like start the nodes through daskpki-entrypoint, and pass daskpki.security() for the client"
            )
        worker = self.enforcement(Role.WORKER)
        pair = worker.pair.certificates, worker.pair.key.reveal()
        assert worker.manager is not None
        return _worker_process, (worker.identity.uri, pair, worker.manager.document, worker.mode, worker.dashboard)


def _worker_process(
    uri: str, pair: tuple[str, bytes], document: TrustDocument, mode: WorkerClients, dashboard: Dashboard
) -> PkiSecurity:
    """Make the Security in the started process, where tasks are clients under their worker's leaf."""
    certificates, key = pair
    held = KeyPair(certificates, Confidential(key))
    enforcement = Enforcement(parse_identity(uri), held, trust_of(document), mode=mode, dashboard=dashboard)
    enforcement.manager = TrustManager(enforcement, document)
    return PkiSecurity({Role.WORKER: enforcement, Role.CLIENT: enforcement})


def cluster_security(
    credentials: Iterable[Credential],
    trust: TrustDocument,
    *,
    mode: WorkerClients = WorkerClients.ALLOW,
    dashboard: Dashboard = Dashboard.LOOPBACK,
    source: Source | None = None,
) -> LocalSecurity:
    """Make a Security for `LocalCluster` from one credential for each role, and the verified trust document.

    `mode` defaults to `allow`, since scheduler and workers run as one user without a boundary between them. The
    dashboard is for this machine's users, wherever LocalCluster binds it, unless `dashboard` says otherwise. `source`
    is asked for the next trust document every minute while a scheduler listens. NotFoundError if a role is missing.
    """
    view = trust_of(trust)
    found = {each.identity.role: each for each in credentials}
    for role in Role:
        if role not in found:
            raise NotFoundError(f"cluster {trust.cluster} has no credential of a {role.value} here")
    enforcements = {
        role: Enforcement(each.identity, key_pair(each), view, mode=mode, dashboard=dashboard)
        for role, each in found.items()
    }
    managers = [TrustManager(enforcement, trust) for enforcement in enforcements.values()]
    for enforcement, manager in zip(enforcements.values(), managers, strict=True):
        enforcement.manager = manager
        manager.on_trust.append(partial(_share, managers))
        if source is not None and enforcement.identity.role is Role.SCHEDULER:
            enforcement.on_listening = partial(_follow, Poller(manager, source))
    return LocalSecurity(enforcements)


def _share(managers: Iterable[TrustManager], newest: TrustManager) -> None:
    """Offer the newest document to all; a manager that has it declines, so this ends."""
    assert newest.signed is not None
    for manager in managers:
        manager.accept_trust(newest.signed)


def _follow(poller: Poller, server: Any) -> None:
    """Poll for newer documents as long as `server` runs."""
    poll = partial(asyncio.to_thread, poller.poll)
    server.periodic_callbacks[POLL] = PeriodicCallback(poll, USUAL.poll * 1000, jitter=0.1)
