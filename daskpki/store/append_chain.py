"""Append chains: compare-and-append over numbered versions, for payloads that must be linear (trust document, log).

A store gives a new version the next number without any condition, and `latest` may be stale; only reading by number is
strongly consistent. So each payload carries a `Link`: its sequence number `seq` (one more than its predecessor's), the
predecessor's version number `prev`, and an id of the operation. The rules:

1. The head is the readable version with the greatest `seq`; on a tie the *lowest* number, which was there first.
2. The search for it goes up by number, from `latest`'s `prev + 1` to the first number that does not exist. A process
   that runs on continues there (`AppendChain.later`).
3. A writer who adds number `newest + 1` has won. Otherwise the numbers in between are read, and rule 1 decides.
4. After an add that was cut off, its writer first looks for its own link. It repeats the add only with the same payload
   and predecessor, of which no more than one can win.
   A version that does not count (it cannot be decoded, or a signature is missing) is never a head, stops nobody, and is
   reported. If `latest` is such a version, the search goes down by number to one that counts.
5. Only versions *below* a confirmed head are destroyed, so a losing version is destroyed by a later winner, never while
   it is the newest. A newest version that is unreadable was therefore destroyed by somebody else, and is an error.

A payload with `seq` 0 is a rider: it is never a head, and belongs to the next winner (the log's sealed segments).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.errors import (
    AmbiguousError,
    ConflictError,
    CorruptError,
    DisabledError,
    NotFoundError,
    NotTrustedError,
)
from daskpki.pki.pem import fingerprint
from daskpki.pki.trust_document import TrustPayload, parse_trust
from daskpki.store.port import ENABLED, SecretStore

P = TypeVar("P")


class Link(NamedTuple):
    """A payload's place in its chain; `prev` is 0 for the first. Equal links come from the same append."""

    seq: int
    prev: int
    operation: str


class Codec(Protocol[P]):
    """Writes and reads payloads of one kind, and finds their links."""

    def encode(self, payload: P) -> Confidential:
        """The bytes of a payload; UsageError if they are more than a store takes."""

    def decode(self, data: Confidential) -> P:
        """The payload in these bytes; CorruptError, NotTrustedError for a newer format."""

    def link(self, payload: P) -> Link:
        """The payload's link; `seq` is 0 for one that is never a head."""


class ChainHead(NamedTuple, Generic[P]):
    """A version that counts: its number, payload and link, and whether the link is `authentic` as well."""

    number: int
    payload: P
    link: Link
    authentic: bool = True


class Tip(NamedTuple, Generic[P]):
    """The state of a chain: its head (None before the first) and the newest version's number, or 0.

    It is not `readable` if the newest version is disabled or destroyed.
    """

    head: ChainHead[P] | None
    newest: int
    readable: bool = True

    def next_link(self, operation: str) -> Link:
        """The link of a payload that is to follow."""
        if self.head is None:
            return Link(1, 0, operation)
        return Link(self.head.link.seq + 1, self.head.number, operation)


class Outcome(NamedTuple, Generic[P]):
    """Result of a proposal: whether the payload became part of the chain, and the tip after that."""

    won: bool
    tip: Tip[P]


def best(heads: Iterable[ChainHead[P]]) -> ChainHead[P] | None:
    """Rule 1 among the heads with an authentic link, else among all; riders do not count. None without a head."""
    return max(
        (head for head in heads if head.link.seq),
        key=lambda head: (head.authentic, head.link.seq, -head.number),
        default=None,
    )


def first_after(hint: ChainHead[P] | None) -> int:
    """Rule 2: the search begins after the predecessor, which this version supersedes; a rider supersedes nothing.

    It begins at the version itself at the latest: in a secret that was created again, `prev` may be a later number.
    """
    if hint is None:
        return 1
    return max(1, min(hint.number, hint.link.prev + (1 if hint.link.seq else 0)))


