"""How the records log's payloads are read: decompressed within limits, each value of the type that was written. Pure.

Whoever compares one version with others relies on the types, and could not tell by then which version it was.

What the log's head carries so that commands need not read the sealed segments: the state at their end. Pure.

`State` holds the CA generations, what was published last, and the leaves whose story is not at an end (reserved or
revoking). So issuing costs the same whether ten or a hundred thousand certificates came before.

How the records log is packed into versions of one secret. Pure.

Each payload is an .xz file of JSON lines: `gcloud secrets versions access latest --out-file=log.xz ...; xz -d log.xz`.

    head     {"format":1,"part":"head","seq","prev","operation",     the link (daskpki.store.append_chain)
              "cluster","state","end","segments","leftover","options"}   then the records after `state`
              and with "format":2, once records were archived, "archived": [version, seq, hash] of the base
    segment  {"format":1,"part":"segment","prev","operation","cluster","begin","end"}   then the records after `begin`
    base     {"format":2,"part":"base","prev","operation","cluster","base"}   what stands for the archived records
    records  [time,operation,who,command] where the stamp changes, [kind,body] for each event of that stamp

A head holds the open tail in full, and names the sealed segments. A record's number and hash are not written: they
follow from the one before, and the last must be `end`. Segments are immutable and filled close to 64 KiB, at least
500 certificates each; the head after a sealing starts with a nearly empty tail.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

from daskpki.archived import encode_base, encode_entries, parse_authority, parse_base, parse_leaf
from daskpki.confidential import Confidential
from daskpki.errors import CorruptError, NotTrustedError, UsageError
from daskpki.inventory import (
    AUTHORITY_KINDS,
    CERTIFICATE_KINDS,
    AuthorityRecord,
    Base,
    CertificateRecord,
    authority_after,
    certificate_after,
)
from daskpki.pki import json_fields
from daskpki.pki.json_fields import as_object
from daskpki.records import EMPTY, PUBLISHED, RESERVED, REVOKING, Draft, Head, Record, Stamp, chain
from daskpki.store.append_chain import Link
from daskpki.store.gsm.placement import GsmOptions, encode_options, parse_options
from daskpki.store.port import MAX_PAYLOAD

_MAX_EXPANDED: Final = 16 << 20  # 64 KiB of honest records expand to less than 1 MiB
_MEMORY: Final = 64 << 20
_WHAT: Final = "a part of a records log"


def expand(data: bytes) -> bytes:
    """The text of an .xz file; CorruptError, lzma.LZMAError."""
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
    expanded = decompressor.decompress(data, _MAX_EXPANDED)
    if not decompressor.eof or decompressor.unused_data:
        raise CorruptError("not a part of a records log (truncated, too large, or followed by other bytes)")
    return expanded


def number(value: object) -> int:
    """`value` when it is an integer from 0 on; CorruptError."""
    return json_fields.integer({"number": value}, "number", _WHAT)


def text(value: object) -> str:
    """`value` when it is a text; CorruptError."""
    return json_fields.as_text(value, f"an entry of {_WHAT}")


def parse_end(seq: object, end: object) -> Head:
    """The record that these two name; CorruptError."""
    return Head(number(seq), text(end))


UNFINISHED: Final = (RESERVED, REVOKING)
"""The statuses of leaves that some command has yet to bring to an end."""

MAX_UNFINISHED: Final = 250
"""How many of them a header carries; where there are more, they are looked up in the segments."""


class State(NamedTuple):
    """The state after the record `head`; `unfinished` is None where it takes the segments to know it."""

    head: Head = EMPTY
    authorities: tuple[AuthorityRecord, ...] = ()
    published: Mapping[str, Any] = {}
    unfinished: tuple[CertificateRecord, ...] | None = ()

    def after(self, records: Iterable[Record]) -> State:
        """The state once these records have followed."""
        authorities = {entry.generation: entry for entry in self.authorities}
        published = self.published
        leaves = _Unfinished(self.unfinished)
        head = self.head
        for record in records:
            if record.kind in CERTIFICATE_KINDS:
                leaves.apply(record)
            elif record.kind in AUTHORITY_KINDS:
                generation = record.body["generation"]
                authorities[generation] = authority_after(authorities.get(generation), record)
            elif record.kind == PUBLISHED and record.body["epoch"] > published.get("epoch", 0):
                published = record.body
            head = Head(record.seq, record.hash)
        in_order = tuple(authorities[generation] for generation in sorted(authorities))
        return State(head, in_order, published, leaves.result())

    @classmethod
    def beginning(cls, base: Base) -> State:
        """The state of a log that holds nothing but what stands for archived records."""
        unfinished = tuple(entry for entry in base.certificates if entry.status in UNFINISHED)
        return cls(base.head, base.authorities, base.published).with_unfinished(unfinished)

    def with_unfinished(self, entries: tuple[CertificateRecord, ...]) -> State:
        """The same state with the unfinished leaves filled in, unless they are too many for a header."""
        return self._replace(unfinished=None if len(entries) > MAX_UNFINISHED else entries)


class _Unfinished:
    """The unfinished leaves while records pass by, and the serials that came to life before anything known here."""

    def __init__(self, known: tuple[CertificateRecord, ...] | None) -> None:
        self._entries = {entry.serial: entry for entry in known or ()}
        self._complete = known is not None
        self._foreign: set[int] = set()

    def apply(self, record: Record) -> None:
        serial = int(record.body["serial"], 16)
        entry = self._entries.get(serial)
        if entry is None and record.kind != RESERVED:
            change = self._foreign.add if record.kind == REVOKING else self._foreign.discard
            change(serial)
            return
        entry = certificate_after(entry, record)
        if entry.status in UNFINISHED:
            self._entries[serial] = entry
        else:
            del self._entries[serial]

    def result(self) -> tuple[CertificateRecord, ...] | None:
        if not self._complete or self._foreign or len(self._entries) > MAX_UNFINISHED:
            return None
        return tuple(self._entries.values())


def encode_state(state: State) -> dict[str, Any]:
    """The state as a JSON object."""
    unfinished = None if state.unfinished is None else encode_entries(state.unfinished)
    return {
        "head": list(state.head),
        "authorities": encode_entries(state.authorities),
        "published": dict(state.published),
        "unfinished": unfinished,
    }


def parse_state(data: Mapping[str, Any]) -> State:
    """The state in such an object; CorruptError."""
    try:
        unfinished = data["unfinished"]
        return State(
            Head(*data["head"]),
            tuple(map(parse_authority, data["authorities"])),
            as_object(data["published"], "what the log's header says was published"),
            None if unfinished is None else tuple(map(parse_leaf, unfinished)),
        )
    except (KeyError, TypeError) as error:
        raise CorruptError(f"the log's header is malformed ({error})") from error


FORMAT: Final = 1
FORMAT_ARCHIVED: Final = 2
"""Of a log whose first records are in an archive: a reader of format 1 alone would take it for a broken one."""
# Preset 6 would save an eighth and take twice as long, at each commit; no payload expands beyond the dictionary.
_FILTERS: Final = [{"id": lzma.FILTER_LZMA2, "preset": 4, "dict_size": 1 << 20}]


class Segment(NamedTuple):
    """A sealed run of records: its version, the last record in it, and the span of notAfter of its reservations."""

    version: int
    end: Head
    earliest: int
    latest: int


class Archived(NamedTuple):
    """Where the kept records begin, and the version that says what stands for those before."""

    version: int
    end: Head


class LogHead(NamedTuple):
    """The version that counts: `state` at the end of the sealed segments, and the records since.

    `leftover` are versions below that the next writer is to destroy; `archived` is None for a log that is whole.
    """

    link: Link
    cluster: str
    state: State
    segments: tuple[Segment, ...]
    tail: tuple[Record, ...]
    leftover: tuple[int, ...]
    options: GsmOptions
    archived: Archived | None = None

    @property
    def begin(self) -> Head:
        """The record before the first that is kept."""
        return self.archived.end if self.archived else EMPTY

    @property
    def riders(self) -> frozenset[int]:
        """The versions that belong to this head, though they are none."""
        sealed = {segment.version for segment in self.segments}
        return frozenset(sealed | ({self.archived.version} if self.archived else set()))

    @property
    def end(self) -> Head:
        """The newest record."""
        return Head(self.tail[-1].seq, self.tail[-1].hash) if self.tail else self.state.head


class LogSegment(NamedTuple):
    """The payload of a sealed segment, or of one that nobody came to refer to."""

    link: Link
    cluster: str
    begin: Head
    records: tuple[Record, ...]

    @property
    def end(self) -> Head:
        """The newest record."""
        return Head(self.records[-1].seq, self.records[-1].hash) if self.records else self.begin


class LogBase(NamedTuple):
    """The payload that says what stands for the archived records."""

    link: Link
    cluster: str
    base: Base


LogPart = LogHead | LogSegment | LogBase


class LogCodec:
    """The `daskpki.store.append_chain.Codec` of one cluster's log."""

    def __init__(self, cluster: str, room: int = MAX_PAYLOAD) -> None:
        self._cluster = cluster
        self._room = room
        self._last: tuple[LogPart | None, bytes] = (None, b"")

    def encode(self, payload: LogPart) -> Confidential:
        """The payload's bytes; UsageError beyond `room` bytes."""
        data = self._encoded(payload)
        if len(data) > self._room:
            hint = "daskpki audit --archive FILE takes off what has long expired; or go on in another --cluster NAME"
            raise UsageError(f"the log of {self._cluster!r} has outgrown its header", hint=hint)
        return Confidential(data)

    def decode(self, data: Confidential) -> LogPart:
        """The payload in these bytes; CorruptError, also for another cluster's; NotTrustedError for a newer format."""
        part = decode_part(data.reveal())
        if part.cluster != self._cluster:
            raise CorruptError(f"this is the log of cluster {part.cluster!r}, not of {self._cluster!r}")
        return part

    def link(self, payload: LogPart) -> Link:
        """The payload's link; a segment's `seq` is 0."""
        return payload.link

    def fits(self, part: LogPart) -> bool:
        """Whether it fits one payload."""
        return len(self._encoded(part)) <= self._room

    def _encoded(self, part: LogPart) -> bytes:
        """Compressing is the dear part of a commit, and what was found to fit is what is added next."""
        if self._last[0] is not part:
            self._last = (part, encode_part(part))
        return self._last[1]

    def fill(self, segment: LogSegment) -> LogSegment:
        """The segment cut to as many of its first records as fit, within 2 %; UsageError when not one does."""
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
    """The compressed JSON lines of a head or a segment."""
    lines = "\n".join(json.dumps(line, separators=(",", ":"), ensure_ascii=False) for line in _lines(part))
    return lzma.compress(lines.encode(), check=lzma.CHECK_CRC32, filters=_FILTERS)


