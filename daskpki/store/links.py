"""The values of a linear chain of payloads, and the two rules that need no store: see `daskpki.store.linear`. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, NamedTuple, Protocol, TypeVar

from daskpki.confidential import Confidential

P = TypeVar("P")


class Link(NamedTuple):
    """A payload's place in its chain; `prev` is 0 for the first. Equal links are the same append."""

    seq: int
    prev: int
    operation: str


class Codec(Protocol[P]):
    """How payloads of one kind are written and read, and where they keep their link."""

    def encode(self, payload: P) -> Confidential:
        """The bytes of a payload; UsageError when they exceed what a store takes."""
        ...

    def decode(self, data: Confidential) -> P:
        """The payload in these bytes; CorruptError, NotTrustedError for a newer format."""
        ...

    def link(self, payload: P) -> Link:
        """The payload's link; `seq` is 0 for one that is never a head."""
        ...


class Head(NamedTuple, Generic[P]):
    """The version that counts: its number, payload and link."""

    number: int
    payload: P
    link: Link


class Tip(NamedTuple, Generic[P]):
    """What a look at the chain found: the head, None before the first, and the newest version's number, or 0."""

    head: Head[P] | None
    newest: int

    def next_link(self, operation: str) -> Link:
        """The link of a payload that is to follow."""
        if self.head is None:
            return Link(1, 0, operation)
        return Link(self.head.link.seq + 1, self.head.number, operation)


class Outcome(NamedTuple, Generic[P]):
    """Whether a proposed payload became part of the chain, and the tip to go on from."""

    won: bool
    tip: Tip[P]


def best(heads: Iterable[Head[P]]) -> Head[P] | None:
    """Rule 1: the greatest `seq`, on a tie the lowest number; riders are none. None when there is none."""
    return max((head for head in heads if head.link.seq), key=lambda head: (head.link.seq, -head.number), default=None)


def first_after(hint: Head[P] | None) -> int:
    """Rule 2: the search begins past the predecessor, which this version supersedes; a rider supersedes nothing.

    It begins no later than at the version itself, which claims a later predecessor in a secret that was made anew.
    """
    if hint is None:
        return 1
    return max(1, min(hint.number, hint.link.prev + (1 if hint.link.seq else 0)))