ATTEMPTS: Final = 64
"""Lost attempts after which `append` gives up with ConflictError."""
_SENDS: Final = range(1, 7)
"""Attempts to add one payload; on Secret Manager, the pauses between them take up to 13 seconds."""
_LOOK_BACK: Final = 32
"""Versions below a head that `prune` looks at: each winner prunes, so only a few are left. It limits the requests."""

MOST_FOREIGN: Final = 4096
"""Most versions that the search passes on its way down to a head that counts: each costs a request."""

Counts = Callable[[ChainHead[P]], bool]
"""Raises NotTrustedError or CorruptError for a version that does not count; True if its link is authentic as well."""

Includes = Callable[[ChainHead[P], P], "bool | None"]
"""True if a head has this payload among its ancestors; None if the codec cannot tell."""


def report_foreign(secret: str, foreign: Mapping[int, str]) -> None:
    """Warn of versions that do not count, by number, and name the command that removes them."""
    import logging

    numbers = sorted(foreign)
    command = f"gcloud secrets versions destroy {numbers[-1]} --secret={secret}"
    logging.getLogger("daskpki.store").warning(
        "%s: %s not count (%s); find out who added them, then remove each: %s",
        secret,
        f"version {numbers[0]} does" if len(numbers) == 1 else f"versions {_spans(numbers)} do",
        foreign[numbers[-1]],
        command,
    )


