"""How a log's next head is composed: records at its tail, sealed off when that is full.

A sealed segment is added to the log's secret before the head that names it, as a rider. It counts only once a head that
names it has won; after a lost race it lies there unnamed, and is destroyed by a later writer.
"""

from __future__ import annotations

from collections.abc import Sequence

from daskpki.errors import UsageError
from daskpki.records import Record
from daskpki.store.gsm.packing import LogCodec, LogHead, LogPart, LogSegment, describe_segment
from daskpki.store.gsm.placement import DEFAULT, GsmOptions
from daskpki.store.gsm.replay import LogReplay
from daskpki.store.gsm.state import UNFINISHED, State
from daskpki.store.linear import LinearSecret, Link

_OTHER = "go on in another --cluster NAME"


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

    def extended(
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
        """Move the first records of the tail, as many as fill a payload, into a segment of their own."""
        if len(head.tail) < 2:  # noqa: PLR2004 - the last record stays, since its signature covers the header
            raise UsageError(f"record {head.end.seq} ({head.tail[-1].kind}) is too large for the log", hint=_OTHER)
        rider = LogSegment(head.link._replace(seq=0), self._cluster, head.state.head, head.tail[:-1])
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
