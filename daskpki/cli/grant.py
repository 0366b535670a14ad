"""`daskpki grant`: shows, gives, takes and checks read access to the cluster's secrets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from daskpki.cli.invocation import Invocation
from daskpki.cli.output import table
from daskpki.errors import UsageError

if TYPE_CHECKING:
    from daskpki.grants import GrantFinding, Grants, GrantTarget


def grant(
    invocation: Invocation,
    what: Annotated[
        str | None,
        typer.Argument(metavar="ROLE[/NAME]", help="Credential; or secret/NAME, trust, records, cakey/GEN."),
    ] = None,
    to: Annotated[
        list[str] | None, typer.Option(metavar="MEMBER", help="Member, such as serviceAccount:MAIL or user:MAIL.")
    ] = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Withdraw the grant instead.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Check all grants; exits 3 if one is too wide, 1 if one is too narrow.")
    ] = False,
) -> None:
    """Show which accounts may read which secrets, grant that access, or withdraw it.

    Examples:  [bold]daskpki grant worker --to serviceAccount:w@PROJECT.iam.gserviceaccount.com[/bold]

    [bold]daskpki grant client/alice --to user:alice@example.com[/bold]   [bold]daskpki grant --check[/bold]
    """
    from daskpki.grants import parse_grant_target, parse_member

    target = None if what is None else parse_grant_target(what, invocation.cluster)
    members = [parse_member(member, revoke=revoke) for member in to or ()]
    if check:
        if what or members or revoke:
            raise UsageError("--check looks at all grants of the cluster", hint="daskpki grant --check")
        _check(invocation)
    elif members and target is not None:
        _change(invocation, target, members, revoke=revoke)
    elif members or revoke:
        raise UsageError("a grant needs a secret and a member", hint="daskpki grant worker --to MEMBER")
    else:
        _show(invocation, target)


@contextmanager
def _opened(invocation: Invocation) -> Iterator[Grants]:
    """The grants of the cluster; UsageError for a local store, whether or not it exists."""
    from daskpki.grants import Grants, check_applies
    from daskpki.store.gsm.store import GsmStore

    check_applies(invocation.url)
    with invocation.open_store() as store:
        assert isinstance(store, GsmStore), "a store of such a URL is one"
        yield Grants(store, invocation.cluster)


def _change(invocation: Invocation, target: GrantTarget, members: Sequence[str], *, revoke: bool) -> None:
    with _opened(invocation) as grants:
        act = grants.take if revoke else grants.give
        done = {member: act(target, member) for member in members}
    document = {
        member: [{"secret": secret, "changed": changed} for secret, changed in changes.items()]
        for member, changes in done.items()
    }
    lines = [_line(member, *change, revoke=revoke) for member, changes in done.items() for change in changes.items()]
    invocation.output.result(document, lines)
    invocation.output.hint("a change takes effect after about two minutes, sometimes seven or more")


def _line(member: str, secret: str, changed: bool, *, revoke: bool) -> str:
    verb = ("no longer reads" if revoke else "now reads") if changed else ("did not read" if revoke else "reads")
    return f"{member} {verb} {secret}"


def _show(invocation: Invocation, target: GrantTarget | None) -> None:
    with _opened(invocation) as grants:
        secrets = grants.of(target)
    rows = [(one.slug, bound.member, bound.role, bound.condition or "") for one in secrets for bound in one.bindings]
    lines = table(("secret", "member", "role", "condition"), rows, empty="no grants")
    documents = [
        {"secret": one.id, "kind": one.kind, "name": one.name or None, "bindings": [b._asdict() for b in one.bindings]}
        for one in secrets
    ]
    invocation.output.result(documents, lines)


def _check(invocation: Invocation) -> None:
    from daskpki.grants import TOO_WIDE, UNCLEAR, UNSEEN

    with _opened(invocation) as grants:
        findings = grants.check()
    document = {"findings": [finding._asdict() for finding in findings], "unseen": UNSEEN}
    invocation.output.result(document, [*map(_finding, findings)] or ["every grant is as it should be"])
    invocation.output.hint(f"not seen: {UNSEEN}")
    severities = {finding.severity for finding in findings}
    if severities - {UNCLEAR}:
        raise typer.Exit(3 if TOO_WIDE in severities else 1)


def _finding(finding: GrantFinding) -> str:
    whom = f" to {finding.member}" if finding.member else ""
    mend = f"\n    {finding.mend}" if finding.mend else ""
    return f"{finding.severity}: {finding.secret}{whom}: {finding.reason}{mend}"
