"""`daskpki login`, `logout`, `whoami`, `context`: a person's credential on this machine."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daskpki.cli.invocation import Commands, Invocation, parse_client
from daskpki.cli.output import ask, colon_fingerprint, facts, is_terminal, table
from daskpki.errors import AccessDeniedError, DaskpkiError, NotFoundError, UsageError
from daskpki.quoting import minute, remaining_seconds, rfc3339
from daskpki.settings import home

if TYPE_CHECKING:
    from daskpki.credentials.contexts import Saved
    from daskpki.credentials.login import LoggedIn
    from daskpki.credentials.sources import Environment

context = Commands(no_args_is_help=True, help="List, choose and remove your logins.")


def complete_login(incomplete: str) -> list[str]:
    """The logins CLUSTER/NAME of this user, from their public files."""
    from daskpki.credentials.contexts import Contexts

    with suppress(DaskpkiError):
        titles = [saved.context.title for saved in Contexts(home(os.environ)).all()]
        return [title for title in titles if title.startswith(incomplete)]
    return []


Which = Annotated[
    str, typer.Argument(metavar="CLUSTER[/NAME]", help="Login, or its id.", autocompletion=complete_login)
]


@context.command("list")
def list_(invocation: Invocation) -> None:
    """List the logins with their clusters and addresses; a star marks the one used if several match.

    Example:  [bold]daskpki context list[/bold]
    """
    from daskpki.credentials.sources import ending

    here = invocation.environment()
    active, preferred = here.contexts.active(), here.contexts.preferred()
    documents, rows = [], []
    for saved in here.contexts.all():
        login = saved.context
        end = ending(login.leaf, login.document, here.now).at
        identity = {"id": saved.id, "cluster": login.cluster, "name": login.name, "store": login.store}
        use = {"preferred": saved.id == preferred, "active": saved == active, "validUntil": rfc3339(end)}
        documents.append(identity | {"schedulers": list(login.schedulers)} | use)
        left = remaining_seconds(int((end - here.now).total_seconds()))
        star, schedulers = "*" if saved == active else " ", ", ".join(login.schedulers) or "any"
        rows.append((star, login.title, left, login.store, schedulers, saved.id))
    lines = table(("", "login", "expires", "store", "schedulers", "id"), rows, empty="no logins")
    invocation.output.result(documents, lines)


@context.command("use")
def use(invocation: Invocation, which: Which) -> None:
    """Use this login if several match.

    Example:  [bold]daskpki context use prod/alice[/bold]
    """
    contexts = invocation.environment().contexts
    chosen = contexts.find(which)
    contexts.prefer(chosen)
    invocation.output.result({"preferred": chosen.id}, [f"{chosen.context.title} is used where several logins match"])


@context.command("remove")
def remove(invocation: Invocation, which: Which) -> None:
    """Remove a login, as `daskpki logout` does.

    Example:  [bold]daskpki context remove prod/alice[/bold]
    """
    logout(invocation, which)


@contextmanager
def keyring_remedy(remedy: str) -> Iterator[None]:
    """Give an error about an unusable keyring the hint for this situation."""
    from daskpki.credentials.os_keyring import WAYS_OUT

    try:
        yield
    except AccessDeniedError as error:
        if error.hint != WAYS_OUT:
            raise
        raise AccessDeniedError(str(error), hint=remedy) from None


def login(
    invocation: Invocation,
    who: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME|FILE",
            help="alice or client/alice, from the store; or a login file that sign wrote: NAME.login, or a path.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="N", help="Same as NAME.")] = None,
    scheduler: Annotated[
        list[str] | None, typer.Option(metavar="tls://HOST:PORT", help="Address of this cluster's scheduler.")
    ] = None,
    user_config: Annotated[
        bool,
        typer.Option(
            "--user-config", help="Where Dask does not read daskpki's own file, set its loader in ~/.config/dask."
        ),
    ] = False,
) -> None:
    """Copy a client's credential into the OS keyring, so that Client("tls://...") works.

    Examples:  [bold]daskpki login alice --scheduler tls://10.0.0.5:8786[/bold]   [bold]daskpki login dora.login[/bold]

    Without a name, the active login is renewed; a first login takes your user name on this machine. The keyring gets
    the private key only; certificates are public, in a file whose hash is in the keyring.
    """
    from daskpki.credentials.contexts import is_login_file, load_login_file
    from daskpki.credentials.login import knows_ca, login_by_file
    from daskpki.pki.pem import parse_fingerprint

    here = invocation.environment()
    if who is not None and is_login_file(who):
        if name is not None:
            raise UsageError(
                f"--name {name} and the login file {who}: the file names its owner", hint="leave --name out"
            )
        file = load_login_file(Path(who))
        invocation.output.hint(
            f"{Path(who)} is for {file.credential(None).identity.uri}, issued by the CA of cluster {file.cluster!r}:",
            f"  SHA-256  {colon_fingerprint(file.ca_sha256)}",
        )
        pin = None
        if not invocation.output.as_json and is_terminal() and not knows_ca(file, here):
            told = ask("The CA's SHA-256, as the operator told you by another way: ")
            pin = parse_fingerprint(told) if told else None
        with keyring_remedy("unlock the keyring of your desktop session: it has the key to which this file belongs"):
            made = login_by_file(file, scheduler or (), here, ca_sha256=pin, user_config=user_config)
    else:
        label = parse_client(who, name)
        made = _login_from_store(invocation, here, label, scheduler or (), user_config=user_config)
    context = made.saved.context
    document = {
        "identity": made.verified.credential.identity.uri,
        "cluster": context.cluster,
        "schedulers": list(context.schedulers),
    }
    invocation.output.result(document, [f"logged in as {document['identity']}"])
    _report_dask_config(invocation, made, here, user_config=user_config)
    address = context.schedulers[0] if context.schedulers else "tls://HOST:8786"
    invocation.output.hint(f"next: python -c 'from dask.distributed import Client; print(Client(\"{address}\"))'")


def _login_from_store(
    invocation: Invocation, here: Environment, label: str | None, schedulers: Sequence[str], *, user_config: bool
) -> LoggedIn:
    """Log in by the store of `--store`; without a name, renew the active login by the store that it came from."""
    from daskpki.credentials.login import login as log_in

    active = None if label else _renewed(invocation, here)
    cluster = active.context.cluster if active else invocation.cluster
    own = active.context.name if active else label or _own_name()
    try:
        opened = invocation.open_store(url=active.context.store if active else None)
    except NotFoundError as error:  # a person who logs in does not want a new store
        how = f"daskpki request client/{own} --out {own}.csr"
        hint = f"--store says where the cluster's store is; if you cannot read it: {how}"
        raise NotFoundError(str(error), hint=hint) from None
    directory = shlex.quote(str(Path.home() / f"daskpki-{own}"))
    instead = f"daskpki export client/{own} --out {directory} && export DASKPKI_CREDENTIAL_DIR={directory}"
    with opened as store, keyring_remedy(instead):
        return log_in(store, cluster, own, schedulers, here, user_config=user_config)


def _renewed(invocation: Invocation, here: Environment) -> Saved | None:
    """The active login of `--store` and `--cluster`, as far as these are given; None if there is no login yet."""
    from daskpki.credentials.contexts import LOGIN_FILE
    from daskpki.credentials.sources import renewal_of_login

    found = here.contexts.all()
    if invocation.given.cluster is not None:
        found = [saved for saved in found if saved.context.cluster == invocation.cluster]
    if invocation.given.store is not None:
        found = [saved for saved in found if saved.context.store == invocation.store_name]
    if not found:
        return None
    active = here.contexts.only(found, "this renewal")
    if active.context.store == LOGIN_FILE:
        hint = renewal_of_login(active.context, is_active=True)
        raise UsageError(f"the login {active.context.title} came by a login file", hint=hint)
    return active


def _report_dask_config(invocation: Invocation, made: LoggedIn, here: Environment, *, user_config: bool) -> None:
    """Report in which environments plain `Client(...)` asks daskpki, and which login is active."""
    from daskpki.credentials.dask_config import config_file, tool_environment

    dask, output = made.dask, invocation.output
    if tool := tool_environment():
        output.hint(
            f"these commands are in a separate environment ({tool}): install daskpki where Client runs, too "
            "(pip install 'daskpki[cli]')"
        )
    elif user_config and dask.shipped:
        output.hint(f"nothing was written to {config_file(here.environ).parent}: Dask reads {dask.shipped} here")
    elif user_config:
        output.hint(
            f"{config_file(here.environ)} lets every Python environment of this home directory ask daskpki; in one "
            "without daskpki, every Client(...) fails until it is installed there or daskpki logout removes the file"
        )
    if dask.overruled_by:
        output.warn(
            f"{dask.overruled_by} sets another security-loader, which wins: plain Client(...) does not use this "
            "login; Client(..., security=daskpki.security()) does"
        )
    elif not dask.asks_daskpki:
        output.warn(loader_missing())
    others = here.contexts.all()
    if len(others) > 1 and (active := here.contexts.active()) != made.saved:
        title = made.saved.context.title
        used = f"{active.context.title} is still used" if active else "the scheduler's address decides"
        output.hint(f"{used} if several logins match; daskpki context use {title} switches to this one")


def loader_missing() -> str:
    """Explain why plain `Client(...)` does not ask daskpki in this environment, and the remedy."""
    from daskpki.credentials.dask_config import explain_unread

    return (
        f"plain Client(...) does not ask daskpki here. {explain_unread()}. "
        "daskpki login --user-config sets it for every environment of this home directory; "
        "daskpki.connect() and Client(..., security=daskpki.security()) work without"
    )


def _own_name() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise UsageError("this machine does not know your name", hint="daskpki login NAME") from None


def logout(
    invocation: Invocation,
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="CLUSTER[/NAME]",
            help="Login to remove (default: the one of --cluster).",
            autocompletion=complete_login,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove every login of this user.")] = False,
) -> None:
    """Remove a login or a request: keyring entries, public file and, with the last login, Dask's setting.

    Example:  [bold]daskpki logout default/alice[/bold]
    """
    from daskpki.credentials.csr import all_waiting
    from daskpki.credentials.login import logout as log_out
    from daskpki.credentials.login import logout_targets

    here = invocation.environment()
    logins, keys = logout_targets(here, None if everything else which or invocation.cluster)
    with keyring_remedy("unlock the keyring of your desktop session, which has the key, and run this again"):
        log_out(here, logins, keys)
    titles = [saved.context.title for saved in logins]
    waiting = [key.title for key in keys]
    lines = [f"logged out {title}" for title in titles] + [f"removed the waiting key of {title}" for title in waiting]
    left = [key.title for key in all_waiting(here.contexts)]
    invocation.output.result({"removed": titles, "removedKeys": waiting, "waiting": left}, lines or ["no logins"])
    if left:
        invocation.output.hint(
            f"keys of daskpki request still wait for a certificate: {', '.join(left)}; daskpki logout removes them"
        )


def whoami(
    invocation: Invocation,
    name: Annotated[
        str | None, typer.Option(metavar="N", help="Name that daskpki.security(NAME) would be given.")
    ] = None,
) -> None:
    """Show the credential that a program started here would use, and why; and keys that wait for a certificate.

    Example:  [bold]daskpki whoami[/bold]
    """
    from daskpki.credentials.csr import all_waiting
    from daskpki.credentials.dask_config import read_own_config
    from daskpki.credentials.source_selection import Wanted
    from daskpki.credentials.sources import ending, obtain, renewal
    from daskpki.pki.certificates import load_certificate
    from daskpki.pki.pem import fingerprint

    here = invocation.environment()
    waiting = [known.title for known in all_waiting(here.contexts)]
    if waiting:
        invocation.output.hint(f"a key waits for its certificate: {', '.join(waiting)} (daskpki login, once signed)")
    wanted = Wanted(name=name, cluster=invocation.given.cluster)
    obtained = obtain(wanted, here)
    (credential, trust, _), choice = obtained.verified, obtained.choice
    leaf = load_certificate(credential.leaf)
    end, command = ending(credential.leaf, trust, here.now), renewal(obtained, wanted, here)
    document = {
        "identity": credential.identity.uri,
        "cluster": credential.cluster,
        "source": choice.source.value,
        "why": choice.why,
        "passedOver": list(choice.passed_over),
        "serial": f"{leaf.serial_number:x}",
        "fingerprint": fingerprint(credential.leaf),
        "notBefore": rfc3339(leaf.not_valid_before_utc),
        "notAfter": rfc3339(leaf.not_valid_after_utc),
        "trustEpoch": trust.epoch,
        "validUntil": rfc3339(end.at),
        "renewal": command,
        "waiting": waiting,
    }
    until = minute(end.at)
    if end.is_near:
        until += f" ({remaining_seconds(int((end.at - here.now).total_seconds()))}; {command} renews it)"
    lines = facts(
        {
            "identity": document["identity"],
            "from": f"{document['source']}, because {document['why']}",
            "passed over": "; ".join(choice.passed_over),
            "serial": document["serial"],
            "valid until": until,
        }
    )
    invocation.output.result(document, lines)
    if not read_own_config(here.environ).asks_daskpki:
        invocation.output.hint(loader_missing())
