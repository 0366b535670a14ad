"""Which roles may stand at the two ends of a connection: pure tables, default deny."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from daskpki.errors import NotTrustedError
from daskpki.identity import Identity, Role


class Server(StrEnum):
    """The three kinds of Dask server that listen."""

    SCHEDULER = "Scheduler"
    WORKER = "Worker"
    NANNY = "Nanny"


SERVES: Final[Mapping[Role, frozenset[Server]]] = {
    Role.SCHEDULER: frozenset({Server.SCHEDULER}),
    Role.WORKER: frozenset({Server.WORKER, Server.NANNY}),
    Role.CLIENT: frozenset(),
}
"""As what a role may listen, and so which operations a peer of that role may be sent."""

ACCEPTS: Final[Mapping[Server, frozenset[Role]]] = {
    Server.SCHEDULER: frozenset({Role.CLIENT, Role.WORKER}),
    Server.WORKER: frozenset({Role.SCHEDULER, Role.WORKER, Role.CLIENT}),  # clients: direct scatter, gather and actors
    Server.NANNY: frozenset({Role.SCHEDULER, Role.WORKER}),
}
"""Whose connections a server takes; a nanny, of workers, those of its own alone (`verify_own_worker`)."""

DIALS: Final[Mapping[Role, frozenset[Role]]] = {
    Role.SCHEDULER: frozenset({Role.WORKER}),
    Role.WORKER: frozenset({Role.SCHEDULER, Role.WORKER}),
    Role.CLIENT: frozenset({Role.SCHEDULER, Role.WORKER}),
}
"""Whom a role may find at the other end when it dials; what it may say there is the matter of `policy`."""


def verify_own_worker(server: Server, ours: Identity, peer: Identity) -> None:
    """Raise NotTrustedError when another worker than a nanny's own comes to it.

    A nanny and the worker that it starts hold one credential. Nobody else's worker has anything to say to it: it would
    be told to stop, and its worker not to come back.
    """
    if server is Server.NANNY and peer.role is Role.WORKER and peer != ours:
        raise NotTrustedError(f"{peer.uri} is not the worker of this nanny, which is {ours.uri}")
