"""Under which names peers have registered with a scheduler, and so whose names they are while a connection lives."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

from daskpki.identity import Identity

if TYPE_CHECKING:
    from daskpki.cluster.conversation import Conversation
    from daskpki.cluster.policy import Channel


class Ledger:
    """Addresses of workers and names of clients, forgotten with the connections on which they registered."""

    def __init__(self) -> None:
        self._claims: dict[tuple[Channel, str], WeakSet[Conversation]] = {}

    def register(self, channel: Channel, name: str, conversation: Conversation) -> None:
        """Note that the peer of `conversation` goes by `name` in streams of that kind."""
        self._claims = {claim: claimants for claim, claimants in self._claims.items() if claimants}
        self._claims.setdefault((channel, name), WeakSet()).add(conversation)

    def owner(self, channel: Channel, name: str) -> Identity | None:
        """The identity that goes by `name`, or None when nobody does."""
        claimants = self._claims.get((channel, name), ())
        return next((conversation.peer.identity for conversation in claimants), None)
