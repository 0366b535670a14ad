"""Under which names peers have registered with a scheduler, and so whose names they are while a connection lives."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from daskpki.identity import Identity

if TYPE_CHECKING:
    from daskpki.cluster.policy import Channel


class Ledger:
    """Addresses and ids of workers and nannies, names of clients; forgotten with the connections that registered."""

    def __init__(self) -> None:
        self._claims: dict[tuple[Channel, str], WeakKeyDictionary[object, Identity]] = {}
        self._made: WeakKeyDictionary[object, set[tuple[Channel, str]]] = WeakKeyDictionary()

    def register(self, channel: Channel, name: str, identity: Identity, connection: object) -> None:
        """Note that `identity` goes by `name` in streams of that kind for as long as `connection` lives."""
        self._claims = {claim: claimants for claim, claimants in self._claims.items() if claimants}
        self._claims.setdefault((channel, name), WeakKeyDictionary())[connection] = identity
        self._made.setdefault(connection, set()).add((channel, name))

    def release(self, connection: object) -> None:
        """Forget all that was registered on `connection`, which is over."""
        for claim in self._made.pop(connection, ()):
            if claimants := self._claims.get(claim):
                claimants.pop(connection, None)

    def owner(self, channel: Channel, name: str) -> Identity | None:
        """The identity that goes by `name`, or None when nobody does."""
        claimants = self._claims.get((channel, name))
        return next(claimants.values(), None) if claimants else None

    def holders(self, channel: Channel, name: str) -> list[object]:
        """The connections on which `name` was registered."""
        return list(self._claims.get((channel, name), ()))
