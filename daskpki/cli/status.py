"""`daskpki status`: the state of the cluster in five lines."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import typer

from daskpki.cli.output import facts, fingerprint_lines, first_names
from daskpki.quoting import day, remaining_seconds

if TYPE_CHECKING:
    from daskpki.authority.ca import CertificateAuthority
    from daskpki.cli.invocation import Invocation

_PATIENCE: Final = 1.0
_MOST_ASKED: Final = 4


def status(ctx: typer.Context) -> None:
    """Show the cluster in five lines: CA, next expiry, revocations, trust document, reachable schedulers.

    Example:  [bold]daskpki status[/bold]

    daskpki doctor checks everything, and suggests fixes.
    """
    invocation: Invocation = ctx.obj
    with invocation.authority() as authority:
        document = _document(authority, _known_schedulers(authority))
        now = authority.session.now().timestamp()
    invocation.output.result(document, _lines(document, now))


def _known_schedulers(authority: CertificateAuthority) -> list[str]:
    """The addresses in the trust document, and those of this user's logins to the cluster."""
    from daskpki.credentials.contexts import Contexts
    from daskpki.settings import home

    session = authority.session
    place = (session.store.url, session.cluster)
    logins = [saved.context for saved in Contexts(home(os.environ)).all()]
    own = [address for login in logins if (login.store, login.cluster) == place for address in login.schedulers]
    return list(dict.fromkeys([*authority.trust().schedulers, *own]))


def _document(authority: CertificateAuthority, schedulers: Sequence[str]) -> dict[str, Any]:
    from daskpki.authority.lookup import anchor_der
    from daskpki.authority.renewal import issuing_ends, renewable
    from daskpki.pki.pem import fingerprint
    from daskpki.pki.revoked import next_update

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
            "fingerprint": fingerprint(anchor_der(active)),
            "validUntil": issuing_ends(inventory)[active.generation],
        },
        "next": [{"who": entry.slug, "validUntil": entry.not_after} for entry in living[:1]],
        "due": len(authority.due()),
        "revoked": sorted({entry.slug for entry in revoked}),
        "trust": {"epoch": trust.epoch, "crlUntil": next_update(trust)},
        "schedulers": {address: _answers(address) for address in schedulers[:_MOST_ASKED]},
    }


def _answers(address: str) -> bool:
    """True if a server listens there; the doctor checks its identity."""
    from daskpki.credentials.contexts import split_scheduler

    try:
        socket.create_connection(split_scheduler(address), timeout=_PATIENCE).close()
    except OSError:
        return False
    return True


def _lines(document: dict[str, Any], now: float) -> list[str]:
    ca, trust = document["ca"], document["trust"]
    ends = [f"{entry['who']} {remaining_seconds(int(entry['validUntil'] - now))}" for entry in document["next"]]
    due = f"; due for renewal: {document['due']} (daskpki renew --due)" if document["due"] else ""
    until = f"revocation list until {day(trust['crlUntil'])}"
    reached = [f"{address} {'answers' if up else 'does not answer'}" for address, up in document["schedulers"].items()]
    return facts(
        {
            "CA": f"generation {ca['generation']} of {document['cluster']}, valid until {day(ca['validUntil'])}, "
            f"SHA-256 {fingerprint_lines(ca['fingerprint'])}",
            "ends next": (ends[0] if ends else "nothing is issued") + due,
            "revoked": first_names(document["revoked"]) or "nobody",
            "trust": f"epoch {trust['epoch']}, {until}",
            "scheduler": "; ".join(reached) or "no address is known (daskpki login --scheduler, or deploy gcp)",
        }
    )