def _spans(numbers: Sequence[int]) -> str:
    """Numbers in order, runs of them as FIRST-LAST."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


class AppendChain(Generic[P]):
    """The chain of payloads in one secret.

    `pause` is called with 1, 2, 3, ... before each new attempt after a lost or unconfirmed one. `includes` decides the
    rare case in which an append was superseded, and its version destroyed, before its writer could look. `counts`
    judges versions; those with an authentic link take precedence over all others. `report` is told of versions that do
    not count.
    """

    def __init__(
        self,
        store: SecretStore,
        secret: str,
        codec: Codec[P],
        *,
        pause: Callable[[int], None] = lambda _attempt: None,
        includes: Includes[P] = lambda _head, _payload: None,
        counts: Counts[P] = lambda _head: True,
        report: Callable[[str, Mapping[int, str]], None] = report_foreign,
    ) -> None:
        self._store = store
        self._secret = secret
        self._codec = codec
        self._pause = pause
        self._includes = includes
        self._counts = counts
        self._report = report
        self.foreign: dict[int, str] = {}
        """Versions that do not count, by number, with the reason."""

    def head(self) -> ChainHead[P] | None:
        """The head, or None before the first append; DisabledError, CorruptError."""
        return self.tip().head

    def tip(self, known: Tip[P] | None = None) -> Tip[P]:
        """The head and the newest number, from `latest` or from an earlier tip, in one request at best."""
        seen: dict[int, ChainHead[P] | None] = {}
        begin = known if known is not None else Tip(None, first_after(self._anchor(seen)) - 1)
        tip = self._last(begin, seen)
        self.check_readable(tip)
        if known is None and self.foreign:
            self._report(self._secret, self.foreign)
        return tip

    def later(self, tip: Tip[P], seen: Mapping[int, ChainHead[P] | None] = MappingProxyType({})) -> Iterator[Tip[P]]:
        """Yield the tip after each further version, up to the first number that does not exist.

        A search that was cut off goes on from the last tip. A newest version that was not readable is read again, since
        it may be by now. Versions in `seen` are not read.
        """
        for number in itertools.count(tip.newest + 1 if tip.readable else tip.newest):
            try:
                found = seen[number] if number in seen else self._read(number)
            except NotFoundError:
                return
            heads = [head for head in (tip.head, found) if head is not None]
            tip = Tip(best(heads), number, found is not None or number in self.foreign)
            yield tip

    def check_readable(self, tip: Tip[P]) -> None:
        """Raise DisabledError if the newest version cannot be read: its content would be lost."""
        if not tip.readable:
            number = tip.newest
            raise DisabledError(
                f"{self._secret}: its newest version {number} is disabled or destroyed, so its content would be lost",
                hint=f"enable version {number}; if it is destroyed or wrong, add the last good version's payload again",
            )

    def read_cached(self) -> Tip[P]:
        """The tip in one request, without a search after `latest`: enough before an append, which detects later heads.

        This works only for a head right after its predecessor, since a rival with a lower number may stand between.
        Otherwise, before the first append, and if `latest` is not readable, this is `tip`.
        """
        try:
            number, data = self._store.latest(self._secret)
        except (DisabledError, NotFoundError):
            return self.tip()
        head = self.judge(number, data)
        if head is not None and head.authentic and head.link.seq and number == head.link.prev + 1:
            return Tip(head, number)
        return self.tip()

    def read(self, number: int) -> P | None:
        """Read the payload of one version, None if it does not count; NotFoundError, DisabledError."""
        head = self.judge(number, self._store.access(self._secret, number))
        return None if head is None else head.payload

    def judge(self, number: int, data: Confidential) -> ChainHead[P] | None:
        """Decode one version, a rider or a head; None if it does not count, and `foreign` then says why."""
        try:
            payload = self._codec.decode(data)
            head = ChainHead(number, payload, self._codec.link(payload))
            return head._replace(authentic=not head.link.seq or self._counts(head))
        except (CorruptError, NotTrustedError) as error:
            self.foreign[number] = str(error)
            return None

    def append(self, build: Callable[[Tip[P], Link], P | None], operation: str) -> ChainHead[P] | None:
        """Append the payload that `build` makes from the tip and its link; after another writer won, build it again.

        If `build` returns None, nothing is added, and the current head is returned. The secret must exist
        (NotFoundError). ConflictError after 64 lost attempts; AmbiguousError if it cannot be known who won.
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
        """Add a payload that follows `tip`'s head; return whether it won. AmbiguousError if that cannot be known."""
        link = self._codec.link(payload)
        data = self._codec.encode(payload)
        for attempt in _SENDS:
            try:
                number = self._store.add(self._secret, data)
            except AmbiguousError:
                later = self._last(tip)
                if later.head is not None and later.head.link.seq >= link.seq:
                    return self._settle(link, payload, later)
                self._pause(attempt)  # nothing that was added since could have taken the link's place
                continue
            own = ChainHead(number, payload, link)
            if number == tip.newest + 1:
                return Outcome(True, Tip(own, number))
            return self._settle(link, payload, self._last(tip, {number: own}))
        raise AmbiguousError(
            f"{self._secret}: the store does not confirm the write", hint="run the command again: it checks first"
        )

    def add_rider(self, payload: P) -> int:
        """Add a payload that is never a head, to which the next proposal refers; returns its number."""
        data = self._codec.encode(payload)
        for attempt in _SENDS:
            try:
                return self._store.add(self._secret, data)
            except AmbiguousError:  # a second copy is harmless: the next winner destroys versions that no head names
                self._pause(attempt)
        raise AmbiguousError(f"{self._secret}: the store does not confirm the write")

    def prune(self, head: ChainHead[P]) -> None:
        """Destroy the versions below the head, except its predecessor, which readers with a stale `latest` may get.

        A list of versions that lags is good enough, since every version below a confirmed head can go.
        """
        for number, state, _ in self._store.versions(self._secret):
            if number < head.number - _LOOK_BACK:
                return
            if number < head.number and state == ENABLED and number != head.link.prev:
                self._store.destroy(self._secret, number)

    def _anchor(self, seen: dict[int, ChainHead[P] | None]) -> ChainHead[P] | None:
        """Find the start of the search: the highest version from `latest` down that counts and has an authentic link.

        Versions read on the way are added to `seen`. Without such a version, the lowest that counts, or None.
        """
        try:
            newest, data = self._store.latest(self._secret)
            seen[newest] = self.judge(newest, data)
        except NotFoundError:
            return None
        except DisabledError:  # the list may be as stale as `latest`, but shows more versions
            listed = self._store.versions(self._secret)
            newest = next((number for number, state, _ in listed if state == ENABLED), 0)
        found = None
        for number in range(newest, 0, -1):
            if newest - number > MOST_FOREIGN:
                raise NotTrustedError(
                    f"{self._secret}: more than {MOST_FOREIGN} versions from {newest} down are no head that counts",
                    hint="find out who adds them, and destroy them: gcloud secrets versions destroy NUMBER",
                )
            head = seen[number] = seen[number] if number in seen else self._read(number)
            if head is not None and head.link.seq:  # a rider is never a head
                found = head
                if head.authentic:
                    return found
        return found

    def _read(self, number: int) -> ChainHead[P] | None:
        try:
            return self.judge(number, self._store.access(self._secret, number))
        except DisabledError:
            return None

    def _last(self, tip: Tip[P], seen: Mapping[int, ChainHead[P] | None] = MappingProxyType({})) -> Tip[P]:
        newest = tip
        for newest in self.later(tip, seen):  # noqa: B007 - the last one is the result
            pass
        return newest

    def _settle(self, link: Link, payload: P, tip: Tip[P]) -> Outcome[P]:
        """Decide who won: walk back from the head to the proposal's place in the chain, as far as it is readable."""
        self.check_readable(tip)
        place = tip.head
        while place is not None and place.link.seq > link.seq:
            try:  # also for a version that does not count
                older = self._codec.decode(self._store.access(self._secret, place.link.prev))
            except (DisabledError, CorruptError, NotTrustedError):
                break
            place = ChainHead(place.link.prev, older, self._codec.link(older))
        else:
            return Outcome(place is not None and place.link == link, tip)
        assert tip.head is not None  # the walk began there
        included = self._includes(tip.head, payload)
        if included is None:
            raise AmbiguousError(
                f"{self._secret}: others wrote on before this command could read whether its own write counted",
                hint="look at the current state and run the command again",
            )
        return Outcome(included, tip)


