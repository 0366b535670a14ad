"""Whom a dial may find at the other end, by what was dialled."""

from __future__ import annotations

from typing import Final

from daskpki.cluster.roles import DIALS
from daskpki.identity import Role

ARGUMENT: Final = "daskpki_destinations"
"""The key under which Destinations stand among the arguments that Dask hands to its comm backends."""


class Destinations:
    """The addresses that one Client, worker or nanny dials: at its scheduler's there is a scheduler, or nobody.

    Dask gives each of them connection arguments of its own, and these go with them. A Client dials its scheduler
    before it can know of anybody else, so the first address is the scheduler's, also when it connects again. A worker
    or nanny says where its scheduler is when it begins to listen (`backend`): one that fails early dials its nanny
    first.
    """

    def __init__(self) -> None:
        self.scheduler: str | None = None

    def roles(self, location: str, ours: Role) -> frozenset[Role]:
        """The roles that may be at `location` (HOST:PORT, as it is dialled) when `ours` dials it."""
        if self.scheduler is None:
            self.scheduler = location
        allowed = DIALS[ours]
        return allowed & {Role.SCHEDULER} or allowed if location == self.scheduler else allowed