def _lines(part: LogPart) -> list[Any]:
    if isinstance(part, LogHead):
        return [_head_line(part), *_record_lines(part.tail)]
    return _segment_lines(part) if isinstance(part, LogSegment) else [_base_line(part)]


def _base_line(part: LogBase) -> dict[str, Any]:
    header = {"format": FORMAT_ARCHIVED, "part": "base", **part.link._asdict()}
    return header | {"cluster": part.cluster, "base": encode_base(part.base)}


def _head_line(head: LogHead) -> dict[str, Any]:
    archived = {"archived": [head.archived.version, *head.archived.end]} if head.archived else {}
    return {
        "format": FORMAT_ARCHIVED if head.archived else FORMAT,
        "part": "head",
        **head.link._asdict(),
        "cluster": head.cluster,
        "state": encode_state(head.state),
        "end": list(head.end),
        "segments": [[segment.version, *segment.end, segment.earliest, segment.latest] for segment in head.segments],
        "leftover": list(head.leftover),
        "options": encode_options(head.options),
        **archived,
    }


def _segment_lines(part: LogSegment) -> list[Any]:
    header = {
        "format": FORMAT,
        "part": "segment",
        **part.link._asdict(),
        "cluster": part.cluster,
        "begin": list(part.begin),
        "end": list(part.end),
    }
    return [header, *_record_lines(part.records)]


