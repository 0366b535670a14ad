"""Records and inventory of a log in Secret Manager, whose old records are in sealed segments.

Segments are read several at once, and only if a question needs them. The head alone answers `head`, `published`,
`authorities`, questions about leaves that were reserved since the last sealing or were unfinished then, and
`certificates` of unfinished statuses. Everything else replays the segments, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain
from typing import Final

from daskpki.confidential import Confidential
from daskpki.errors import CorruptError
from daskpki.inventory import (
    CERTIFICATE_KINDS,
    CertificateRecord,
    ReplayedInventory,
    certificate_after,
)
from daskpki.records import EMPTY, RESERVED, Head, Record
from daskpki.store.gsm.log_format import (
    UNFINISHED,
    LogCodec,
    LogHead,
    LogSegment,
    RecentInventory,
    Segment,
    State,
)
from daskpki.store.port import SecretStore

_READERS: Final = 8


class LogReplay:
    """Reads the records of one log. They stay compressed until they are used, so a few MiB of memory are enough."""

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
        """True if the log has exactly that record.

        This takes a request only for a record that was sealed since, and is not the last of its segment.
        """
        if head is None:
            return False
        if seen in (segment.end for segment in head.segments):
            return True
        sealed = (record for part in self._read(_segments_after(head, seen.seq - 1)[:1]) for record in part.records)
        return any(record.head == seen for record in chain(sealed, head.tail))

    def _read(self, wanted: Sequence[tuple[Head, Segment]]) -> Iterator[LogSegment]:
        """Read segments, each with the record after which it is to begin."""

        def access(pair: tuple[Head, Segment]) -> Confidential:
            return self._store.access(self._secret, pair[1].version)

        if not wanted:
            return
        with ThreadPoolExecutor(min(_READERS, len(wanted))) as pool:
            for (begin, segment), data in zip(wanted, pool.map(access, wanted), strict=True):
                part = self._codec.decode(data)
                if not isinstance(part, LogSegment) or (part.begin, part.end) != (begin, segment.end):
                    raise CorruptError(
                        f"{self._secret}, version {segment.version}: not the sealed records up to {segment.end.seq} "
                        "that the head names",
                        hint="find out who could change the log, and restore it from a copy",
                    )
                yield part


def _segments_after(head: LogHead, after: int) -> list[tuple[Head, Segment]]:
    begins = [EMPTY, *(segment.end for segment in head.segments)]
    pairs = zip(begins, head.segments, strict=False)
    return [(begin, segment) for begin, segment in pairs if segment.end.seq > after]


class LogInventory(RecentInventory):
    """An `Inventory` as of one head; `replay` computes it from all records up to that head.

    It is needed for leaves that were finished before the head's tail, and for every leaf if such a leaf may be the
    newest of its name.
    """

    def __init__(self, head: LogHead | None, replay: Callable[[], ReplayedInventory]) -> None:
        super().__init__(State() if head is None else head.state, () if head is None else head.tail)
        # No cached_property: before Python 3.12 it locks all views of a process while one of them reads (gh-87634).
        self._full = cache(replay)

    def certificate(self, serial: int) -> CertificateRecord | None:
        """Find a leaf by serial."""
        found = None if self.is_partial else super().certificate(serial)
        return found or self._full().certificate(serial)

    def current(self, role: str, name: str) -> CertificateRecord | None:
        """Find the newest issued leaf of a role and name."""
        found = None if self.is_partial else super().current(role, name)
        return found or self._full().current(role, name)

    def by_fingerprint(self, fingerprint: str) -> CertificateRecord | None:
        """Find a leaf by fingerprint."""
        found = None if self.is_partial else super().by_fingerprint(fingerprint)
        return found or self._full().by_fingerprint(fingerprint)

    def certificates(
        self, *, role: str | None = None, name: str | None = None, statuses: Sequence[str] | None = None
    ) -> Iterator[CertificateRecord]:
        """Stream the leaves in the order of their reservation."""
        if statuses is not None and set(statuses) <= set(UNFINISHED) and self.unfinished is not None:
            return super().certificates(role=role, name=name, statuses=statuses)
        return self._full().certificates(role=role, name=name, statuses=statuses)

    def check(self, records: Sequence[Record]) -> None:
        """Raise CorruptError if one of these events cannot follow: it names a leaf or a CA that was never reserved."""
        State(self.head, tuple(self.authorities()), self.published).after(records)
        reserved: set[str] = set()
        for record in records:
            if record.kind == RESERVED:
                reserved.add(record.body["serial"])
            elif record.kind in CERTIFICATE_KINDS and record.body["serial"] not in reserved:
                certificate_after(self.certificate(int(record.body["serial"], 16)), record)
