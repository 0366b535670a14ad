"""An archive: the records that were taken off a log, in one file.

Gzipped JSON lines, so that `zcat FILE | jq` reads it: a header `{"format", "cluster", "begin", "end"}` with number and
hash of the record before the first and of the last, then one record a line, in the order of `daskpki.records.Record`.
Number and hash lead from one archive to the next and on into the log.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from daskpki.errors import CorruptError, NotTrustedError, UsageError
from daskpki.files import read_private, write_private
from daskpki.records import EMPTY, Head, Record, verify_chain

FORMAT: Final = 1
_MAX_FILE: Final = 1 << 30
_FIELDS: Final = len(Record._fields)


class Archive(NamedTuple):
    """A file that was read, each record of it checked; `sha256` is the file's, in hex."""

    path: Path
    cluster: str
    begin: Head
    records: Sequence[Record]
    sha256: str

    @property
    def end(self) -> Head:
        """The newest record in it."""
        return Head(self.records[-1].seq, self.records[-1].hash)


def write_archive(path: Path, cluster: str, begin: Head, records: Sequence[Record]) -> None:
    """Write a new file that only we may read, durable on return; AlreadyExistsError."""
    header = {"format": FORMAT, "cluster": cluster, "begin": list(begin), "end": [records[-1].seq, records[-1].hash]}
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
        for line in (header, *records):
            file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    write_private(path, buffer.getvalue())


def read_archive(path: Path) -> Archive:
    """The archive in a file; CorruptError when it does not hold, NotTrustedError for a newer format."""
    data = read_private(path, limit=_MAX_FILE)
    try:
        header, *lines = [json.loads(line) for line in gzip.decompress(data).splitlines()]
        _check_format(path, header)
        begin, end = Head(*header["begin"]), Head(*header["end"])
        records = list(verify_chain(begin, map(_record, lines)))
        archive = Archive(path, header["cluster"], begin, records, hashlib.sha256(data).hexdigest())
    except CorruptError as error:
        raise CorruptError(f"{path}: {error}", hint="use another copy of this archive") from error
    except (ValueError, KeyError, TypeError, IndexError, EOFError, OSError, zlib.error) as error:
        raise CorruptError(f"{path} is not an archive of records, or is damaged ({type(error).__name__})") from error
    if not records or archive.end != end:
        raise CorruptError(f"{path} was cut off: it is to end with record {end.seq}")
    return archive


def _check_format(path: Path, header: Mapping[str, Any]) -> None:
    if header["format"] != FORMAT:
        raise NotTrustedError(
            f"{path} has format {header['format']}; this daskpki reads {FORMAT}", hint="upgrade daskpki"
        )


def _record(line: Sequence[Any]) -> Record:
    if len(line) != _FIELDS:
        raise ValueError("not a record")
    return Record._make(line)


def joined(archives: Iterable[Archive], cluster: str, end: Head) -> Iterator[Record]:
    """The records of these archives, which have to be all that are missing before a log that begins at `end`.

    UsageError that names what is missing or does not belong; in any order.
    """
    head = EMPTY
    for archive in sorted(archives, key=lambda archive: archive.begin):
        if archive.cluster != cluster:
            raise UsageError(f"{archive.path} is of cluster {archive.cluster!r}, not of {cluster!r}")
        if archive.begin != head:
            raise UsageError(f"the archive that continues record {head.seq} is missing before {archive.path}")
        yield from archive.records
        head = archive.end
    if head != end:
        raise UsageError(
            f"the archives end with record {head.seq}, and the log goes on after record {end.seq}",
            hint="name every archive of this cluster: daskpki audit --verify FILE...",
        )
