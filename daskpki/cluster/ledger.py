"""Whose addresses the registered workers are, as long as their connections live."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from daskpki.identity import Identity

if TYPE_CHECKING:
    from daskpki.cluster.conversation import Conversation


class Ledger:
    """Addresses of one scheduler's workers, forgotten with the connection on which each registered."""

    def __init__(self) -> None:
        self._owners: WeakValueDictionary[str, Conversation] = WeakValueDictionary()

    def register(self, address: str, conversation: Conversation) -> None:
        """Note that the peer of `conversation` is the worker at `address`."""
        self._owners.setdefault(address, conversation)

    def owner(self, address: str) -> Identity | None:
        """The identity of the worker at `address`, or None when none is registered."""
        conversation = self._owners.get(address)
        return None if conversation is None else conversation.peer.identity