def _record_lines(records: Iterable[Record]) -> Iterator[list[Any]]:
    for stamp, group in groupby(records, key=_stamp):
        yield list(stamp)
        for record in group:
            yield [record.kind, record.body]


def _stamp(record: Record) -> Stamp:
    return Stamp(record.time, record.operation, record.who, record.command)


def decode_part(data: bytes) -> LogPart:
    """The head or segment in these bytes; CorruptError, NotTrustedError for a newer format."""
    try:
        header, *lines = [json.loads(line) for line in expand(data).split(b"\n")]
        _check_format(header)
        link = Link(number(header["seq"]), number(header["prev"]), text(header["operation"]))
        if header["part"] == "segment":
            begin = parse_end(*header["begin"])
            part: LogPart = LogSegment(link, header["cluster"], begin, _parse_records(begin, lines, header["end"]))
        elif header["part"] == "base":
            part = LogBase(link, header["cluster"], parse_base(header["base"]))
        else:
            part = _parse_head(link, header, lines)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, lzma.LZMAError, EOFError) as error:
        raise CorruptError(f"not a part of a records log ({type(error).__name__})") from error
    return part


def _check_format(header: Mapping[str, Any]) -> None:
    if header["format"] not in (FORMAT, FORMAT_ARCHIVED):
        raise NotTrustedError(
            f"the log has format {header['format']}, and this daskpki understands {FORMAT_ARCHIVED}",
            hint="update daskpki",
        )


