"""`daskpki doctor`: reports problems with their reasons, and the commands that fix them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from daskpki.cli.invocation import Invocation
    from daskpki.doctor.checks import Finding


def doctor(
    ctx: typer.Context,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Also check this scheduler from outside: tls://HOST:PORT."),
    ] = None,
) -> None:
    """Check the store, the CA and its certificates, this machine and a scheduler, and suggest fixes.

    Examples:  [bold]daskpki doctor[/bold]   [bold]daskpki doctor --scheduler tls://10.0.0.5:8786[/bold]

    It changes nothing. Exits 0 if nothing is worse than a warning, 3 for errors, 75 if all errors are temporary. With
    --quiet, only warnings and errors are shown.
    """
    from daskpki.credentials.contexts import parse_scheduler
    from daskpki.credentials.sources import this_process
    from daskpki.doctor.checks import exit_code, gist
    from daskpki.doctor.run import Examination

    invocation: Invocation = ctx.obj
    address = parse_scheduler(scheduler) if scheduler else None
    repeat = invocation.output.repeat
    findings = [
        finding._replace(remedy=finding.remedy and repeat(finding.remedy))
        for finding in Examination(invocation.authority, this_process(), address).run()
    ]
    shown = [finding for finding in findings if not invocation.output.quiet or finding.severity in ("warning", "error")]
    invocation.output.result([finding.document() for finding in shown], _lines(gist(shown)))
    raise typer.Exit(exit_code(findings))


def _lines(findings: Sequence[Finding]) -> list[str]:
    """Severity and subject in columns, then the reason; the remedy below it, where it can be copied."""
    width = max((len(finding.subject) for finding in findings), default=0)
    lines = []
    for severity, subject, reason, remedy, *_ in findings:
        lines.append(f"{severity.value:<7}  {subject:<{width}}  {reason}")
        lines += [f"{'':9}→ {remedy}"] if remedy else []
    return lines
