"""The values of a linear chain of payloads, and the two rules that need no store: see `daskpki.store.append_chain`. Pure.

Compare-and-append over numbered versions: how payloads that must be linear (trust, records) are settled.

A store gives a new version the next number and takes no condition with it, and `latest` may be stale; only reading by
number is strong. So each such payload carries a `Link`: its sequence number `seq` (one more than its predecessor's),
the predecessor's version number `prev`, and an id of the operation. The rules, all of them decided here and in `links`:

1. The head is the readable version with the greatest `seq`; on a tie the *lowest* number, which was there first.
2. It is looked for by number, upwards from `latest`'s `prev + 1` to the first number that does not exist.
3. Who adds number `newest + 1` has won. Else the numbers in between are read, and rule 1 decides.
4. An add that was cut off looks for its own link before anything else; it is repeated only with the same payload
   and predecessor, of which no more than one can win.
5. Only what lies *below* a confirmed head is destroyed: so a loser goes by a later winner, and never as the newest.
   A newest version that is not readable was thus destroyed by a stranger, and is refused rather than passed over.

A payload with `seq` 0 rides along: it is never a head, and belongs to the next winner (the log's sealed segments).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from daskpki.confidential import Confidential
from daskpki.errors import AmbiguousError, ConflictError, CorruptError, DaskpkiError, DisabledError, NotFoundError
from daskpki.store.port import ENABLED, SecretStore

__all__ = ["Codec", "Head", "AppendChain", "Link", "Outcome", "Tip"]

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


ATTEMPTS: Final = 64
"""How often `append` loses to other writers before it gives up with ConflictError."""
_RESENDS: Final = 6
_LOOK_BACK: Final = 32

Includes = Callable[[Head[P], P], "bool | None"]
"""Whether a head has this payload among its ancestors, for codecs that can tell; None where they cannot."""


class AppendChain(Generic[P]):
    """The chain of payloads in one secret.

    `pause` is called with 1, 2, 3, ... before each new attempt after a lost or unconfirmed one; `includes` settles the
    rare case in which an append was superseded, and its version destroyed, before its writer could look.
    """

    def __init__(
        self,
        store: SecretStore,
        secret: str,
        codec: Codec[P],
        *,
        pause: Callable[[int], None] = lambda _attempt: None,
        includes: Includes[P] = lambda _head, _payload: None,
    ) -> None:
        self._store = store
        self._secret = secret
        self._codec = codec
        self._pause = pause
        self._includes = includes

    def head(self) -> Head[P] | None:
        """The head, or None before the first append; DisabledError, CorruptError."""
        return self.tip().head

    def tip(self, known: Tip[P] | None = None) -> Tip[P]:
        """The head and the newest number: from `latest`, or from what an earlier look found, in one request at best."""
        if known is not None:
            return self._tip_from(self._scan(known.newest + 1), known)
        hint = self._hint()
        seen = {} if hint is None else {hint.number: hint.payload}
        return self._tip_from(self._scan(first_after(hint), seen), Tip(None, 0))

    def read_cached(self) -> Tip[P]:
        """The tip in one request, without a look at what came after `latest`: enough for whoever appends next.

        An append finds out whether others went on. Only a head right behind its predecessor is taken so, since a rival
        with a lower number may stand between; then, before the first append, and when `latest` is not readable, this is
        `tip`.
        """
        try:
            hint = self._latest()
        except DisabledError:
            return self.tip()
        if hint is not None and hint.link.seq and hint.number == hint.link.prev + 1:
            return Tip(hint, hint.number)
        return self.tip()

    def append(self, build: Callable[[Tip[P], Link], P | None], operation: str) -> Head[P] | None:
        """Append what `build` makes of the tip and the link it is to carry; again, after another writer won.

        Nothing is added when it returns None, and the present head is returned. The secret must exist
        (NotFoundError). ConflictError after 64 lost attempts; AmbiguousError when it cannot be known who won.
        """
        tip = self.read_cached()
        for attempt in range(1, ATTEMPTS + 1):
            payload = build(tip, tip.next_link(operation))
            if payload is None:
                return tip.head
            won, tip = self.propose(tip, payload)
            if won:
                return tip.head
            self._pause(attempt)
        raise ConflictError(
            f"{self._secret}: other writers were first {ATTEMPTS} times in a row", hint="try again in a moment"
        )

    def propose(self, tip: Tip[P], payload: P) -> Outcome[P]:
        """Add a payload that follows `tip`'s head, and say whether it won; AmbiguousError when nobody can say."""
        link = self._codec.link(payload)
        data = self._codec.encode(payload)
        for attempt in range(1, _RESENDS + 1):
            try:
                number = self._store.add(self._secret, data)
            except AmbiguousError:
                seen = self._scan(tip.newest + 1)
                if self._is_open(link, seen):
                    self._pause(attempt)
                    continue
                return self._settle(link, payload, seen, tip)
            if number == tip.newest + 1:
                return Outcome(True, Tip(Head(number, payload, link), number))
            return self._settle(link, payload, self._scan(tip.newest + 1, {number: payload}), tip)
        raise AmbiguousError(
            f"{self._secret}: the store does not confirm the write", hint="run the command again: it will look first"
        )

    def add_rider(self, payload: P) -> int:
        """Add a payload that is never a head, for the next proposal to refer to; returns its number."""
        data = self._codec.encode(payload)
        for attempt in range(1, _RESENDS + 1):
            try:
                return self._store.add(self._secret, data)
            except AmbiguousError:  # a second copy is harmless: the next winner destroys what its head does not name
                self._pause(attempt)
        raise AmbiguousError(f"{self._secret}: the store does not confirm the write")

    def prune(self, head: Head[P], *, spare: Iterable[int] = ()) -> None:
        """Destroy what lies below the head, but its predecessor, which readers with a stale `latest` may yet get.

        The list of versions is only a hint here: whatever is below a confirmed head may go.
        """
        kept = {head.link.prev, *spare}
        for number, state, _ in self._store.versions(self._secret):
            if number < head.number - _LOOK_BACK:
                return
            if number < head.number and state == ENABLED and number not in kept:
                self._store.destroy(self._secret, number)

    def _hint(self) -> Head[P] | None:
        try:
            return self._latest()
        except DisabledError:
            return self._listed_hint()

    def _latest(self) -> Head[P] | None:
        try:
            number, data = self._store.latest(self._secret)
        except NotFoundError:
            return None
        return self._head(number, self._decode(number, data))

    def _listed_hint(self) -> Head[P] | None:
        """The newest readable version in the list, which may be as stale as `latest`, but shows more of them."""
        for number, state, _ in self._store.versions(self._secret):
            payload = self._read(number) if state == ENABLED else None
            if payload is not None:
                return self._head(number, payload)
        return None

    def _head(self, number: int, payload: P) -> Head[P]:
        return Head(number, payload, self._codec.link(payload))

    def _read(self, number: int) -> P | None:
        try:
            data = self._store.access(self._secret, number)
        except DisabledError:
            return None
        return self._decode(number, data)

    def _decode(self, number: int, data: Confidential) -> P:
        try:
            return self._codec.decode(data)
        except CorruptError as error:
            raise CorruptError(
                f"{self._secret}, version {number}: {error}",
                hint=f"find out who added version {number}; once it is disabled, it is passed over",
            ) from error

    def _scan(self, first: int, known: Mapping[int, P] | None = None) -> dict[int, P | None]:
        """The payloads from `first` up to the first number that does not exist; None for an unreadable one."""
        seen: dict[int, P | None] = {}
        number = first
        while True:
            try:
                seen[number] = known[number] if known and number in known else self._read(number)
            except NotFoundError:
                return seen
            number += 1

    def _best(self, seen: Mapping[int, P | None]) -> Head[P] | None:
        return best([self._head(number, payload) for number, payload in seen.items() if payload is not None])

    def _tip_from(self, seen: Mapping[int, P | None], before: Tip[P]) -> Tip[P]:
        newest = max(seen, default=before.newest)
        if newest in seen and seen[newest] is None:
            raise _unreadable_newest(self._secret, newest)
        best = self._best(seen)
        if before.head is not None and (best is None or best.link.seq <= before.head.link.seq):
            best = before.head
        return Tip(best, newest)

    def _is_open(self, link: Link, seen: Mapping[int, P | None]) -> bool:
        """Whether nothing that was added since could have taken the link's place, be it itself or a rival."""
        best = self._best(seen)
        return best is None or best.link.seq < link.seq

    def _settle(self, link: Link, payload: P, seen: Mapping[int, P | None], before: Tip[P]) -> Outcome[P]:
        """Who won: walk back from the head to the proposal's place in the chain, as far as it is still readable."""
        tip = self._tip_from(seen, before)
        place = tip.head
        while place is not None and place.link.seq > link.seq:
            older = self._read(place.link.prev)
            if older is None:
                return Outcome(self._ask_codec(tip, payload), tip)
            place = self._head(place.link.prev, older)
        return Outcome(place is not None and place.link == link, tip)

    def _ask_codec(self, tip: Tip[P], payload: P) -> bool:
        answer = None if tip.head is None else self._includes(tip.head, payload)
        if answer is None:
            raise AmbiguousError(
                f"{self._secret}: others went on before it could be seen whether this write counted",
                hint="look at the present state and run the command again",
            )
        return answer


def _unreadable_newest(secret: str, number: int) -> DaskpkiError:
    return DisabledError(
        f"{secret}: its newest version {number} is disabled or destroyed, so what it said would be lost",
        hint=f"enable version {number}; if it is destroyed or wrong, add the last good version's payload once more",
    )
