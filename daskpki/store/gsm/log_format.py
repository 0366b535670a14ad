"""The format of the log in Secret Manager: heads and segments, each one version of the secret. Pure.

Each payload is an .xz file of JSON lines: `gcloud secrets versions access latest --out-file=log.xz ...; xz -d log.xz`.

    head     {"format":1,"part":"head","seq","prev","operation",     the link (daskpki.store.append_chain)
              "cluster","end","base","state","segments","leftover","options"}   then the records after `state`
    segment  {"format":1,"part":"segment","prev","operation","cluster","end","begin"}   then the records after `begin`
    records  [time,operation,who,command] where the stamp changes, [kind,body] for each event of that stamp,
              {"signatures":[[generation,value,place],...]} after the last of a commit

A head has the records of its tail, and names the segments. A record's number and hash are not written: they follow from
the record before, and the last one must be `end`. Segments are immutable and filled close to 64 KiB, at least 500
certificates each; the head after a new segment starts with a nearly empty tail.

`State` is the state at the end of the segments, so that commands need not read them: the CA generations, the last
publication, and the leaves that are reserved or being revoked. So issuing costs the same after ten certificates as
after a hundred thousand.

Payloads are decompressed within limits. The type of each value is checked as it is read: a later comparison of versions
relies on the types, and its error could not name the version.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

from daskpki.confidential import Confidential
from daskpki.errors import CorruptError, NotTrustedError, UsageError
from daskpki.inventory import (
    CERTIFICATE_KINDS,
    AuthorityRecord,
    CertificateRecord,
    ReplayedInventory,
    parse_authority,
)
from daskpki.pki import json_fields
from daskpki.pki.json_fields import as_object
from daskpki.records import (
    EMPTY,
    ISSUED,
    RESERVED,
    REVOKING,
    Draft,
    Head,
    Record,
    Stamp,
    chain,
    encode_signatures,
    parse_signatures,
)
from daskpki.secret_names import MAX_PAYLOAD
from daskpki.store.append_chain import Link
from daskpki.store.gsm.secrets import GsmOptions

_MAX_EXPANDED: Final = 2 << 20  # 64 KiB of honest records expand to less than 1 MiB
_MOST_LINES: Final = 1 << 14
"""Ours have at most 6,000; two million, in a forged payload of 3 kB, cost each command half a minute and 1 GB."""
_MEMORY: Final = 64 << 20
_WHAT: Final = "a part of a records log"


def expand(data: bytes) -> bytes:
    """Decompress an .xz file with limits on length and lines; CorruptError, lzma.LZMAError."""
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
    expanded = decompressor.decompress(data, _MAX_EXPANDED)
    if not decompressor.eof or decompressor.unused_data or expanded.count(b"\n") > _MOST_LINES:
        raise CorruptError("not a part of a records log (truncated, too large, or followed by other bytes)")
    return expanded


def number(value: object) -> int:
    """Return `value` if it is an integer of at least 0; CorruptError."""
    return json_fields.integer({"number": value}, "number", _WHAT)


def text(value: object) -> str:
    """Return `value` if it is a text; CorruptError."""
    return json_fields.as_text(value, f"an entry of {_WHAT}")


def parse_end(seq: object, end: object) -> Head:
    """Parse number and hash of a record; CorruptError."""
    return Head(number(seq), text(end))


UNFINISHED: Final = (RESERVED, REVOKING)
"""Statuses of leaves on which a command has not finished its work."""

MAX_UNFINISHED: Final = 250
"""Most unfinished leaves that a header carries; if there are more, the segments are read."""


class State(NamedTuple):
    """The state after the record `head`; `unfinished` is None if only the segments have it."""

    head: Head = EMPTY
    authorities: tuple[AuthorityRecord, ...] = ()
    published: Mapping[str, Any] = {}
    unfinished: tuple[CertificateRecord, ...] | None = ()

    def after(self, records: Iterable[Record]) -> State:
        """Return the state after these further records."""
        recent = RecentInventory(self, records)
        return State(recent.head, tuple(recent.authorities()), recent.published, recent.unfinished)


class RecentInventory(ReplayedInventory):
    """The inventory of a state and the records after it, without the leaves that were finished before.

    `revoking` are the serials of such leaves whose revocation is unfinished. `is_partial` is true if such a leaf was
    issued by these records, since it may then be the newest of its name.
    """

    def __init__(self, state: State, records: Iterable[Record]) -> None:
        self.revoking: set[int] = set()
        self.is_partial = False
        self._complete = state.unfinished is not None
        super().__init__(
            records,
            head=state.head,
            published=state.published,
            certificates=state.unfinished or (),
            authorities=state.authorities,
        )

    def apply(self, record: Record) -> None:
        """Apply the next record."""
        if record.kind in CERTIFICATE_KINDS - {RESERVED}:
            serial = int(record.body["serial"], 16)
            if serial not in self._certificates:
                change = self.revoking.add if record.kind == REVOKING else self.revoking.discard
                change(serial)
                self.is_partial |= record.kind == ISSUED
                self.head = record.head
                return
        super().apply(record)

    @property
    def unfinished(self) -> tuple[CertificateRecord, ...] | None:
        """All unfinished leaves; None if some are not known here, or if there are too many for a header."""
        found = tuple(super().certificates(statuses=UNFINISHED))
        return found if self._complete and not self.revoking and len(found) <= MAX_UNFINISHED else None


def _encode_state(state: State) -> dict[str, Any]:
    return {
        "head": list(state.head),
        "authorities": encode_entries(state.authorities),
        "published": dict(state.published),
        "unfinished": None if state.unfinished is None else encode_entries(state.unfinished),
    }


def _parse_state(data: Mapping[str, Any]) -> State:
    """Parse a result of `_encode_state`; CorruptError."""
    try:
        unfinished = data["unfinished"]
        return State(
            Head(*data["head"]),
            tuple(map(parse_authority, data["authorities"])),
            as_object(data["published"], "the publication in the log's header"),
            None
            if unfinished is None
            else tuple(CertificateRecord(**{**entry, "sans": tuple(entry["sans"])}) for entry in unfinished),
        )
    except (KeyError, TypeError) as error:
        raise CorruptError(f"the log's header is malformed ({error})") from error


def encode_entries(entries: Sequence[AuthorityRecord | CertificateRecord]) -> list[dict[str, Any]]:
    """Encode entries as JSON objects, without fields that are None."""
    return [{name: value for name, value in entry._asdict().items() if value is not None} for entry in entries]


FORMAT: Final = 1
# Preset 6 would save an eighth and take twice as long, at each commit; no payload expands beyond the dictionary.
_FILTERS: Final = [{"id": lzma.FILTER_LZMA2, "preset": 4, "dict_size": 1 << 20}]


class Segment(NamedTuple):
    """A sealed run of records: its version, and the last record in it."""

    version: int
    end: Head


class LogHead(NamedTuple):
    """The payload of a head: `state` at the end of the segments, and the records since.

    `leftover` are older versions, which the next writer is to destroy.
    """

    link: Link
    cluster: str
    state: State
    segments: tuple[Segment, ...]
    tail: tuple[Record, ...]
    leftover: tuple[int, ...]
    options: GsmOptions

    @property
    def riders(self) -> frozenset[int]:
        """The versions of this head's segments."""
        return frozenset(segment.version for segment in self.segments)

    @property
    def end(self) -> Head:
        """The newest record."""
        return self.tail[-1].head if self.tail else self.state.head


