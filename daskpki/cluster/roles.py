"""Which roles may stand at the two ends of a connection: pure tables, default deny."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from daskpki.identity import Role


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
"""Whose connections a server takes."""

DIALS: Final[Mapping[Role, frozenset[Role]]] = {
    Role.SCHEDULER: frozenset({Role.WORKER}),
    Role.WORKER: frozenset({Role.SCHEDULER, Role.WORKER}),
    Role.CLIENT: frozenset({Role.SCHEDULER, Role.WORKER}),
}
"""Whom a role may find at the other end when it dials; what it may say there is the matter of `policy`."""
