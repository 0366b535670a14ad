"""The log of a cluster's records in one secret of Secret Manager: each commit adds one version.

A version is a head: it has the newest records at its tail and names segments with the older ones. When the tail is
full, its records are sealed off into a segment, which is added to the secret before the head that names it, as a rider.
A segment counts only once a head that names it has won; after a lost race a later writer destroys it. So commits are
atomic whatever their size.

A commit costs: `latest`, a look at the next number, one destroy and one add. The next commit of the same process costs
only the destroy and the add, since it continues from the head that it made, and looks again only if another writer was
first. A sealing costs one add more, for each 64 KiB. Between commits three versions are active: the head, its
predecessor (for readers whose `latest` lags) and the one that the next writer destroys; several writers at once add
the losers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

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
    MAX_UNFINISHED,
    UNFINISHED,
    LogCodec,
    LogHead,
    LogPart,
    LogSegment,
    Segment,
    State,
    place_of,
)
from daskpki.store.gsm.log_view import LogInventory, LogReplay
from daskpki.store.gsm.placement import DEFAULT, GsmOptions
from daskpki.store.port import MAX_PAYLOAD, Judge, SecretInfo, SecretStore, Sign, unsigned
from daskpki.store.rollback_guard import RollbackGuard


class LogSecrets(SecretStore, Protocol):
    """The methods of `GsmSecrets` that the log needs beyond the port."""

    def create(
        self,
        secret: str,
        *,
        labels: Mapping[str, str],
        annotations: Mapping[str, str] | None = None,
        options: GsmOptions | None = None,
    ) -> SecretInfo:
        """Make a secret at a place that is given, rather than looked up in this log."""

    def mark_ours(self, secret: str) -> None:
        """Take a secret for ours, because its payload proved to be."""

    def impatient(self) -> SecretStore:
        """A view of these secrets whose `add` does not wait for quota."""


FRESH: Final = 30.0
"""Seconds for which a head is used without another look; a wrong guess costs one lost version."""


_Decide = Callable[[LogInventory], Sequence[Draft]]


class GsmRecordLog:
    """See `daskpki.store.port.RecordLog`; for one thread at a time.

    `options` are for the log's own secret, should this be its first commit. `judge` decides which heads count.
    `secret` is another one than the cluster's records, with its labels.
    """

    def __init__(
        self,
        secrets: LogSecrets,
        cluster: str,
        *,
        options: GsmOptions | None,
        patience: RetryPolicy,
        seen: RollbackGuard | None = None,
        judge: Judge | None = None,
        secret: tuple[str, Mapping[str, str]] | None = None,
        room: int = MAX_PAYLOAD,
    ) -> None:
        self._secrets = secrets
        self._cluster = cluster
        self._options = options or DEFAULT
        self._patience = patience
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
            secrets.impatient(),
            self._secret,
            self._codec,
            pause=patience.pause,
            includes=self._includes,
            counts=self._counts,
        )
        self._replay = LogReplay(secrets, self._secret, self._codec)
        self._tip: Tip[LogPart] | None = None
        self._seen_at = 0.0
        self._cleared = 0
        self._view = LogInventory(None, ReplayedInventory)

    def inventory(self) -> LogInventory:
        """The inventory of all records; NotTrustedError, as from every method, when the log was rolled back."""
        self._look()
        return self._view

    def read_cached(self) -> LogInventory:
        """The inventory as it was last read."""
        if not self._is_recent():
            tip = self._chain.read_cached()
            if _end(tip).seq < self._seen.remembered(self._cluster).seq:  # `latest` lags, or the log was put back
                tip = self._chain.tip()
            self._settle_on_what_was_seen(tip)
        return self._view

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """Stream the records after a number."""
        self._look()
        return self._replay.records(self._head(), after)

    def options(self) -> GsmOptions:
        """The options for this cluster's secrets, which its first commit settled; the defaults before that."""
        if self._tip is None:
            self._look()
        head = self._head()
        return head.options if head else self._options

    def authenticate(self) -> Head:
        """Read and check the log from its first record; a payload's author is known to IAM and its audit log only."""
        self._look()
        head = self._view.head
        for _ in self._replay.records(self._head()):
            pass
        return head

    def adopt(self, records: Sequence[Record]) -> None:
        """Append records of another store's log; UnavailableError as `commit`."""

        def missing() -> Sequence[Record]:
            self._look()
            return following(self._view.head, records)

        self._commit(missing, None)

    def commit(self, decide: _Decide, stamp: Stamp, sign: Sign = unsigned) -> Sequence[Record]:
        """Append one signed commit; UnavailableError when other writers or the quota leave no room in time."""
        return self._commit(lambda: self._drafted(decide, stamp), sign)

    def _commit(self, draw: Callable[[], Sequence[Record]], sign: Sign | None) -> Sequence[Record]:
        """Append the records that `draw` gives, asked again after another writer was first.

        Without `sign` they are another store's, and carry their signatures already.
        """
        cause: DaskpkiError = ConflictError("other writers were first each time")
        for _ in self._patience.attempts():
            records = draw()
            if not records:
                return ()
            try:
                if appended := self._append(records, sign):
                    return appended
            except AmbiguousError:
                self._tip = None
                raise
            except UnavailableError as error:  # nothing was added: wait, look whether others went on, decide again
                cause, self._seen_at = error, float("-inf")
        raise UnavailableError(
            f"the log of cluster {self._cluster!r} took no commit before the deadline: {cause}", hint="try again later"
        ) from cause

    def _drafted(self, decide: _Decide, stamp: Stamp) -> Sequence[Record]:
        """Decide on the last view while it is recent, since adding fails if it was stale; look again for no answer."""
        if self._is_recent():
            with suppress(Exception):  # what it raises counts on the present state only
                if records := self._chained(decide, stamp):
                    return records
        self._look()
        return self._chained(decide, stamp)

    def _chained(self, decide: _Decide, stamp: Stamp) -> Sequence[Record]:
        records = chain(self._view.head, decide(self._view), stamp)
        self._view.check(records)
        return records

    def _is_recent(self) -> bool:
        return self._tip is not None and self._patience.now() - self._seen_at < FRESH

    def _look(self) -> None:
        self._settle_on_what_was_seen(self._chain.tip(self._tip if self._is_recent() else None))

    def _settle_on_what_was_seen(self, tip: Tip[LogPart]) -> None:
        """Go on from this tip; NotTrustedError unless it has the newest record that this user has seen."""
        head = _head_of(tip)
        if head is None and self.judge is not None:
            self.judge(EMPTY, lambda _after: iter(()))
        self._seen.verify(self._cluster, _end(tip), lambda seen: self._replay.holds(head, seen))
        self._settle_on(tip)

    def _settle_on(self, tip: Tip[LogPart]) -> None:
        """Go on from this tip; what was already replayed for the same head is kept."""
        moved = self._tip is None or tip.head != self._tip.head
        self._tip, self._seen_at = tip, self._patience.now()
        self._seen.note(self._cluster, _end(tip))
        if tip.head is not None:
            self._secrets.mark_ours(self._secret)  # its payload is a log of this cluster: it is ours
        if moved:
            head = self._head()
            self._view = LogInventory(head, lambda: self._replay.inventory(head))

    def _head(self) -> LogHead | None:
        return None if self._tip is None else _head_of(self._tip)

    def _append(self, records: Sequence[Record], sign: Sign | None) -> Sequence[Record]:
        """Add a head with these records, and return them signed; nothing when another writer was first."""
        tip, before = self._tip, self._head()
        assert tip is not None
        if tip.head is None:
            with suppress(AlreadyExistsError):  # another first commit, or one that was cut off; `add` checks whose
                self._secrets.create(self._secret, labels=self._labels, options=self._options)
        leftover = self._clear(tip, before)
        room = records if sign is None else _signed(records, _PLACEHOLDERS)
        link = tip.next_link(self._patience.timing.nonce())  # equal commits of two writers are two commits
        proposal = self._extended(link, before, room, leftover)
        if sign is not None:
            records = _signed(records, sign(self._view, records, place_of(proposal)))
            proposal = proposal._replace(tail=(*proposal.tail[:-1], records[-1]))
        won, tip = self._chain.propose(tip, proposal)
        self._settle_on(tip)
        return records if won else ()

    def _extended(
        self, link: Link, before: LogHead | None, records: Sequence[Record], leftover: tuple[int, ...]
    ) -> LogHead:
        """The head with these records at its tail, whose first ones are sealed off as long as it does not fit."""
        options = before.options if before else self._options
        tail = (*(before.tail if before else ()), *records)
        state, segments = (before.state, before.segments) if before else (State(), ())
        head = LogHead(link, self._cluster, state, segments, tail, leftover, options)
        while not self._codec.fits(head):
            head = self._sealed(head)
        return head

    def _sealed(self, head: LogHead) -> LogHead:
        """Move the first records of the tail, as many as fill a payload, into a new segment."""
        if len(head.tail) < 2:  # noqa: PLR2004 - the last record stays, since its signature covers the header
            what = f"record {head.end.seq} ({head.tail[-1].kind}) is too large for the log"
            raise UsageError(what, hint="go on in another --cluster NAME")
        segment = self._codec.fill(
            LogSegment(head.link._replace(seq=0), self._cluster, head.state.head, head.tail[:-1])
        )
        sealed = segment.records
        state = head.state.after(sealed)
        if head.state.unfinished is None and head.segments:  # the segments alone tell the unfinished leaves
            full = self._replay.inventory(head._replace(tail=()))
            for record in sealed:
                full.apply(record)
            unfinished = tuple(full.certificates(statuses=UNFINISHED))
            state = state._replace(unfinished=None if len(unfinished) > MAX_UNFINISHED else unfinished)
        segments = (*head.segments, Segment(self._chain.add_rider(segment), segment.end))
        return head._replace(state=state, segments=segments, tail=head.tail[len(sealed) :])

    def _clear(self, tip: Tip[LogPart], before: LogHead | None) -> tuple[int, ...]:
        """Destroy what lies below the head, but for its predecessor; returns what the next writer is to destroy.

        A head that nobody vouches for may not count tomorrow: what it replaces is kept.
        """
        if before is None or tip.head is None:
            return ()
        if not self._is_vouched(before):
            return (*before.leftover, before.link.prev)
        if self._cleared != tip.head.number and tip.head.number in self._chain.authentic:
            between = set(range(before.link.prev + 1, tip.head.number))
            for number in sorted((between | set(before.leftover)) - before.riders):
                with suppress(NotFoundError):  # in a secret that was made again with an old head
                    self._secrets.destroy(self._secret, number)
            self._cleared = tip.head.number
        return (before.link.prev,) if before.link.prev else ()

    def _counts(self, found: ChainHead[LogPart]) -> bool:
        """True if link, state and segments of the head are authentic as well; raises unless its records count.

        A copy of another store's log has no signature over these yet. Its state is compared with what the segments say,
        and nothing is destroyed by its word.
        """
        head = found.payload
        assert isinstance(head, LogHead)
        if self._is_vouched(head):
            return True
        if (place := place_of(head)) not in self._derived:
            if self._replay.state(head) != head.state:
                raise NotTrustedError("the header of the log is not what its records say")
            self._derived.add(place)
        return False

    def _is_vouched(self, head: LogHead) -> bool:
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
