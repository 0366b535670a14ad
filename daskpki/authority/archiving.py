"""Take off the log what has long expired: into a file first, and out of the store once the file proved to hold it.

    verify the log → write the file, fsynced → read it back and compare → cut the log, in one step

The cut is no later than the newest record that the signed trust document vouches for, and no leaf that ended less than
`keep` seconds ago is before it. A command that dies in between leaves the file, and a store in which nothing or all of
it is cut; run again with the same file, it goes on.
"""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Final, NamedTuple

from daskpki.archived import archived_draft, base_at
from daskpki.authority.archive_file import Archive, read_archive, write_archive
from daskpki.authority.audit import verify_log
from daskpki.authority.crl import CRL_MARGIN
from daskpki.authority.session import Session
from daskpki.errors import AlreadyExistsError, ConflictError, CorruptError, UsageError
from daskpki.pki.profile import DAY, format_ttl
from daskpki.records import RESERVED, Head

DEFAULT_KEEP: Final = 30 * DAY
"""Seconds for which what has ended stays in the log: to be found, and to be renewed."""


class Cut(NamedTuple):
    """What was taken off: the records after `begin` up to `end`, the leaves that were reserved among them."""

    begin: Head
    end: Head
    certificates: int


def archive(session: Session, path: Path, *, keep: int = DEFAULT_KEEP) -> Cut | None:
    """Archive what ended more than `keep` seconds ago; None when there is nothing to be cut off yet.

    UsageError for a `keep` within which entries still stand on the CRL; AlreadyExistsError for a file that is not this
    log's next archive; ConflictError when others keep writing meanwhile.
    """
    if keep < CRL_MARGIN:
        raise UsageError(
            f"what ended less than {format_ttl(CRL_MARGIN)} ago still stands on the CRL", hint="--keep 30d"
        )
    audited = verify_log(session)
    log = session.log
    begin = log.base().head
    if path.exists():
        written = read_archive(path)
        if written.cluster == session.cluster and written.end == begin:
            return _cut_of(written)  # by a command that died before it could say so
        end = written.end
    else:
        end = log.sealed(int(session.now().timestamp()) - keep, audited.trust.log[0])
        records = list(takewhile(lambda record: record.seq <= end.seq, log.records(after=begin.seq)))
        if not any(record.kind == RESERVED for record in records):
            return None
        write_archive(path, session.cluster, begin, records)
        written = read_archive(path)
    _cut(session, written, begin, end)
    return _cut_of(written)


def _cut(session: Session, written: Archive, begin: Head, end: Head) -> None:
    """Let the log begin after `end`, if the file holds what it has up to there."""
    log = session.log
    seen = log.inventory().head
    records = list(log.records(after=begin.seq))
    held = records[: len(written.records)]
    if written.cluster != session.cluster or written.begin != begin or held != list(written.records):
        raise AlreadyExistsError(
            f"{written.path} exists, and is not the next archive of this log", hint="choose another file"
        )
    if not records or Head(records[-1].seq, records[-1].hash) != seen:
        raise ConflictError("the log went on meanwhile", hint=f"run the command again; {written.path} stays as it is")
    base = base_at(end, log.base(), records)
    log.cut(base, [archived_draft(base, written.sha256)], session.stamp(), seen=seen)
    if log.base() != base:
        raise CorruptError("the log does not begin where it was cut", hint="daskpki audit --verify")


def _cut_of(written: Archive) -> Cut:
    certificates = sum(record.kind == RESERVED for record in written.records)
    return Cut(written.begin, written.end, certificates)
