"""The Security of a cluster that one process starts: `LocalCluster(security=...)`.

It holds a credential for each role, and travels to the processes that multiprocessing starts here, through their pipe
and with the worker's credential alone. Anywhere else it would be written down with its keys (SSHCluster puts it on the
command line of `ssh`), so there it refuses to be pickled.
"""

from __future__ import annotations

from collections.abc import Iterable
from multiprocessing.context import get_spawning_popen
from typing import Any

from daskpki.cluster.contexts import KeyPair
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.keeper import Keeper
from daskpki.cluster.policy import WorkerClients
from daskpki.cluster.security import PkiSecurity
from daskpki.cluster.trust import Trust, trust_of
from daskpki.confidential import Confidential
from daskpki.errors import NotFoundError
from daskpki.identity import Identity, Role, parse_identity
from daskpki.pki.credential import Credential, certificate_pem, key_pem
from daskpki.pki.revoked import FetchPiece
from daskpki.pki.trust_document import TrustDocument


class LocalSecurity(PkiSecurity):
    """All roles of a cluster in one process; a worker process that is started from it gets the worker's alone."""

    def __reduce_ex__(self, protocol: object) -> Any:
        if get_spawning_popen() is None:
            raise TypeError(
                "this Security holds private keys, and goes to worker processes of this machine only; for SSHCluster "
                "and the like start the nodes through daskpki-entrypoint, and pass daskpki.security() for the client"
            )
        worker = self.enforcement(Role.WORKER)
        pair = worker.pair
        return _worker_process, (worker.identity.uri, pair.certificates, pair.key.reveal(), worker.trust, worker.mode)


def _worker_process(uri: str, certificates: str, key: bytes, trust: Trust, mode: WorkerClients) -> PkiSecurity:
    """In the started process: tasks are clients under their worker's leaf."""
    enforcement = Enforcement(parse_identity(uri), KeyPair(certificates, Confidential(key)), trust, mode=mode)
    return PkiSecurity({Role.WORKER: enforcement, Role.CLIENT: enforcement})


def cluster_security(
    credentials: Iterable[Credential],
    trust: TrustDocument,
    *,
    mode: WorkerClients = WorkerClients.ALLOW,
    fetch_piece: FetchPiece | None = None,
) -> LocalSecurity:
    """A Security for `LocalCluster` from one credential for each role, and the verified trust document.

    `mode` is `allow` unless given, since scheduler and workers run as one user and have no boundary to defend.
    NotFoundError when a role is missing.
    """
    view = trust_of(trust, fetch_piece)
    found = {each.identity.role: each for each in credentials}
    for role in Role:
        if role not in found:
            raise NotFoundError(f"cluster {trust.cluster} has no credential of a {role.value} here")
    enforcements = {role: _enforcement(each, view, mode) for role, each in found.items()}
    for enforcement in enforcements.values():
        enforcement.keeper = Keeper(enforcement, trust, fetch_piece=fetch_piece)
    return LocalSecurity(enforcements)


def _enforcement(credential: Credential, trust: Trust, mode: WorkerClients) -> Enforcement:
    identity: Identity = credential.identity
    return Enforcement(identity, KeyPair(certificate_pem(credential), key_pem(credential)), trust, mode=mode)
