"""What the log asks of the secrets that it lies in.

How a log's next head is composed: records at its tail, sealed off when that is full, cut off when archived.

What a head names, a sealed segment or the base that stands for archived records, is added to the log's secret before
the head is, as a rider. It counts only once a head that names it has won; after a lost race it lies there unnamed, and
is destroyed by a later writer.

A cluster's records log in one secret of Secret Manager: each commit adds one version, whatever the number of drafts.

A commit costs: `latest`, a look at the next number, one destroy and one add; the next one by the same process only the
destroy and the add, since it goes on from the head that it made, and looks again only when another writer was first.
A sealing costs one add more, for each 64 KiB. In between commits three versions are open: the head, its predecessor
(for readers whose `latest` lags) and what the next writer destroys; while several write at once, losers come on top.

Commits are atomic whatever their size: a head names all that it consists of, and wins whole (`composing.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

from daskpki import secret_names
from daskpki.errors import (
    AlreadyExistsError,
    AmbiguousError,
    ConflictError,
    CorruptError,
    DaskpkiError,
    NotFoundError,
    UnavailableError,
)
from daskpki.inventory import Base, ReplayedInventory
from daskpki.records import EMPTY, Draft, Record, Stamp, chain, following
from daskpki.records import Head as RecordHead
from daskpki.store.append_chain import AppendChain, Link, Tip
from daskpki.store.append_chain import Head as LinearHead
from daskpki.store.gsm.api import RetryPolicy
from daskpki.store.gsm.log_format import (
    UNFINISHED,
    Archived,
    LogBase,
    LogCodec,
    LogHead,
    LogPart,
    LogSegment,
    State,
    describe_segment,
)
from daskpki.store.gsm.log_view import LogInventory, LogReplay
from daskpki.store.gsm.placement import DEFAULT, GsmOptions
from daskpki.store.port import MAX_PAYLOAD, SecretInfo, SecretStore, moved
from daskpki.store.rollback_guard import RollbackGuard


class LogSecrets(SecretStore, Protocol):
    """What the log asks of `GsmSecrets` beyond the port."""

    def create(
        self,
        secret: str,
        *,
        labels: Mapping[str, str],
        annotations: Mapping[str, str] | None = None,
        options: GsmOptions | None = None,
    ) -> SecretInfo:
        """Make a secret at a place that is given, rather than looked up in this log."""
        ...

    def mark_ours(self, secret: str) -> None:
        """Take a secret for ours, because its payload proved to be."""
        ...

    def impatient(self) -> SecretStore:
        """The same secrets, but `add` does not wait for quota."""
        ...


class HeadComposer:
    """Composes heads of one cluster's log; `options` are for a log that has none yet."""

    def __init__(
        self,
        cluster: str,
        linear: AppendChain[LogPart],
        codec: LogCodec,
        replay: LogReplay,
        *,
        options: GsmOptions | None,
    ) -> None:
        self._cluster = cluster
        self._linear = linear
        self._codec = codec
        self._replay = replay
        self._options = options or DEFAULT

    def first(self, link: Link, base: Base) -> LogHead:
        """The head of a log that begins with this base and has no record of its own yet."""
        whole = LogHead(link, self._cluster, State.beginning(base), (), (), (), self._options)
        return whole._replace(archived=self._keep(link, base))

    def extended(
        self, link: Link, before: LogHead | None, records: Sequence[Record], leftover: tuple[int, ...]
    ) -> LogHead:
        """The head with these records at its tail, whose first ones are sealed off as long as it does not fit."""
        options = before.options if before else self._options
        tail = (*(before.tail if before else ()), *records)
        state, segments = (before.state, before.segments) if before else (State(), ())
        archived = before.archived if before else None
        head = LogHead(link, self._cluster, state, segments, tail, leftover, options, archived)
        while not self._codec.fits(head):
            head = self._sealed(head)
        return head

    def cut(self, head: LogHead, base: Base, before: LogHead) -> LogHead:
        """The head without the segments that `base` stands for from now on; they are left over to be destroyed."""
        gone = {segment.version for segment in head.segments if segment.end.seq <= base.head.seq}
        gone |= {before.archived.version} if before.archived else set()
        kept = tuple(segment for segment in head.segments if segment.version not in gone)
        leftover = tuple(sorted({*head.leftover, *gone}))
        return head._replace(segments=kept, archived=self._keep(head.link, base), leftover=leftover)

    def _keep(self, link: Link, base: Base) -> Archived:
        part = LogBase(link._replace(seq=0), self._cluster, base)
        return Archived(self._linear.add_rider(part), base.head)

    def _sealed(self, head: LogHead) -> LogHead:
        """Move the first records of the tail, as many as fill a payload, into a segment of their own."""
        rider = LogSegment(head.link._replace(seq=0), self._cluster, head.state.head, head.tail)
        segment = self._codec.fill(rider)
        sealed = segment.records
        state = self._complete(head.state.after(sealed), head, sealed)
        segments = (*head.segments, describe_segment(self._linear.add_rider(segment), sealed))
        return head._replace(state=state, segments=segments, tail=head.tail[len(sealed) :])

    def _complete(self, state: State, head: LogHead, sealed: Sequence[Record]) -> State:
        """Look the unfinished leaves up in the segments, where the state before did not know them."""
        if head.state.unfinished is not None or not head.segments:
            return state
        full = self._replay.inventory(head._replace(tail=()))
        for record in sealed:
            full.apply(record)
        return state.with_unfinished(tuple(full.certificates(statuses=UNFINISHED)))


