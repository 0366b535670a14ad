"""`daskpki audit` and `report`: the log of the CA, shown or verified, and the inventory as a page for people."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from daskpki.cli.invocation import Invocation
from daskpki.cli.output import print_listing, table
from daskpki.errors import UsageError
from daskpki.quoting import rfc3339

if TYPE_CHECKING:
    from daskpki.authority.session import Session
    from daskpki.records import Record

_BASIS: Final = {
    "pin": "trusted by the pin (--ca-sha256)",
    "seen": "trusted, because this user has seen it before",
    "first use": "trusted without a check, at its first use here: compare its SHA-256 (daskpki rotate-ca status)",
}
_COLUMNS: Final = ("seq", "time", "who", "command", "operation", "event", "body", "hash")


def audit(
    invocation: Invocation,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Verify the log, the signed trust document and the inventory against each other."
        ),
    ] = False,
    since: Annotated[int, typer.Option(metavar="SEQ", min=1, help="Show the records from this number on.")] = 1,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a heading.")] = False,
) -> None:
    """Show the log of the cluster's CA, or verify that nobody changed it.

    Examples:  [bold]daskpki audit --since 100[/bold]   [bold]daskpki audit --verify[/bold]

    Changes of other secrets (secret-added and the like) are in a second log, shown at the end as events/1 and so on.

    The author of a record is as claimed: on Secret Manager, Cloud Audit Logs are the authority. Exits 3 if verification
    fails.
    """
    if verify and (as_csv or since > 1):
        raise UsageError("--verify checks the whole log and shows none of it", hint="daskpki audit --verify")
    with invocation.authority() as authority:
        authority.active()
        if verify:
            _verify(invocation, authority.session)
        else:
            _show(invocation, authority.session, since, _COLUMNS if as_csv else None)


def _show(invocation: Invocation, session: Session, since: int, columns: tuple[str, ...] | None) -> None:
    from daskpki.authority.audit import describe_record, subject

    def rows(records: Iterator[Record], log: str = "") -> Iterator[tuple[str, ...]]:
        for record in records:
            yield f"{log}{record.seq}", rfc3339(record.time), record.who, record.command, record.kind, subject(record)

    records, events = session.log.records(after=since - 1), session.store.events(session.cluster).records()
    documents: Iterator[dict[str, Any]] = map(describe_record, chain(records, events))
    headings = ("seq", "time", "who", "command", "event", "about")
    lines = table(headings, chain(rows(records), rows(events, "events/")), empty=f"no records from number {since} on")
    print_listing(invocation.output, documents, lines, columns=columns)


def _verify(invocation: Invocation, session: Session) -> None:
    from daskpki.authority.audit import verify_log

    audited = verify_log(session)
    head, trust = audited.head, audited.trust
    document = {
        "records": head.seq,
        "head": head.hash,
        "certificates": audited.certificates,
        "trust": {"epoch": trust.epoch, "log": list(trust.log), "by": audited.basis},
    }
    lines = [
        f"{head.seq} records follow from one another; the head is {head.hash}",
        f"the signed trust document (epoch {trust.epoch}) confirms them up to number {trust.log[0]}",
        f"its CA is {_BASIS[audited.basis]}",
        f"records after that, all in commits that the CA signed: {head.seq - trust.log[0]}",
        f"the inventory matches them; certificates: {audited.certificates}",
    ]
    invocation.output.result(document, lines)


def report(
    invocation: Invocation,
    html: Annotated[Path, typer.Option("--html", metavar="FILE", help="Page to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a page with all certificates: owners and expiry, revocations with reasons, and the CA's chain.

    Example:  [bold]daskpki report --html certificates.html[/bold]

    One page for any browser, which loads nothing else. It contains names and serials, and no keys.
    """
    from daskpki.authority.report import gather, render_page
    from daskpki.files import write_private

    with invocation.authority() as authority:
        found = gather(authority.session)
    write_private(html, render_page(found).encode(), force=force)
    document = {"file": str(html), "certificates": found.states.total(), "states": dict(found.states)}
    invocation.output.result(document, [f"wrote {html}"])
