"""`daskpki context list|use|remove`: which logins there are, and which decides where several fit.

`daskpki login`, `logout` and `whoami`: a person's credential, from the store to the OS keyring.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daskpki.cli.invocation import Commands
from daskpki.cli.output import facts, table
from daskpki.errors import UsageError
from daskpki.identity import parse_label

if TYPE_CHECKING:
    from daskpki.cli.invocation import Invocation
    from daskpki.credentials.sources import Environment, Whoami

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


def surroundings(invocation: Invocation) -> Environment:
    """What a person's credential is looked for in: environment, clock, keyring, and the stores."""
    from daskpki.credentials.os_keyring import OSKeyring
    from daskpki.credentials.sources import Environment
    from daskpki.store.opening import open_store

    return Environment(
        os.environ, datetime.now(UTC), OSKeyring(), lambda url: open_store(url, unlock=invocation.unlocking())
    )


def login(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Option(metavar="N", help="Whose credential; default: your user name on this machine.")
    ] = None,
    scheduler: Annotated[
        list[str] | None, typer.Option(metavar="tls://HOST:PORT", help="An address that belongs to this cluster.")
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The certificate for a key of daskpki request [default: the store's]."),
    ] = None,
) -> None:
    """Copy a client's credential from the store into the OS keyring, so that Client("tls://...") works.

    Example:  [bold]daskpki login --name alice --scheduler tls://10.0.0.5:8786[/bold]

    The keyring gets the private key only; certificates are public and lie in a file that the keyring vouches for.
    """
    from daskpki.credentials.login import login as log_in

    invocation: Invocation = ctx.obj
    given = _certificate(certificate) if certificate else []
    label = parse_label(name, "name") if name is not None else _certified_name(given) or _own_name()
    here = surroundings(invocation)
    with invocation.open_store() as store:
        made = log_in(store, invocation.cluster, label, scheduler or (), here, certificate=given)
    context = made.saved.context
    document = {
        "identity": made.held.credential.identity.uri,
        "cluster": context.cluster,
        "schedulers": list(context.schedulers),
    }
    lines = [f"logged in as {document['identity']}"]
    invocation.output.result(document, lines)
    if made.overruled_by:
        invocation.output.warn(
            f"{made.overruled_by} sets a security-loader of its own, which wins: plain Client(...) does not use this "
            "login; Client(..., security=daskpki.security()) does"
        )
    address = context.schedulers[0] if context.schedulers else "tls://HOST:8786"
    invocation.output.hint(f"next: python -c 'from dask.distributed import Client; print(Client(\"{address}\"))'")


def _certificate(file: Path) -> list[bytes]:
    from daskpki.cli.list_show import read_file
    from daskpki.pki.pem import parse_certificates

    return parse_certificates(read_file(file))


def _certified_name(certificate: list[bytes]) -> str | None:
    """Whose the certificate is; whether it is to be trusted, the login says."""
    if not certificate:
        return None
    from daskpki.pki.certificates import certificate_identity, load_certificate

    return certificate_identity(load_certificate(certificate[0])).name


def _own_name() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise UsageError("this machine does not know your name", hint="daskpki login --name NAME") from None


def logout(
    ctx: typer.Context,
    which: Annotated[
        str | None, typer.Argument(metavar="[CLUSTER[/NAME]]", help="Which login; default: the one of --cluster.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every login of this user.")] = False,
) -> None:
    """Remove all that a login or a request wrote: keyring entries, public file, with the last login Dask's setting.

    Example:  [bold]daskpki logout default/alice[/bold]
    """
    from daskpki.credentials.csr import all_waiting
    from daskpki.credentials.login import leaving
    from daskpki.credentials.login import logout as log_out

    invocation: Invocation = ctx.obj
    here = surroundings(invocation)
    going = leaving(here, None if everything else which or invocation.cluster)
    log_out(here, *going)
    titles = [saved.context.title for saved in going.logins]
    keys = [waiting.title for waiting in going.waiting]
    lines = [f"logged out {title}" for title in titles] + [f"removed the waiting key of {title}" for title in keys]
    left = [waiting.title for waiting in all_waiting(here.contexts)]
    invocation.output.result({"removed": titles, "removedKeys": keys, "waiting": left}, lines or ["no logins"])
    if left:
        invocation.output.hint(f"keys of daskpki request still wait: {', '.join(left)}; daskpki logout removes them")


def whoami(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Option(metavar="N", help="As daskpki.security(NAME) would choose.")] = None,
) -> None:
    """Say which credential a program started here would use, and why; and which keys wait for a certificate.

    Example:  [bold]daskpki whoami[/bold]
    """
    from daskpki.credentials.csr import all_waiting
    from daskpki.credentials.source_selection import Wanted
    from daskpki.credentials.sources import whoami as find_out

    invocation: Invocation = ctx.obj
    here = surroundings(invocation)
    waiting = [known.title for known in all_waiting(here.contexts)]
    if waiting:
        invocation.output.hint(f"a key waits for its certificate: {', '.join(waiting)} (daskpki login, once signed)")
    found = find_out(Wanted(name=name, cluster=invocation.chosen_cluster), here)
    invocation.output.result(_document(found) | {"waiting": waiting}, _lines(found))


def _document(found: Whoami) -> dict[str, object]:
    return {
        "identity": found.identity,
        "cluster": found.cluster,
        "source": found.source.value,
        "why": found.why,
        "passedOver": list(found.passed_over),
        "serial": f"{found.serial:x}",
        "fingerprint": found.fingerprint,
        "notBefore": found.not_before.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "notAfter": found.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "trustEpoch": found.epoch,
    }


def _lines(found: Whoami) -> list[str]:
    return facts(
        {
            "identity": found.identity,
            "from": f"{found.source.value}, because {found.why}",
            "passed over": "; ".join(found.passed_over),
            "serial": f"{found.serial:x}",
            "valid until": found.not_after.strftime("%Y-%m-%d %H:%M UTC"),
        }
    )
