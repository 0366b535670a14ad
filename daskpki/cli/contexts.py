"""`daskpki context list|use|remove`: which logins there are, and which decides where several fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from daskpki.cli.coercion import Commands
from daskpki.cli.output import table
from daskpki.cli.people import surroundings

if TYPE_CHECKING:
    from daskpki.cli.invocation import Invocation

context = Commands(no_args_is_help=True, help="The logins of this user: list, choose, remove.")

Which = Annotated[str, typer.Argument(metavar="CLUSTER[/NAME]", help="A login, also by its id.")]


@context.command("list")
def list_(ctx: typer.Context) -> None:
    """List the logins, their clusters and addresses; a star marks the one that decides where several fit.

    Example:  [bold]daskpki context list[/bold]
    """
    invocation: Invocation = ctx.obj
    contexts = surroundings(invocation).contexts
    preferred = contexts.preferred()
    documents = [
        {
            "id": saved.id,
            "cluster": saved.context.cluster,
            "name": saved.context.name,
            "store": saved.context.store,
            "schedulers": list(saved.context.schedulers),
            "preferred": saved.id == preferred,
        }
        for saved in contexts.all()
    ]
    rows = [
        (
            "*" if entry["preferred"] else " ",
            f"{entry['cluster']}/{entry['name']}",
            str(entry["store"]),
            ", ".join(saved.context.schedulers) or "any",
            saved.id,
        )
        for entry, saved in zip(documents, contexts.all(), strict=True)
    ]
    lines = table(("", "login", "store", "schedulers", "id"), rows) if rows else ["no logins"]
    invocation.output.result(documents, lines)


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