class LogSegment(NamedTuple):
    """The payload of a segment, whether a head names it or not."""

    link: Link
    cluster: str
    begin: Head
    records: tuple[Record, ...]

    @property
    def end(self) -> Head:
        """The newest record."""
        return self.records[-1].head if self.records else self.begin


LogPart = LogHead | LogSegment


class LogCodec:
    """The `daskpki.store.append_chain.Codec` of one cluster's log."""

    def __init__(self, cluster: str, room: int = MAX_PAYLOAD) -> None:
        self._cluster = cluster
        self._room = room
        self._last: tuple[LogPart | None, bytes] = (None, b"")

    def encode(self, payload: LogPart) -> Confidential:
        """Encode a payload; UsageError if it has more than `room` bytes."""
        data = self._encoded(payload)
        if len(data) > self._room:
            raise UsageError(
                f"the log of {self._cluster!r} has outgrown its header, after some 800,000 certificates",
                hint="continue in another --cluster NAME",
            )
        return Confidential(data)

    def decode(self, data: Confidential) -> LogPart:
        """Decode a payload; CorruptError, also for another cluster's log; NotTrustedError for a newer format."""
        part = decode_part(data.reveal())
        if part.cluster != self._cluster:
            raise CorruptError(f"this is the log of cluster {part.cluster!r}, not of {self._cluster!r}")
        return part

    def link(self, payload: LogPart) -> Link:
        """The payload's link; a segment's `seq` is 0."""
        return payload.link

    def fits(self, part: LogPart) -> bool:
        """True if a head or segment fits into one payload."""
        return len(self._encoded(part)) <= self._room

    def _encoded(self, part: LogPart) -> bytes:
        """Compress once: it is the slow part of a commit, and a head that fits is the one that is added next."""
        if self._last[0] is not part:
            self._last = (part, encode_part(part))
        return self._last[1]

    def fill(self, segment: LogSegment) -> LogSegment:
        """Cut the segment to as many of its first records as fit, within 2 %; UsageError if not even one fits."""
        records = segment.records
        count = len(records)
        while count:
            part = segment._replace(records=records[:count])
            size = len(self._encoded(part))
            if size <= self._room:
                return part
            count = min(count - 1, int(count * 0.98 * self._room / size) + 1)
        raise UsageError(f"record {records[0].seq} ({records[0].kind}) is larger than a payload of {self._room} bytes")


