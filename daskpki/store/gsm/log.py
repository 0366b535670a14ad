"""The log of a cluster's records in one secret of Secret Manager: each commit adds one version.

A version is a head: it has the newest records at its tail and names segments with the older ones. When the tail is
full, its records move into a segment, which is added to the secret before the head that names it, as a rider. A segment
counts only once a head that names it has won; after a lost race a later writer destroys it. So commits are atomic
whatever their size.

A commit costs four requests: `latest`, a read of the next number, one destroy and one add. The next commit of the same
process costs only the destroy and the add, since it continues from the head that it made, and reads again only if
another writer was first. A new segment costs one more add for each 64 KiB. Between commits three versions are active:
the head, its predecessor (for readers whose `latest` lags) and the one that the next writer destroys; of several
concurrent writers, the losers' versions are active too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from daskpki import secret_names
from daskpki.errors import (
    AlreadyExistsError,
    AmbiguousError,
    ConflictError,
    DaskpkiError,
    NotFoundError,
    NotTrustedError,
    UnavailableError,
    UsageError,
)
from daskpki.inventory import ReplayedInventory
from daskpki.records import EMPTY, CommitSignature, Draft, Head, Record, Stamp, chain, following
from daskpki.store.append_chain import AppendChain, ChainHead, Link, Tip
from daskpki.store.gsm.api import RetryPolicy
from daskpki.store.gsm.log_format import (
    LogCodec,
    LogHead,
    LogPart,
    LogSegment,
    Segment,
    State,
    place_of,
)
from daskpki.store.gsm.log_view import LogInventory, LogReplay
from daskpki.store.gsm.secrets import DEFAULT, GsmOptions, GsmSecrets
from daskpki.store.port import Judge, Sign, unsigned
from daskpki.store.rollback_guard import RollbackGuard

FRESH: Final = 30.0
"""Seconds for which a head is used without reading again; a wrong guess costs one lost version."""


_Decide = Callable[[LogInventory], Sequence[Draft]]


class GsmRecordLog:
    """A `daskpki.store.port.RecordLog` in Secret Manager, for one thread at a time.

    `options` are for the cluster's secrets, if the first commit of its records fixes them. `judge` decides which heads
    count. `secret` is the log's secret and its labels, by default that of the cluster's records.
    """

    def __init__(
        self,
        secrets: GsmSecrets,
        cluster: str,
        *,
        options: GsmOptions | None,
        policy: RetryPolicy,
        seen: RollbackGuard | None = None,
        judge: Judge | None = None,
        secret: tuple[str, Mapping[str, str]] | None = None,
        room: int = secret_names.MAX_PAYLOAD,
    ) -> None:
        self._secrets = secrets
        self._cluster = cluster
        self._options = options or DEFAULT
        self._policy = policy
        self._seen = seen or RollbackGuard(None)
        self._secret, self._labels = secret or (
            secret_names.records_id(cluster),
            secret_names.labels(cluster, secret_names.RECORDS),
        )
        self._codec = LogCodec(cluster, room)
        self.judge = judge
        self._places: dict[Head, Collection[str]] = {}
        self._derived: set[str] = set()
        self._chain: AppendChain[LogPart] = AppendChain(
            secrets.adding_once(),
            self._secret,
            self._codec,
            pause=policy.pause,
            includes=self._includes,
            counts=self._counts,
        )
        self._replay = LogReplay(secrets, self._secret, self._codec)
        self._tip: Tip[LogPart] | None = None
        self._seen_at = 0.0
        self._cleared = 0
        self._inventory: LogInventory | None = None

    def inventory(self) -> LogInventory:
        """The inventory of all records; NotTrustedError, as from every method, if the log was rolled back."""
        self._read()
        return self._view

    def read_cached(self) -> LogInventory:
        """The inventory as it was last read."""
        if not self._is_recent():
            tip = self._chain.read_cached()
            if _end(tip).seq < self._seen.remembered(self._cluster).seq:  # `latest` lags, or the log was rolled back
                tip = self._chain.tip()
            self._verify_and_use(tip)
        return self._view

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """Stream the records after a number."""
        self._read()
        return self._replay.records(self._head(), after)

    def options(self) -> GsmOptions:
        """The options for this cluster's secrets, fixed by its first commit; before that, those of this command."""
        if self._tip is None:
            self._read()
        head = self._head()
        return head.options if head else self._options

    def authenticate(self) -> Head:
        """Read and verify the log from its first record; only IAM and its audit log know a payload's author."""
        self._read()
        head = self._view.head
        for _ in self._replay.records(self._head()):
            pass
        return head

    def adopt(self, records: Sequence[Record]) -> None:
        """Append records of another store's log; UnavailableError as `commit`."""

        def missing() -> Sequence[Record]:
            self._read()
            return following(self._view.head, records)

        self._commit(missing, None)

    def commit(self, decide: _Decide, stamp: Stamp, sign: Sign = unsigned) -> Sequence[Record]:
        """Append one signed commit; UnavailableError if other writers or the quota delay it until the deadline."""

        def chained() -> Sequence[Record]:
            records = chain(self._view.head, decide(self._view), stamp)
            self._view.check(records)
            return records

        def drafted() -> Sequence[Record]:
            if self._is_recent():  # adding fails if this view is stale
                with suppress(Exception):  # an error of `decide` counts only for the current state
                    if records := chained():
                        return records
            self._read()
            return chained()

        return self._commit(drafted, sign)

    def _commit(self, draft: Callable[[], Sequence[Record]], sign: Sign | None) -> Sequence[Record]:
        """Append the records that `draft` returns; it is called again after another writer was first.

        Without `sign`, the records come from another store and carry their signatures already.
        """
        cause: DaskpkiError = ConflictError("other writers were first each time")
        for _ in self._policy.attempts():
            records = draft()
            if not records:
                return ()
            try:
                if appended := self._append(records, sign):
                    return appended
            except AmbiguousError:
                self._tip = None
                raise
            except UnavailableError as error:  # nothing was added: wait, read whether others went on, decide again
                cause, self._seen_at = error, float("-inf")
        raise UnavailableError(
            f"the log of cluster {self._cluster!r} took no commit before the deadline: {cause}", hint="try again later"
        ) from cause

    def _is_recent(self) -> bool:
        return self._tip is not None and self._policy.now() - self._seen_at < FRESH

    def _read(self) -> None:
        """Read the newest head, and use it from now on."""
        self._verify_and_use(self._chain.tip(self._tip if self._is_recent() else None))

    def _verify_and_use(self, tip: Tip[LogPart]) -> None:
        """Use this tip from now on; NotTrustedError unless it has the newest record that this user has seen."""
        head = _head_of(tip)
        if head is None and self.judge is not None:
            self.judge(EMPTY, lambda _after: iter(()))
        self._seen.verify(self._cluster, _end(tip), lambda seen: self._replay.holds(head, seen))
        self._use(tip)

    def _use(self, tip: Tip[LogPart]) -> None:
        """Use this tip from now on; the inventory of the same head is kept."""
        if self._tip is None or tip.head != self._tip.head:
            self._inventory = None
        self._tip, self._seen_at = tip, self._policy.now()
        self._seen.note(self._cluster, _end(tip))
        if tip.head is not None:
            self._secrets.mark_ours(self._secret)  # its payload is a log of this cluster: it is ours

    @property
    def _view(self) -> LogInventory:
        if self._inventory is None:
            head = self._head()
            self._inventory = LogInventory(head, lambda: ReplayedInventory(self._replay.records(head)))
        return self._inventory

    def _head(self) -> LogHead | None:
        return None if self._tip is None else _head_of(self._tip)

    def _append(self, records: Sequence[Record], sign: Sign | None) -> Sequence[Record]:
        """Add a head with these records, and return them signed; nothing if another writer was first."""
        tip, before = self._tip, self._head()
        assert tip is not None
        if tip.head is None:
            with suppress(AlreadyExistsError):  # by another first commit, or a cut-off one; `add` checks the owner
                self._secrets.create(self._secret, labels=self._labels)
        leftover = self._clear(tip, before)
        room = records if sign is None else _signed(records, _PLACEHOLDERS)
        link = tip.next_link(self._policy.nonce())  # equal commits of two writers are two commits
        proposal = self._extended(link, before, room, leftover)
        if sign is not None:
            records = _signed(records, sign(self._view, records, place_of(proposal)))
            proposal = proposal._replace(tail=(*proposal.tail[:-1], records[-1]))
        won, tip = self._chain.propose(tip, proposal)
        self._use(tip)
        return records if won else ()

    def _extended(
        self, link: Link, before: LogHead | None, records: Sequence[Record], leftover: tuple[int, ...]
    ) -> LogHead:
        """The head with these records at its tail; the first ones move into segments until the head fits a payload."""
        options = before.options if before else self._options
        tail = (*(before.tail if before else ()), *records)
        state, segments = (before.state, before.segments) if before else (State(), ())
        head = LogHead(link, self._cluster, state, segments, tail, leftover, options)
        while not self._codec.fits(head):
            head = self._sealed(head)
        return head

    def _sealed(self, head: LogHead) -> LogHead:
        """Move the first records of the tail into a new segment, as many as fill a payload."""
        if len(head.tail) < 2:  # noqa: PLR2004 - the last record stays, since its signature covers the header
            what = f"record {head.end.seq} ({head.tail[-1].kind}) is too large for the log"
            raise UsageError(what, hint="continue in another --cluster NAME")
        segment = self._codec.fill(
            LogSegment(head.link._replace(seq=0), self._cluster, head.state.head, head.tail[:-1])
        )
        sealed = segment.records
        state = head.state.after(sealed)
        if state.unfinished is None:  # then only the segments show the unfinished leaves, if a header has room for them
            state = self._state(head._replace(tail=sealed))
        segments = (*head.segments, Segment(self._chain.add_rider(segment), segment.end))
        return head._replace(state=state, segments=segments, tail=head.tail[len(sealed) :])

    def _clear(self, tip: Tip[LogPart], before: LogHead | None) -> tuple[int, ...]:
        """Destroy the versions below the head except its predecessor; return those that the next writer is to destroy.

        A head that no signature covers may not count tomorrow, so the versions that it replaces are kept.
        """
        if before is None or tip.head is None:
            return ()
        if not self._is_signed(before):
            return (*before.leftover, before.link.prev)
        if self._cleared != tip.head.number and tip.head.authentic:
            between = set(range(before.link.prev + 1, tip.head.number))
            for number in sorted((between | set(before.leftover)) - before.riders):
                with suppress(NotFoundError):  # in a secret that was created again with an old head
                    self._secrets.destroy(self._secret, number)
            self._cleared = tip.head.number
        return (before.link.prev,) if before.link.prev else ()

    def _counts(self, found: ChainHead[LogPart]) -> bool:
        """True if link, state and segments of the head are authentic too; raises unless its records count.

        In a copy of another store's log, no signature covers these yet. Then the state is compared with the one that
        follows from the segments, and nothing is destroyed because of this head.
        """
        head = found.payload
        assert isinstance(head, LogHead)
        if self._is_signed(head):
            return True
        if (place := place_of(head)) not in self._derived:
            if self._state(head._replace(tail=())) != head.state:
                raise NotTrustedError("the header of the log does not follow from its records")
            self._derived.add(place)
        return False

    def _state(self, head: LogHead) -> State:
        """The state after all records of that head."""
        return State().after(self._replay.records(head))

    def _is_signed(self, head: LogHead) -> bool:
        if self.judge is None:
            return True
        if head.end not in self._places:
            self._places[head.end] = self.judge(head.end, lambda after: self._replay.records(head, after))
        return place_of(head) in self._places[head.end]

    def _includes(self, head: ChainHead[LogPart], payload: LogPart) -> bool | None:
        """True if the chain up to `head` has the last record of a proposal, whose hash covers all before."""
        assert isinstance(payload, LogHead)
        assert isinstance(head.payload, LogHead)
        wanted = payload.end
        for record in self._replay.records(head.payload, wanted.seq - 1):
            return record.hash == wanted.hash
        return False


_PLACEHOLDERS: Final = tuple(
    CommitSignature(generation, hashlib.shake_256(b"%d" % generation).digest(512), "0" * 64) for generation in (1, 2)
)
"""Placeholders as long as the longest signatures, and as hard to compress."""


def _signed(records: Sequence[Record], signatures: tuple[CommitSignature, ...]) -> list[Record]:
    return [*records[:-1], records[-1]._replace(signatures=signatures)]


def _head_of(tip: Tip[LogPart]) -> LogHead | None:
    if tip.head is None:
        return None
    payload = tip.head.payload
    assert isinstance(payload, LogHead)  # a segment's seq is 0, so it is never the head
    return payload


def _end(tip: Tip[LogPart]) -> Head:
    head = _head_of(tip)
    return head.end if head else EMPTY
