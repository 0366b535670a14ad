"""All records of a log up to a head: the sealed segments, several read at once, and the open tail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Final, NamedTuple

from daskpki.confidential import Confidential
from daskpki.errors import CorruptError
from daskpki.inventory import ReplayedInventory
from daskpki.records import EMPTY, Head, Record
from daskpki.store.gsm.packing import LogCodec, LogHead, LogPart, LogSegment, Segment
from daskpki.store.gsm.state import State
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
        """Whether the log has that very record.

        It takes a request only for a record that has been sealed since, and is not the last of its segment.
        """
        if head is None:
            return False
        if seen in (segment.end for segment in head.segments):
            return True
        sealed = (record for part in self._read(_segments_after(head, seen.seq - 1)[:1]) for record in part.records)
        return any((record.seq, record.hash) == seen for record in chain(sealed, head.tail))

    def state(self, head: LogHead) -> State:
        """The state at the end of the sealed segments, as their records say; CorruptError."""
        return State().after(self.records(head._replace(tail=())))

    def inventory(self, head: LogHead | None) -> ReplayedInventory:
        """The inventory that follows from all records; CorruptError."""
        return ReplayedInventory(self.records(head))

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
    begins = [EMPTY, *(segment.end for segment in head.segments)]
    pairs = zip(begins, head.segments, strict=False)
    return [_Wanted(begin, segment) for begin, segment in pairs if segment.end.seq > after]
