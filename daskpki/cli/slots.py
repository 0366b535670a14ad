"""`daskpki slot list|add|remove`: by what the local store opens, changed without sealing anything anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daskpki.cli.coercion import Commands
from daskpki.cli.output import table
from daskpki.errors import UsageError

if TYPE_CHECKING:
    from daskpki.cli.invocation import Invocation
    from daskpki.store.local.slots import KeySlots

slot = Commands(no_args_is_help=True, help="The local store's key slots: keyring, passphrase, key file, recovery.")


class Kind(StrEnum):
    """What a slot opens by."""

    KEYRING = "keyring"
    PASSPHRASE = "passphrase"
    KEY_FILE = "keyfile"
    RECOVERY = "recovery"


@contextmanager
def _slots(invocation: Invocation) -> Iterator[KeySlots]:
    from daskpki.store.local.store import LocalStore

    with invocation.open_store() as store:
        if not isinstance(store, LocalStore):
            raise UsageError(f"{store.url} has no key slots", hint="they belong to local stores; here IAM decides")
        yield store.slots


@slot.command("list")
def list_(ctx: typer.Context) -> None:
    """List the slots; each of them opens the store.

    Example:  [bold]daskpki slot list[/bold]
    """
    invocation: Invocation = ctx.obj
    with _slots(invocation) as slots:
        documents = [
            {"id": entry.id, "kind": entry.kind, "created": f"{datetime.fromtimestamp(entry.created, UTC):%Y-%m-%d}"}
            for entry in slots.list()
        ]
    rows = [(entry["id"], entry["kind"], entry["created"]) for entry in documents]
    invocation.output.result(documents, table(("id", "opens by", "created"), rows))


@slot.command("add")
def add(
    ctx: typer.Context,
    kind: Annotated[Kind, typer.Argument(help="What the new slot opens by.")],
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The new passphrase's file, or the key file to make.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="A passphrase takes the place of all others.")] = False,
) -> None:
    """Add a way to open the store; the store is unlocked by one that it has.

    Examples:  [bold]daskpki slot add recovery[/bold]   [bold]daskpki slot add passphrase --replace[/bold]
    """
    invocation: Invocation = ctx.obj
    with _slots(invocation) as slots:
        code = _add(slots, kind, file, replace=replace)
    lines = [f"added a slot: {kind.value}"]
    lines += ["recovery code, shown this once (keep it on paper):", f"  {code}"] if code else []
    invocation.output.result({"added": kind.value, "recoveryCode": code}, lines)


def _add(slots: KeySlots, kind: Kind, file: Path | None, *, replace: bool) -> str | None:
    if kind is Kind.RECOVERY:
        return slots.add_recovery().reveal().decode()
    if kind is Kind.KEYRING:
        from daskpki.credentials.os_keyring import OSKeyring

        slots.add_keyring(OSKeyring())
    elif kind is Kind.KEY_FILE:
        if file is None:
            raise UsageError("a key file needs a place", hint="--file FILE; a missing file is made")
        slots.add_key_file(file)
    else:
        _add_passphrase(slots, file, replace=replace)
    return None


def _add_passphrase(slots: KeySlots, file: Path | None, *, replace: bool) -> None:
    from daskpki.cli.unlocking import ask_passphrase
    from daskpki.store.local.unlocking import read_passphrase_file

    passphrase = read_passphrase_file(file, "the passphrase file") if file else ask_passphrase(new=True)
    (slots.change_passphrase if replace else slots.add_passphrase)(passphrase)


@slot.command("remove")
def remove(ctx: typer.Context, which: Annotated[str, typer.Argument(metavar="ID", help="As listed.")]) -> None:
    """Remove a slot; the last one stays, since without it nothing opens the store again.

    Example:  [bold]daskpki slot remove 2[/bold]
    """
    invocation: Invocation = ctx.obj
    with _slots(invocation) as slots:
        slots.remove(which)
    invocation.output.result({"removed": which}, [f"removed slot {which}"])
