"""How a log's next head is composed: records at its tail, sealed off when that is full, cut off when archived.

What a head names, a sealed segment or the base that stands for archived records, is added to the log's secret before
the head is, as a rider. It counts only once a head that names it has won; after a lost race it lies there unnamed, and
is destroyed by a later writer.
"""

from __future__ import annotations

from collections.abc import Sequence

from daskpki.inventory import Base
from daskpki.records import Record
from daskpki.store.gsm.packing import Archived, LogBase, LogCodec, LogHead, LogPart, LogSegment, describe_segment
from daskpki.store.gsm.placement import DEFAULT, GsmOptions
from daskpki.store.gsm.replay import LogReplay
from daskpki.store.gsm.state import UNFINISHED, State
from daskpki.store.linear import LinearSecret, Link


class HeadComposer:
    """Composes heads of one cluster's log; `options` are for a log that has none yet."""

    def __init__(
        self,
        cluster: str,
        linear: LinearSecret[LogPart],
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
