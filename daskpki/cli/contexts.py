"""`daskpki context list|use|remove`: which logins there are, and which decides where several fit."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from daskpki.cli.coercion import Commands
from daskpki.cli.completion import complete_login
from daskpki.cli.output import table
from daskpki.cli.people import surroundings
from daskpki.credentials.expiry import remaining_seconds

if TYPE_CHECKING:
    from daskpki.cli.invocation import Invocation
    from daskpki.credentials.contexts import Context
    from daskpki.credentials.expiry import Ending

context = Commands(no_args_is_help=True, help="The logins of this user: list, choose, remove.")

Which = Annotated[
    str, typer.Argument(metavar="CLUSTER[/NAME]", help="A login, also by its id.", autocompletion=complete_login)
]


@context.command("list")
def list_(ctx: typer.Context) -> None:
    """List the logins, their clusters and addresses; a star marks the active one, which decides where several fit.

    Example:  [bold]daskpki context list[/bold]
    """
    invocation: Invocation = ctx.obj
    here = surroundings(invocation)
    contexts, active = here.contexts, here.contexts.active()
    preferred = contexts.preferred()
    ends = {saved.id: _ending(saved.context, here.now) for saved in contexts.all()}
    documents = [
        {
            "id": saved.id,
            "cluster": saved.context.cluster,
            "name": saved.context.name,
            "store": saved.context.store,
            "schedulers": list(saved.context.schedulers),
            "preferred": saved.id == preferred,
            "active": saved == active,
            "validUntil": f"{ends[saved.id].at:%Y-%m-%dT%H:%M:%SZ}",
        }
        for saved in contexts.all()
    ]
    rows = [
        (
            "*" if entry["active"] else " ",
            f"{entry['cluster']}/{entry['name']}",
            remaining_seconds(int((ends[saved.id].at - here.now).total_seconds())),
            str(entry["store"]),
            ", ".join(saved.context.schedulers) or "any",
            saved.id,
        )
        for entry, saved in zip(documents, contexts.all(), strict=True)
    ]
    lines = table(("", "login", "ends", "store", "schedulers", "id"), rows) if rows else ["no logins"]
    invocation.output.result(documents, lines)


def _ending(login: Context, now: datetime) -> Ending:
    from daskpki.confidential import Confidential
    from daskpki.credentials.expiry import ending
    from daskpki.pki.trust import parse_trust

    return ending(login.leaf, parse_trust(Confidential(login.trust)).document, now)


@context.command("use")
def use(ctx: typer.Context, which: Which) -> None:
    """Let this login decide where several fit.

    Example:  [bold]daskpki context use prod/alice[/bold]
    """
    invocation: Invocation = ctx.obj
    contexts = surroundings(invocation).contexts
    chosen = contexts.find(which)
    contexts.prefer(chosen)
    invocation.output.result({"preferred": chosen.id}, [f"{chosen.context.title} decides where several fit"])


@context.command("remove")
def remove(ctx: typer.Context, which: Which) -> None:
    """Remove a login, as `daskpki logout` does.

    Example:  [bold]daskpki context remove prod/alice[/bold]
    """
    from daskpki.credentials.login import leaving, logout

    invocation: Invocation = ctx.obj
    here = surroundings(invocation)
    chosen = here.contexts.find(which)
    logout(here, *leaving(here, chosen.id))
    invocation.output.result({"removed": [chosen.context.title]}, [f"removed {chosen.context.title}"])