def _parse_head(link: Link, header: Mapping[str, Any], lines: Sequence[Any]) -> LogHead:
    state = parse_state(header["state"])
    return LogHead(
        link,
        header["cluster"],
        state,
        tuple(_parse_segment(*entry) for entry in header["segments"]),
        _parse_records(state.head, lines, header["end"]),
        tuple(map(number, header["leftover"])),
        parse_options(header["options"]),
        _parse_archived(*header["archived"]) if header["format"] == FORMAT_ARCHIVED else None,
    )


def _parse_archived(version: Any, seq: Any, end: Any) -> Archived:
    return Archived(number(version), parse_end(seq, end))


def _parse_segment(version: Any, seq: Any, end: Any, earliest: Any, latest: Any) -> Segment:
    return Segment(number(version), parse_end(seq, end), number(earliest), number(latest))


def _parse_records(head: Head, lines: Sequence[Any], end: Sequence[Any]) -> tuple[Record, ...]:
    records: list[Record] = []
    stamp = Stamp(0, "", "", "")
    for line in lines:
        if len(line) == len(Stamp._fields):
            time, *texts = line
            stamp = Stamp(number(time), *map(text, texts))
            continue
        kind, body = line
        draft = Draft(text(kind), json_fields.as_object(body, "the body of a record"))
        (record,) = chain(head, [draft], stamp)
        head = Head(record.seq, record.hash)
        records.append(record)
    if head != parse_end(*end):
        raise CorruptError(f"the log's records up to {end[0]} do not fit its hash chain: they were changed")
    return tuple(records)


def describe_segment(version: int, records: Sequence[Record]) -> Segment:
    """How the head refers to a segment of these records; the span is (0, 0) when none is a reservation."""
    ends = [record.body["not_after"] for record in records if record.kind == RESERVED] or [0]
    return Segment(version, Head(records[-1].seq, records[-1].hash), min(ends), max(ends))