FRESH: Final = 30.0
"""For how many seconds a head that was seen is tried without another look; a wrong guess costs one lost version."""


Decide = Callable[[LogInventory], Sequence[Draft]]


class GsmRecordLog:
    """See `daskpki.store.port.RecordLog`; for one thread at a time.

    `options` are for the log's own secret, should this be its first commit.
    """

    def __init__(
        self,
        secrets: LogSecrets,
        cluster: str,
        *,
        options: GsmOptions | None,
        patience: RetryPolicy,
        seen: RollbackGuard | None = None,
        room: int = MAX_PAYLOAD,
    ) -> None:
        self._secrets = secrets
        self._cluster = cluster
        self._options = options
        self._patience = patience
        self._seen = seen or RollbackGuard(None)
        self._secret = secret_names.records_id(cluster)
        codec = LogCodec(cluster, room)
        self._linear: AppendChain[LogPart] = AppendChain(
            secrets.impatient(), self._secret, codec, pause=patience.pause, includes=self._includes
        )
        self._replay = LogReplay(secrets, self._secret, codec)
        self._composer = HeadComposer(cluster, self._linear, codec, self._replay, options=options)
        self._tip: Tip[LogPart] | None = None
        self._seen_at = 0.0
        self._cleared = 0
        self._view = LogInventory(None, ReplayedInventory)

    def inventory(self) -> LogInventory:
        """See RecordLog; NotTrustedError, as from all that looks, when the log was put back to an older state."""
        self._look()
        return self._view

    def read_cached(self) -> LogInventory:
        """See RecordLog."""
        if not self._is_recent():
            tip = self._linear.read_cached()
            if _end(tip).seq < self._seen.remembered(self._cluster).seq:  # `latest` lags, or the log was put back
                tip = self._linear.tip()
            self._settle_on_what_was_seen(tip)
        return self._view

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """See RecordLog."""
        self._look()
        return self._replay.records(self._head(), after)

    def base(self) -> Base:
        """See RecordLog."""
        self._look()
        return self._replay.base(self._head())

    def sealed(self, before: int, upto: int) -> RecordHead:
        """See RecordLog; here, the end of a sealed segment."""
        self._look()
        head = self._head()
        end = head.begin if head else EMPTY
        for segment in head.segments if head else ():
            if segment.latest >= before or segment.end.seq > upto:
                break
            end = segment.end
        return end

    def options(self) -> GsmOptions:
        """How this cluster's secrets are created, as its first commit settled; the defaults before that."""
        if self._tip is None:
            self._look()
        head = self._head()
        return head.options if head else self._options or DEFAULT

    def authenticate(self) -> RecordHead:
        """See RecordLog; a payload's author is known to IAM and its audit log only."""
        self._look()
        head = self._view.head
        for _ in self._replay.records(self._head()):
            pass
        return head

    def adopt(self, records: Sequence[Record]) -> None:
        """See RecordLog; UnavailableError as `commit`."""

        def missing() -> Sequence[Record]:
            self._look()
            return following(self._view.head, records)

        self._commit(missing)

    def begin(self, base: Base) -> None:
        """See RecordLog."""
        self._look()
        if (head := self._head()) is not None and head.begin == base.head:
            return
        if head is not None:
            raise CorruptError(f"the log of {self._cluster!r} is there already, and begins elsewhere")
        assert self._tip is not None
        self._create()
        self._settle(self._composer.first(self._next_link(self._tip), base))

    def cut(self, base: Base, drafts: Sequence[Draft], stamp: Stamp, *, seen: RecordHead) -> None:
        """See RecordLog; the segments are destroyed after a head without them has won, by the next head at the latest.

        Readers who hold an older head cannot read on, and look again.
        """
        self._look()
        tip, before = self._tip, self._head()
        assert tip is not None
        if before is None or self._view.head != seen:
            raise moved(self._cluster)
        leftover = self._clear(tip, before)
        after = self._composer.extended(self._next_link(tip), before, chain(seen, drafts, stamp), leftover)
        self._settle(self._composer.cut(after, base, before))
        self._append(())  # which destroys what is left over; where another writer was first, that one has done so

    def _settle(self, head: LogHead) -> None:
        """Add this head; ConflictError when another writer was first."""
        assert self._tip is not None
        won, tip = self._linear.propose(self._tip, head)
        self._settle_on(tip)
        if not won:
            raise moved(self._cluster)

    def commit(self, decide: Decide, stamp: Stamp) -> Sequence[Record]:
        """See RecordLog; UnavailableError when other writers or the quota left no room before the deadline."""
        return self._commit(lambda: self._drafted(decide, stamp))

    def _commit(self, draw: Callable[[], Sequence[Record]]) -> Sequence[Record]:
        """Append the records that `draw` gives, asked again after another writer was first."""
        cause: DaskpkiError = ConflictError("other writers were first each time")
        for _ in self._patience.attempts():
            records = draw()
            if not records:
                return ()
            try:
                if self._append(records):
                    return records
            except AmbiguousError:
                self._tip = None
                raise
            except UnavailableError as error:  # nothing was added: wait, look whether others went on, decide anew
                cause, self._seen_at = error, float("-inf")
        raise UnavailableError(
            f"the log of cluster {self._cluster!r} took no commit before the deadline: {cause}", hint="try again later"
        ) from cause

    def _drafted(self, decide: Decide, stamp: Stamp) -> Sequence[Record]:
        """Ask on what was seen a moment ago; only an answer is believed then, since adding will tell if it is stale."""
        if self._is_recent():
            with suppress(Exception):  # what it raises counts on the present state only
                if records := self._chained(decide, stamp):
                    return records
        self._look()
        return self._chained(decide, stamp)

    def _chained(self, decide: Decide, stamp: Stamp) -> Sequence[Record]:
        records = chain(self._view.head, decide(self._view), stamp)
        self._view.check(records)
        return records

    def _is_recent(self) -> bool:
        return self._tip is not None and self._patience.now() - self._seen_at < FRESH

    def _look(self) -> None:
        self._settle_on_what_was_seen(self._linear.tip(self._tip if self._is_recent() else None))

    def _settle_on_what_was_seen(self, tip: Tip[LogPart]) -> None:
        """Go on from this tip; NotTrustedError unless it has the newest record that this user has seen."""
        head = _head_of(tip)
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

    def _append(self, records: Sequence[Record]) -> bool:
        """Add a head with these records; False when another writer was first."""
        tip, before = self._tip, self._head()
        assert tip is not None
        if tip.head is None:
            self._create()
        leftover = self._clear(tip, before)
        proposal = self._composer.extended(self._next_link(tip), before, records, leftover)
        won, tip = self._linear.propose(tip, proposal)
        self._settle_on(tip)
        return won

    def _next_link(self, tip: Tip[LogPart]) -> Link:
        return tip.next_link(self._patience.timing.nonce())  # equal commits of two writers are two commits

    def _create(self) -> None:
        labels = secret_names.labels(self._cluster, secret_names.RECORDS)
        try:
            self._secrets.create(self._secret, labels=labels, options=self._options or DEFAULT)
        except AlreadyExistsError:  # another first commit, or one that was cut off here; `add` checks that it is ours
            return

    def _clear(self, tip: Tip[LogPart], before: LogHead | None) -> tuple[int, ...]:
        """Destroy what lies below the head, but for its predecessor; returns what the next writer is to destroy."""
        if before is None or tip.head is None:
            return ()
        if self._cleared != tip.head.number:
            between = set(range(before.link.prev + 1, tip.head.number))
            for number in sorted((between | set(before.leftover)) - before.riders):
                with suppress(NotFoundError):  # in a secret that was made anew with an old head
                    self._secrets.destroy(self._secret, number)
            self._cleared = tip.head.number
        return (before.link.prev,) if before.link.prev else ()

    def _includes(self, head: LinearHead[LogPart], payload: LogPart) -> bool | None:
        """Whether the chain that leads to `head` holds the last record of a proposal: its hash covers all before."""
        assert isinstance(payload, LogHead)
        assert isinstance(head.payload, LogHead)
        wanted = payload.end
        for record in self._replay.records(head.payload, wanted.seq - 1):
            return record.hash == wanted.hash
        return False


def _head_of(tip: Tip[LogPart]) -> LogHead | None:
    if tip.head is None:
        return None
    payload = tip.head.payload
    assert isinstance(payload, LogHead)  # a segment's seq is 0, so it is never the head
    return payload


def _end(tip: Tip[LogPart]) -> RecordHead:
    head = _head_of(tip)
    return head.end if head else EMPTY
