"""`daskpki secret`: the cluster's other secrets, in the same store. Values come from stdin or files, not from argv."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daskpki.cli.invocation import Commands, Invocation, YesOption
from daskpki.cli.output import results, table
from daskpki.confidential import Confidential
from daskpki.errors import UsageError
from daskpki.files import read_file
from daskpki.quoting import day, minute, remaining_seconds, rfc3339

if TYPE_CHECKING:
    from daskpki.user_secrets import ClusterSecrets, Listed

secret = Commands(no_args_is_help=True, help="Passwords and tokens of the cluster, with versions.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the secret, a DNS label such as db-password.")]
Number = Annotated[int, typer.Argument(metavar="VERSION", help="Number of the version.")]


@contextmanager
def _secrets(invocation: Invocation) -> Iterator[ClusterSecrets]:
    from daskpki.authority.anchor import Anchored
    from daskpki.authority.session import claimed_user, utc_now
    from daskpki.user_secrets import ClusterSecrets

    with invocation.open_store() as store:
        # Secret Manager's store reads the place of a new secret from the log, which has to be verified
        store.log(invocation.cluster, Anchored(store, invocation.cluster, utc_now, invocation.given.ca_sha256).judge)
        yield ClusterSecrets(store, invocation.cluster, who=claimed_user(), command="daskpki secret")


@secret.command("set")
def set_(
    invocation: Invocation,
    name: Name,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read the value from this file instead of stdin.")
    ] = None,
    ttl: Annotated[
        str | None, typer.Option(metavar="T", help="Let the value expire after this time, such as 90d; or never.")
    ] = None,
    rotate_every: Annotated[
        str | None, typer.Option(metavar="T", help="Remind to set a new value after this time; or never.")
    ] = None,
) -> None:
    """Add a version: the bytes of stdin or of a file, up to 64 KiB, exactly as they are.

    --ttl and --rotate-every carry over from the previous value and restart now.

    Example:  [bold]printf %s "$PASSWORD" | daskpki secret set db-password --rotate-every 90d[/bold]
    """
    periods = {"ttl": _seconds(ttl), "rotate_every": _seconds(rotate_every)}
    payload = _value(file)
    with _secrets(invocation) as secrets:
        number = secrets.set(name, payload, **periods)
    invocation.output.result({"name": name, "version": number}, [f"{name}: version {number}"])
    invocation.output.hint(f"next: daskpki-entrypoint worker --secret {name}=/run/secrets/{name}")


def _value(file: Path | None) -> Confidential:
    if file is not None:
        return Confidential(read_file(file))
    if sys.stdin.isatty():
        raise UsageError("the value is read from stdin, and stdin is a terminal", hint="--file FILE, or a pipe")
    return Confidential(sys.stdin.buffer.read())


def _seconds(text: str | None) -> int | None:
    from daskpki.pki.profile import parse_ttl

    return None if text is None else 0 if text == "never" else parse_ttl(text)


@secret.command("get")
def get(
    invocation: Invocation,
    name: Name,
    version: Annotated[int | None, typer.Option(metavar="N", help="Read this version instead of the newest.")] = None,
) -> None:
    """Write the value's bytes to stdout, and nothing else.

    Example:  [bold]daskpki secret get db-password > /run/user/1000/db-password[/bold]
    """
    with _secrets(invocation) as secrets:
        payload = secrets.get(name, version)
    if invocation.output.as_json:
        import base64

        encoded = base64.b64encode(payload.data.reveal()).decode()
        invocation.output.result({"name": name, "version": payload.number, "base64": encoded}, ())
    else:
        with results():
            sys.stdout.buffer.write(payload.data.reveal())
            sys.stdout.buffer.flush()


@secret.command("list")
def list_(invocation: Invocation) -> None:
    """List the secrets, and when each expires or needs a new value.

    Example:  [bold]daskpki secret list --json[/bold]
    """
    with _secrets(invocation) as secrets:
        listed = list(secrets.all())
    now = time.time()
    rows = [(entry.name, day(entry.created), _in(entry.ends, now), _in(entry.rotate_by, now)) for entry in listed]
    lines = table(("name", "since", "expires", "new value due"), rows, empty="no secrets")
    invocation.output.result([_document(entry) for entry in listed], lines)
    for entry in listed:
        if any(moment is not None and moment < now for moment in (entry.ends, entry.rotate_by)):
            invocation.output.hint(
                f"secret {entry.name}: new value overdue; daskpki secret set {entry.name} --file FILE"
            )


def _document(entry: Listed) -> dict[str, str | None]:
    name, *moments = entry
    created, ends, rotate_by = (None if moment is None else rfc3339(moment) for moment in moments)
    return {"name": name, "created": created, "ends": ends, "rotate_by": rotate_by}


def _in(moment: int | None, now: float) -> str:
    return "" if moment is None else remaining_seconds(int(moment - now))


@secret.command("versions")
def versions(invocation: Invocation, name: Name) -> None:
    """List a secret's versions: state, time, and author as far as the log has it.

    Example:  [bold]daskpki secret versions db-password[/bold]
    """
    with _secrets(invocation) as secrets:
        found = secrets.versions(name)
    documents = [one._asdict() | {"created": rfc3339(one.created), "who": who} for one, who in found]
    rows = [(str(one.number), one.state.lower(), minute(one.created), who or "") for one, who in found]
    invocation.output.result(documents, table(("version", "state", "added", "by"), rows))


@secret.command("rollback")
def rollback(
    invocation: Invocation,
    name: Name,
    to: Annotated[
        int | None, typer.Option(metavar="N", help="Return to this version instead of the previous one.")
    ] = None,
) -> None:
    """Return to the previous version, by adding its value again.

    Example:  [bold]daskpki secret rollback db-password[/bold]
    """
    with _secrets(invocation) as secrets:
        source, number = secrets.rollback(name, to)
    lines = [f"{name}: version {number} has the value of version {source}"]
    invocation.output.result({"name": name, "version": number, "restores": source}, lines)


@secret.command("disable")
def disable(
    invocation: Invocation,
    name: Name,
    version: Number,
    undo: Annotated[bool, typer.Option("--undo", help="Make the version readable again.")] = False,
) -> None:
    """Make an old version unreadable until --undo.

    Example:  [bold]daskpki secret disable db-password 2[/bold]
    """
    with _secrets(invocation) as secrets:
        (secrets.enable if undo else secrets.disable)(name, version)
    state = "enabled" if undo else "disabled"
    invocation.output.result({"name": name, "version": version, "state": state}, [f"{name}: version {version} {state}"])


@secret.command("destroy")
def destroy(invocation: Invocation, name: Name, version: Number, yes: YesOption = False) -> None:
    """Erase an old version's value for good.

    Example:  [bold]daskpki secret destroy db-password 2[/bold]
    """
    with _secrets(invocation) as secrets:
        if invocation.output.asks(yes=yes):  # do not ask before an act that would be refused
            secrets.check_not_newest(name, version)
        invocation.output.confirm(f"Erase version {version} of {name} for good?", yes=yes)
        secrets.destroy(name, version)
    lines = [f"{name}: version {version} destroyed"]
    invocation.output.result({"name": name, "version": version, "state": "destroyed"}, lines)
