"""`daskpki renew` and `daskpki revoke`, and the push of a new trust document to the schedulers.

The push only saves time: the document is in the store by then, and nodes look there every minute. So errors of the push
are reported, and the command succeeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from daskpki.cli.invocation import Invocation, YesOption, complete_name
from daskpki.cli.issue import progress
from daskpki.cli.output import certificate_table, first_names
from daskpki.errors import DaskpkiError, NotFoundError, NothingToDo, UsageError
from daskpki.identity import Role
from daskpki.records import REVOKED, REVOKING

if TYPE_CHECKING:
    from daskpki.authority.ca import CertificateAuthority
    from daskpki.cluster.push import PushAnswer

IN_TIME: Final = "nodes fetch it within a minute"

ONE_POLL: Final = 75
"""Seconds in which every running node looks for a newer trust document: a minute, its jitter, and the answer."""


class Push(NamedTuple):
    """Options of commands that publish: whether to notify schedulers, and which (None: all that are known)."""

    push: Annotated[
        bool, typer.Option("--push/--no-push", help="Notify the schedulers at once, with your client credential.")
    ] = True
    scheduler: Annotated[
        list[str] | None,
        typer.Option(
            envvar="DASKPKI_SCHEDULER",
            metavar="ADDRESS",
            help="Scheduler to notify (default: those in your login and the trust document).",
        ),
    ] = None


def notify_schedulers(
    invocation: Invocation, authority: CertificateAuthority, push: Push, *, expected: bool = True
) -> None:
    """Push the newest trust document to the schedulers and report the answers; raises nothing.

    Without `expected`, a missing address or credential is not reported.
    """
    try:
        answers = _push(invocation, authority, push.scheduler) if push.push else []
    except DaskpkiError as error:
        if expected or not isinstance(error, NotFoundError):
            invocation.output.hint(f"{IN_TIME} (no scheduler was notified: {error})")
        return
    for answer in answers:
        _report(invocation, answer)
    if expected and not answers:
        invocation.output.hint(IN_TIME)


def _push(invocation: Invocation, authority: CertificateAuthority, given: Sequence[str] | None) -> list[PushAnswer]:
    from daskpki.credentials.contexts import parse_scheduler
    from daskpki.credentials.source_selection import Wanted
    from daskpki.credentials.sources import obtain

    found = obtain(Wanted(cluster=invocation.cluster), invocation.environment())
    head = authority.session.anchor.chain.head()
    assert head is not None, "published a moment ago"
    latest = head.payload
    known = dict.fromkeys((*found.schedulers, *latest.signed.document.schedulers))
    addresses = [parse_scheduler(address) for address in given or known]
    if not addresses:
        raise NotFoundError("no address is known, --scheduler tls://HOST:PORT gives one")
    from daskpki.cluster.push import push_trust  # distributed takes a quarter of a second

    return push_trust(addresses, found.verified, latest.data)


def _report(invocation: Invocation, answer: PushAnswer) -> None:
    if answer.epoch is not None:
        if answer.taken:
            outcome = f"updated to trust epoch {answer.epoch}; it forwards it to its workers"
        else:
            outcome = f"unchanged, since it has the later trust epoch {answer.epoch}"
        invocation.output.hint(f"{answer.address}: {outcome}")
    elif answer.refused:
        invocation.output.warn(f"{answer.address} refused the trust document: {answer.reason}")
    else:
        invocation.output.hint(f"{answer.address} was not notified ({answer.reason}); {IN_TIME}")


def renew(
    invocation: Invocation,
    which: Annotated[
        str | None,
        typer.Argument(metavar="ROLE/NAME", help="Renew this certificate now.", autocompletion=complete_name),
    ] = None,
    due: Annotated[
        bool, typer.Option("--due", help="Renew all certificates past two thirds of their life, or from a dropped CA.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the certificates that would be renewed, and change nothing.")
    ] = False,
    detailed_exit_code: Annotated[
        bool, typer.Option("--detailed-exit-code", help="Exit with 6 if nothing was due.")
    ] = False,
    push: Push = Push(),
) -> None:
    """Renew certificates: each gets a new key, and keeps its names and lifetime.

    Examples:  [bold]daskpki renew worker/worker[/bold]   [bold]daskpki renew --due --detailed-exit-code[/bold]

    Safe to run from cron, from two places at once, and after a crash. Expired certificates can be renewed. Also
    re-signs the revocation list when that is due, and notifies the schedulers.
    """
    if (which is None) == (not due):
        raise UsageError("renew takes either ROLE/NAME or --due", hint="daskpki renew --due")
    with invocation.authority() as authority:
        entries = [authority.find(which)] if which else authority.due()
        if which and entries[0].superseded:
            raise UsageError(f"{which} was superseded: its newest is {entries[0].slug}", hint="renew that one")
        if which and entries[0].status in (REVOKING, REVOKED):
            from daskpki.authority.revocation import HOLD

            again = f"revoke {entries[0].slug} --release" if entries[0].reason == HOLD else f"issue {entries[0].slug}"
            raise UsageError(f"{which} was revoked", hint=f"daskpki {again}")
        if not dry_run:
            before = authority.inventory().published
            with progress(invocation, len(entries), authority.renew(entries, give_way=due)) as renewed:
                entries = [leaf.record for leaf in renewed]
            if authority.inventory().published != before:
                notify_schedulers(invocation, authority, push, expected=False)
        documents = [authority.describe(entry) for entry in entries]
        now = authority.session.now()
    if dry_run and documents:
        invocation.output.hint("would renew:")
    invocation.output.result(documents, certificate_table(documents, now, empty="nothing is due"))
    if not documents and detailed_exit_code:
        raise NothingToDo("nothing is due")


def revoke(
    invocation: Invocation,
    which: Annotated[
        str,
        typer.Argument(
            metavar="SERIAL|ROLE/NAME",
            help="One certificate, or all valid ones of an identity.",
            autocompletion=complete_name,
        ),
    ],
    reason: Annotated[
        str, typer.Option(metavar="R", help="Reason of RFC 5280: keyCompromise, superseded, certificateHold, ...")
    ] = "unspecified",
    release: Annotated[
        bool, typer.Option("--release", help="Restore a certificate that was revoked by certificateHold.")
    ] = False,
    push: Push = Push(),
    yes: YesOption = False,
) -> None:
    """Revoke certificates, and publish the new revocation list to the cluster.

    Examples:  [bold]daskpki revoke client/alice --reason keyCompromise[/bold]   [bold]daskpki revoke 3f9a21c4[/bold]

    Running nodes refuse the certificate and close its connections within a minute, or at once if you are logged in as
    a client of the cluster.
    """
    with invocation.authority() as authority:
        if not release and invocation.output.asks(yes=yes):  # otherwise this saves a request to Secret Manager
            going = authority.revocable(which, reason)
            if len(going) > 1 or any(entry.role == Role.SCHEDULER for entry in going):  # without one, the cluster ends
                named = first_names([f"{entry.slug} {entry.serial:x}" for entry in going])
                count = "1 certificate" if len(going) == 1 else f"{len(going)} certificates"
                invocation.output.confirm(f"This revokes {count}: {named}. Go on?", yes=yes)
        changed = authority.release(which) if release else authority.revoke(which, reason)
        documents = [authority.describe(entry) for entry in changed]
        now = authority.session.now()
        nothing = f"nothing to revoke: {which} was revoked before, or has expired"
        invocation.output.result(documents, certificate_table(documents, now, empty=nothing))
        notify_schedulers(invocation, authority, push)