# --- The trust document: its epoch is the sequence number, so the newest one is found by number.


class TrustCodec:
    """Codec of trust documents, whose epoch is the sequence number."""

    def encode(self, payload: TrustPayload) -> Confidential:
        """The bytes as they were signed."""
        return payload.data

    def decode(self, data: Confidential) -> TrustPayload:
        """Parse, without verifying; CorruptError, NotTrustedError for a newer format."""
        return TrustPayload(data, parse_trust(data))

    def link(self, payload: TrustPayload) -> Link:
        """Epoch, predecessor and operation stand in the document itself, under its signature."""
        document = payload.signed.document
        return Link(document.epoch, document.prev, document.operation)


def trust_chain(
    secrets: SecretStore,
    cluster: str,
    counts: Counts[TrustPayload] = lambda _head: True,
    report: Callable[[str, Mapping[int, str]], None] = report_foreign,
) -> AppendChain[TrustPayload]:
    """The cluster's chain of trust documents; `counts` raises for documents that do not count."""
    return AppendChain(secrets, secret_names.trust_id(cluster), TrustCodec(), counts=counts, report=report)


_RIVALS: Final = 64
"""Documents below the newest that are compared with it, down to the first that was destroyed.

`prune` leaves only one; the limit is for a store whose writer may destroy nothing.
"""


def verify_no_rival(chain: AppendChain[TrustPayload], newest: ChainHead[TrustPayload]) -> None:
    """Raise NotTrustedError if an older document counts as well and the newest one does not follow from it."""
    from daskpki.pki.trust import follows  # it loads the X.509 library

    signed = newest.payload.signed
    for number in range(newest.number - 1, max(0, newest.number - _RIVALS), -1):
        try:
            rival = chain.read(number)
        except (NotFoundError, DisabledError):
            return
        if rival is None:
            continue
        other = rival.signed.document
        if other.epoch <= signed.document.epoch and not follows(signed, other):
            raise NotTrustedError(
                f"two CAs claim cluster {other.cluster!r}: version {newest.number} of its trust document is of CA "
                f"{fingerprint(signed.document.active.certificate)}, version {number} of CA "
                f"{fingerprint(other.active.certificate)}",
                hint="say which one is right: --ca-sha256 HEX, as init-ca or rotate-ca --emergency printed it",
            )