def encode_part(part: LogPart) -> bytes:
    """Encode a head or a segment as compressed JSON lines."""
    lines = [_header(part), *_record_lines(part.tail if isinstance(part, LogHead) else part.records)]
    text = "\n".join(json.dumps(line, separators=(",", ":"), ensure_ascii=False) for line in lines)
    return lzma.compress(text.encode(), check=lzma.CHECK_CRC32, filters=_FILTERS)


def _header(part: LogPart) -> dict[str, Any]:
    common = {"format": FORMAT, **part.link._asdict(), "cluster": part.cluster, "end": list(part.end)}
    if isinstance(part, LogSegment):
        return {**common, "part": "segment", "begin": list(part.begin)}
    return {
        **common,
        "part": "head",
        "base": None,
        "state": _encode_state(part.state),
        "segments": [[segment.version, *segment.end] for segment in part.segments],
        "leftover": list(part.leftover),
        "options": part.options._asdict(),
    }


def _record_lines(records: Iterable[Record]) -> Iterator[list[Any] | dict[str, Any]]:
    for stamp, group in groupby(records, key=lambda record: record[1:5]):
        yield list(stamp)
        for record in group:
            yield [record.kind, record.body]
            if record.signatures is not None:
                yield {"signatures": encode_signatures(record.signatures)}


def decode_part(data: bytes) -> LogPart:
    """Decode a head or segment; CorruptError, NotTrustedError for a newer format."""
    try:
        header, *lines = [json.loads(line) for line in expand(data).split(b"\n")]
        if header["format"] != FORMAT:
            raise NotTrustedError(
                f"the log has format {header['format']}; this daskpki reads {FORMAT}", hint="upgrade daskpki"
            )
        link = Link(number(header["seq"]), number(header["prev"]), text(header["operation"]))
        if header["part"] == "segment":
            begin = parse_end(*header["begin"])
            part: LogPart = LogSegment(link, header["cluster"], begin, _parse_records(begin, lines, header["end"]))
        else:
            part = _parse_head(link, header, lines)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, lzma.LZMAError, EOFError) as error:
        raise CorruptError(f"not a part of a records log ({type(error).__name__})") from error
    return part


def _parse_head(link: Link, header: Mapping[str, Any], lines: Sequence[Any]) -> LogHead:
    if header["base"] is not None:  # reserved for a log that begins later than at its first record
        raise NotTrustedError("the log has a base, which this daskpki does not understand", hint="upgrade daskpki")
    state = _parse_state(header["state"])
    return LogHead(
        link,
        header["cluster"],
        state,
        tuple(Segment(number(version), parse_end(seq, end)) for version, seq, end in header["segments"]),
        _parse_records(state.head, lines, header["end"]),
        tuple(map(number, header["leftover"])),
        GsmOptions(tuple(header["options"]["replication"]), header["options"]["kms_key"]),
    )


def _parse_records(head: Head, lines: Sequence[Any], end: Sequence[Any]) -> tuple[Record, ...]:
    records: list[Record] = []
    stamp = Stamp(0, "", "", "")
    for line in lines:
        if isinstance(line, dict):
            records[-1] = records[-1]._replace(signatures=parse_signatures(line["signatures"]))
            continue
        if len(line) == len(Stamp._fields):
            time, *texts = line
            stamp = Stamp(number(time), *map(text, texts))
            continue
        kind, body = line
        draft = Draft(text(kind), json_fields.as_object(body, "the body of a record"))
        records += chain(head, [draft], stamp)
        head = records[-1].head
    if head != parse_end(*end):
        raise CorruptError(f"the log's records up to {end[0]} do not fit its hash chain: they were changed")
    return tuple(records)


def place_of(head: LogHead) -> str:
    """The digest, in hex, of a head without its records; the signature of the last commit covers this digest."""
    return hashlib.sha256(json.dumps(_header(head), sort_keys=True).encode()).hexdigest()
