"""`daskpki audit`: the log of everything that was done, shown or checked.

`daskpki report`: the inventory as a page for people.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from daskpki.cli.output import print_listing, table_lines
from daskpki.errors import UsageError

if TYPE_CHECKING:
    from daskpki.authority.session import Session
    from daskpki.cli.invocation import Invocation
    from daskpki.records import Record

_WHEN: Final = (
    "a log is cut after leaves that all ended before the time of --keep, as far as the signed trust document vouches; "
    "on Secret Manager, at the end of a full segment (about 500 certificates)"
)
_COLUMNS: Final = ("seq", "time", "who", "command", "operation", "event", "body", "hash")


def audit(
    ctx: typer.Context,
    archives: Annotated[
        list[Path] | None, typer.Argument(metavar="[ARCHIVE]...", help="With --verify: what was cut off, in files.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the log against itself, the signed trust document, the inventory.")
    ] = False,
    since: Annotated[int, typer.Option(metavar="SEQ", min=1, help="Show the records from this number on.")] = 1,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a heading.")] = False,
    archive: Annotated[
        Path | None, typer.Option("--archive", metavar="FILE", help="Move what has long expired into this new file.")
    ] = None,
    keep: Annotated[
        str, typer.Option("--keep", metavar="T", help="With --archive: keep what ended less than this ago.")
    ] = "30d",
) -> None:
    """Show the log of the cluster's CA, or check that nobody changed it, or cut off what has long expired.

    Examples:  [bold]daskpki audit --since 100[/bold]   [bold]daskpki audit --verify[/bold]

    [bold]daskpki audit --archive 2026.jsonl.gz[/bold]   [bold]daskpki audit --verify 2025.jsonl.gz 2026.jsonl.gz[/bold]

    What is archived is no longer listed, nor renewed; the log keeps its hashes, and goes on from there.

    Who did it is as claimed: on Secret Manager, Cloud Audit Logs are the authority. Exit code 3 when it does not hold.
    """
    invocation: Invocation = ctx.obj
    if (verify or archive) and (as_csv or since > 1):
        raise UsageError("--verify checks the whole log and shows none of it", hint="daskpki audit --verify")
    if archive is not None and (verify or archives):
        raise UsageError("--archive writes a new file, and checks the log first anyway", hint="leave the others out")
    if archives and not verify:
        raise UsageError("archives are read to check them with the log", hint="daskpki audit --verify FILE...")
    with invocation.authority() as authority:
        authority.active()
        if verify:
            _verify(invocation, authority.session, archives or ())
        elif archive is not None:
            _archive(invocation, authority.session, archive, keep)
        else:
            _show(invocation, authority.session, since, _COLUMNS if as_csv else None)


def _show(invocation: Invocation, session: Session, since: int, columns: tuple[str, ...] | None) -> None:
    from daskpki.authority.audit import describe_record, subject

    def rows(records: Iterator[Record]) -> Iterator[tuple[str, ...]]:
        for record in records:
            time = describe_record(record)["time"]
            yield str(record.seq), time, record.who, record.command, record.kind, subject(record)

    records = session.log.records(after=since - 1)
    documents: Iterator[dict[str, Any]] = map(describe_record, records)
    headings = ("seq", "time", "who", "command", "event", "about")
    lines = table_lines(headings, rows(records), empty=f"no records from number {since} on")
    print_listing(invocation.output, documents, lines, columns=columns)


def _archive(invocation: Invocation, session: Session, file: Path, keep: str) -> None:
    from daskpki.authority.archiving import archive
    from daskpki.pki.profile import parse_ttl

    cut = archive(session, file, keep=parse_ttl(keep))
    if cut is None:
        invocation.output.result({"file": None}, [f"nothing to archive: {_WHEN}"])
        return
    first, last = cut.begin.seq + 1, cut.end.seq
    document = {"file": str(file), "first": first, "last": last, "certificates": cut.certificates}
    invocation.output.result(
        document, [f"archived records {first} to {last}, {cut.certificates} certificates, in {file}"]
    )
    invocation.output.hint(f"keep it: with every archive, daskpki audit --verify {file} checks the log from its start")


def _verify(invocation: Invocation, session: Session, files: Sequence[Path]) -> None:
    from daskpki.authority.archive_file import read_archive
    from daskpki.authority.audit import verify_log

    audited = verify_log(session, map(read_archive, files))
    head, trust = audited.head, audited.trust
    begin = audited.begin.seq
    document = {
        "begin": begin,
        "archivedRecords": audited.archived,
        "records": head.seq,
        "head": head.hash,
        "certificates": audited.certificates,
        "trust": {"epoch": trust.epoch, "log": list(trust.log)},
    }
    lines = [
        f"{head.seq - begin + audited.archived} records follow from one another; the head is {head.hash}",
        f"the signed trust document (epoch {trust.epoch}) vouches for them up to number {trust.log[0]}",
        f"the inventory of {audited.certificates} certificates is what they say",
    ]
    if begin and not audited.archived:
        lines.append(f"the first {begin} records are in archives: daskpki audit --verify FILE... checks those, too")
    invocation.output.result(document, lines)


def report(
    ctx: typer.Context,
    html: Annotated[Path, typer.Option("--html", metavar="FILE", help="The page to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Draw what was issued: when it ends, who holds what, what was revoked and why, the CA's chain.

    Example:  [bold]daskpki report --html certificates.html[/bold]

    One page for any browser, which loads nothing else. It holds names and serials, and no keys.
    """
    from daskpki.authority.report import gather, page
    from daskpki.files import write_private

    invocation: Invocation = ctx.obj
    with invocation.authority() as authority:
        found = gather(authority.session)
    write_private(html, page(found).encode(), force=force)
    document = {"file": str(html), "certificates": found.states.total(), "states": dict(found.states)}
    invocation.output.result(document, [f"wrote {html}"])
