"""`daskpki status` and `doctor`: the state of the cluster in five lines, or every problem with its reason and fix."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from daskpki.cli.invocation import Invocation
from daskpki.cli.output import colon_fingerprint, facts, first_names
from daskpki.quoting import day, remaining_seconds

if TYPE_CHECKING:
    from daskpki.authority.ca import CertificateAuthority
    from daskpki.doctor.checks import Finding

_PATIENCE: Final = 1.0
_MOST_ASKED: Final = 4


def status(invocation: Invocation) -> None:
    """Show the cluster in five lines: CA, next expiry, revocations, trust document, reachable schedulers.

    Example:  [bold]daskpki status[/bold]

    daskpki doctor checks everything, and suggests fixes.
    """
    with invocation.authority() as authority:
        problems = {address: _problem(address, authority) for address in _known_schedulers(authority)[:_MOST_ASKED]}
        document = _document(authority) | {"schedulers": {address: not why for address, why in problems.items()}}
        now = authority.session.now().timestamp()
    invocation.output.result(document, _lines(document, problems, now))


def _known_schedulers(authority: CertificateAuthority) -> list[str]:
    """The addresses in the trust document, and those of this user's logins to the cluster."""
    from daskpki.credentials.contexts import Contexts
    from daskpki.settings import home

    session = authority.session
    place = (session.store.url, session.cluster)
    logins = [saved.context for saved in Contexts(home(os.environ)).all()]
    own = [address for login in logins if (login.store, login.cluster) == place for address in login.schedulers]
    return list(dict.fromkeys([*authority.trust().schedulers, *own]))


def _problem(address: str, authority: CertificateAuthority) -> str | None:
    """Return why no scheduler of this cluster answers at `address`, by the doctor's checks; None if one does."""
    from daskpki.credentials.contexts import split_scheduler
    from daskpki.doctor.scheduler import check_certificate, dial, stranger

    dialled = dial(*split_scheduler(address), stranger(), _PATIENCE)
    if not dialled.reachable:
        return "does not answer"
    (found,) = check_certificate(address, dialled, authority.trust(), authority.session.now())
    return f"answers, but {found.reason}" if found.severity == "error" else None


def _document(authority: CertificateAuthority) -> dict[str, Any]:
    from daskpki.authority.renewal import issuing_ends, renewable
    from daskpki.pki.crl import next_update
    from daskpki.pki.pem import fingerprint

    active, trust = authority.active(), authority.trust()
    inventory, now = authority.inventory(), authority.session.now().timestamp()
    living = sorted(
        (entry for entry in renewable(inventory) if entry.not_after >= now), key=lambda entry: entry.not_after
    )
    revoked = [entry for entry in inventory.certificates(statuses=["revoked", "revoking"]) if entry.not_after >= now]
    return {
        "cluster": authority.session.cluster,
        "store": authority.session.store.url,
        "ca": {
            "generation": active.generation,
            "fingerprint": fingerprint(active.anchor_der),
            "validUntil": issuing_ends(inventory)[active.generation],
        },
        "next": [{"who": entry.slug, "validUntil": entry.not_after} for entry in living[:1]],
        "due": len(authority.due()),
        "revoked": sorted({entry.slug for entry in revoked}),
        "trust": {"epoch": trust.epoch, "crlUntil": next_update(trust)},
    }


def _lines(document: dict[str, Any], problems: dict[str, str | None], now: float) -> list[str]:
    ca, trust = document["ca"], document["trust"]
    ends = [f"{entry['who']} {remaining_seconds(int(entry['validUntil'] - now))}" for entry in document["next"]]
    due = f"; due for renewal: {document['due']} (daskpki renew --due)" if document["due"] else ""
    until = f"revocation list until {day(trust['crlUntil'])}"
    reached = [f"{address} {why or 'answers'}" for address, why in problems.items()]
    return facts(
        {
            "CA": f"generation {ca['generation']} of {document['cluster']}, valid until {day(ca['validUntil'])}, "
            f"SHA-256 {colon_fingerprint(ca['fingerprint'])}",
            "expires next": (ends[0] if ends else "nothing is issued") + due,
            "revoked": first_names(document["revoked"]) or "nobody",
            "trust": f"epoch {trust['epoch']}, {until}",
            "scheduler": "; ".join(reached) or "no address is known (daskpki login --scheduler, or deploy gcp)",
        }
    )


def doctor(
    invocation: Invocation,
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

    address = parse_scheduler(scheduler) if scheduler else None
    repeat = invocation.output.repeat
    is_store_given = invocation.given.store is not None
    examination = Examination(invocation.authority, this_process(), address, is_store_given=is_store_given)
    findings = [finding._replace(remedy=finding.remedy and repeat(finding.remedy)) for finding in examination.run()]
    shown = [finding for finding in findings if not invocation.output.quiet or finding.severity in ("warning", "error")]
    invocation.output.result([finding.document() for finding in shown], _finding_lines(gist(shown)))
    raise typer.Exit(exit_code(findings))


def _finding_lines(findings: Sequence[Finding]) -> list[str]:
    """Show each finding: severity, subject and reason in columns, the remedy on a line below, for copying."""
    width = max((len(finding.subject) for finding in findings), default=0)
    lines = []
    for severity, subject, reason, remedy, *_ in findings:
        lines.append(f"{severity.value:<7}  {subject:<{width}}  {reason}")
        lines += [f"{'':9}→ {remedy}"] if remedy else []
    return lines
