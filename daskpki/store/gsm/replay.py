"""All records of a log up to a head: the sealed segments, several read at once, and the open tail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Final, NamedTuple

from daskpki.confidential import Confidential
from daskpki.errors import CorruptError
from daskpki.inventory import NO_BASE, Base, ReplayedInventory
from daskpki.records import Head, Record
from daskpki.store.gsm.packing import LogBase, LogCodec, LogHead, LogPart, LogSegment, Segment
from daskpki.store.port import SecretStore

_READERS: Final = 8


class _Wanted(NamedTuple):
    """A segment to be read, and the record after which it is to begin."""

    begin: Head
    segment: Segment


class LogReplay:
    """Reads the records of one log's secret. What is under way is compressed, so memory stays within a few MiB."""

    def __init__(self, store: SecretStore, secret: str, codec: LogCodec) -> None:
        self._store = store
        self._secret = secret
        self._codec = codec

    def records(self, head: LogHead | None, after: int = 0) -> Iterator[Record]:
        """The records with `seq > after`, each segment checked to lead from one chained hash to the next.

        Raises:
            CorruptError: a segment is not what the head names.
        """
        if head is None:
            return
        for part in self._read(_segments_after(head, after)):
            yield from (record for record in part.records if record.seq > after)
        yield from (record for record in head.tail if record.seq > after)

    def holds(self, head: LogHead | None, seen: Head) -> bool:
        """Whether the log has that very record; of one inside an archive nothing else is known than that it was there.

        It takes a request only for a record that has been sealed since, and is not the last of its segment.
        """
        if head is None or seen.seq < head.begin.seq:
            return head is not None
        if seen in (head.begin, *(segment.end for segment in head.segments)):
            return True
        sealed = (record for part in self._read(_segments_after(head, seen.seq - 1)[:1]) for record in part.records)
        return any((record.seq, record.hash) == seen for record in chain(sealed, head.tail))

    def inventory(self, head: LogHead | None) -> ReplayedInventory:
        """The inventory that follows from all that is kept; CorruptError."""
        return ReplayedInventory(self.records(head), self.base(head))

    def base(self, head: LogHead | None) -> Base:
        """What stands for the archived records; CorruptError when it is not what the head names."""
        if head is None or head.archived is None:
            return NO_BASE
        part = self._codec.decode(self._store.access(self._secret, head.archived.version))
        if isinstance(part, LogBase) and part.base.head == head.archived.end:
            return part.base
        raise CorruptError(
            f"{self._secret}, version {head.archived.version}: not what stands for the archived records",
            hint="find out who could change the log, and restore it from a copy",
        )

    def _read(self, wanted: Sequence[_Wanted]) -> Iterator[LogSegment]:
        def access(item: _Wanted) -> Confidential:
            return self._store.access(self._secret, item.segment.version)

        if not wanted:
            return
        with ThreadPoolExecutor(min(_READERS, len(wanted))) as pool:
            for item, data in zip(wanted, pool.map(access, wanted), strict=True):
                yield self._checked(self._codec.decode(data), item)

    def _checked(self, part: LogPart, wanted: _Wanted) -> LogSegment:
        if isinstance(part, LogSegment) and part.begin == wanted.begin and part.end == wanted.segment.end:
            return part
        raise CorruptError(
            f"{self._secret}, version {wanted.segment.version}: not the sealed records up to "
            f"{wanted.segment.end.seq} that the head names",
            hint="find out who could change the log, and restore it from a copy",
        )


def _segments_after(head: LogHead, after: int) -> list[_Wanted]:
    begins = [head.begin, *(segment.end for segment in head.segments)]
    pairs = zip(begins, head.segments, strict=False)
    return [_Wanted(begin, segment) for begin, segment in pairs if segment.end.seq > after]
