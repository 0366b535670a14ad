"""`daskpki slot`, `backup`, `restore` and `copy`: the local store's key slots and backup, and copies of a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daskpki.cli.invocation import Commands, Invocation, read_passphrase
from daskpki.cli.output import table
from daskpki.errors import UsageError
from daskpki.quoting import day
from daskpki.settings import GsmUrl, LocalUrl, home, parse_store_url
from daskpki.store.local.key_slots import SlotKind

if TYPE_CHECKING:
    from daskpki.grants import SecretGrant
    from daskpki.store.local.backup import Contents
    from daskpki.store.local.key_slots import KeySlots

slot = Commands(
    no_args_is_help=True, help="Ways to unlock the local store: keyring, passphrase, key file, recovery code."
)


@contextmanager
def _slots(invocation: Invocation) -> Iterator[KeySlots]:
    from daskpki.store.local.store import LocalStore

    with invocation.open_store() as store:
        if not isinstance(store, LocalStore):
            raise UsageError(f"{store.url} has no key slots", hint="they belong to local stores; here IAM decides")
        yield store.slots


@slot.command("list")
def list_(invocation: Invocation) -> None:
    """List the key slots; each of them unlocks the store.

    Example:  [bold]daskpki slot list[/bold]
    """
    with _slots(invocation) as slots:
        documents = [{"id": entry.id, "kind": entry.kind, "created": day(entry.created)} for entry in slots.list()]
    rows = [(entry["id"], entry["kind"], entry["created"]) for entry in documents]
    invocation.output.result(documents, table(("id", "unlocked by", "created"), rows))


@slot.command("add")
def add(
    invocation: Invocation,
    kind: Annotated[SlotKind, typer.Argument(help="How the new slot is unlocked.")],
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with the new passphrase, or the key file to create.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Let the new passphrase replace all others.")] = False,
) -> None:
    """Add a way to unlock the store; an existing one unlocks it for this.

    Examples:  [bold]daskpki slot add recovery[/bold]   [bold]daskpki slot add passphrase --replace[/bold]
    """
    code = None
    with _slots(invocation) as slots:
        if kind is SlotKind.RECOVERY:
            code = slots.add_recovery().reveal().decode()
        elif kind is SlotKind.KEYRING:
            from daskpki.credentials.os_keyring import OSKeyring

            slots.add_keyring(OSKeyring())
        elif kind is SlotKind.PASSPHRASE:
            passphrase = read_passphrase(file, "the local store", "--file", new=True)
            (slots.change_passphrase if replace else slots.add_passphrase)(passphrase)
        elif file is None:
            raise UsageError("a key file needs a place", hint="--file FILE; a missing file is created")
        else:
            slots.add_key_file(file)
    lines = [f"added a slot: {kind.value}"]
    lines += ["recovery code, shown this once (keep it on paper):", f"  {code}"] if code else []
    invocation.output.result({"added": kind.value, "recoveryCode": code}, lines)


@slot.command("remove")
def remove(
    invocation: Invocation,
    which: Annotated[str, typer.Argument(metavar="ID", help="Id from `daskpki slot list`.")],
) -> None:
    """Remove a key slot; the last one stays, since nothing else would unlock the store.

    Example:  [bold]daskpki slot remove 2[/bold]
    """
    with _slots(invocation) as slots:
        slots.remove(which)
    invocation.output.result({"removed": which}, [f"removed slot {which}"])


def backup(
    invocation: Invocation,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="New file; an existing one is never overwritten.")],
) -> None:
    """Write the local store to one file, while other commands go on.

    Example:  [bold]daskpki backup /media/safe/daskpki-2026-11-23.backup[/bold]

    The backup is encrypted with the store's own key slots. Keep a recovery code or key file somewhere else; without
    one the backup cannot be opened.
    """
    from daskpki.store.local.backup import write_backup

    contents = write_backup(_directory(invocation), file)
    invocation.output.result(_document(file, contents), [f"wrote {file}", *_lines(contents)])
    invocation.output.hint("The store's own passphrase, key file, keyring or recovery code unlocks it.")


def restore(
    invocation: Invocation,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File that daskpki backup wrote.")],
    accept_older: Annotated[
        bool, typer.Option("--accept-older", help="Restore even if this user has seen a later state of the store.")
    ] = False,
) -> None:
    """Restore the local store from a backup; an existing store is never overwritten.

    Example:  [bold]daskpki restore daskpki-2026-11-23.backup --store local:/srv/daskpki[/bold]

    Certificates issued after the backup are unknown to the restored store. Running nodes keep their newer trust
    document, and accept the restored store's once its epoch is higher.
    """
    from daskpki.store.local.backup import restore_backup

    directory = _directory(invocation)
    contents = restore_backup(file, directory, home(os.environ) / "seen", accept_older=accept_older)
    invocation.output.result(_document(directory, contents), [f"restored {directory}", *_lines(contents)])
    invocation.output.hint("Check it with: daskpki audit --verify")


def _directory(invocation: Invocation) -> Path:
    from daskpki.store.opening import local_directory

    url = invocation.url
    if not isinstance(url, LocalUrl):
        raise UsageError(
            f"{url} is no local store, and only that is backed up to a file",
            hint="daskpki copy --to local:/path makes a copy of a cluster",
        )
    return local_directory(url, os.environ)


def _document(place: Path, contents: Contents) -> dict[str, object]:
    heads = {cluster: {"records": head.seq, "head": head.hash} for cluster, head in contents.heads.items()}
    return {"path": str(place), "store": contents.store_id, "clusters": heads}


def _lines(contents: Contents) -> list[str]:
    return [f"cluster {cluster}: {head.seq} records" for cluster, head in sorted(contents.heads.items())]


def copy(
    invocation: Invocation,
    to: Annotated[str, typer.Option("--to", metavar="URL", help="Store to copy to.")],
    without_disabled: Annotated[
        bool, typer.Option("--without-disabled", help="Skip disabled versions, which cannot be read.")
    ] = False,
    grants: Annotated[
        bool, typer.Option("--grants", help="Grant the same members access to the copy; both on Secret Manager.")
    ] = False,
) -> None:
    """Copy the cluster to another store, with the same version numbers and bytes, and verify the copy.

    Examples:  [bold]daskpki copy --to gsm://my-project[/bold]   [bold]daskpki copy --to local:/srv/copy[/bold]

    Run an interrupted copy again to continue. A target with other content of that name is refused.
    """
    from daskpki.authority.copy import copy_cluster

    urls = invocation.url, parse_store_url(to)
    if urls[0] == urls[1]:
        raise UsageError(f"{to} is the store that is copied from", hint="name another one with --to")
    if grants:
        from daskpki.grants import check_applies

        for url in urls:
            check_applies(url)
    with invocation.open_store() as source, invocation.open_store(url=to, create=True) as target:
        pin = invocation.given.ca_sha256
        copied = copy_cluster(source, target, invocation.cluster, without_disabled=without_disabled, ca_sha256=pin)
        counted = copied._asdict() | {"left_out": [each._asdict() for each in copied.left_out]}
        document = {"from": source.url, "to": target.url, **counted, "grants": None, "grants_left": None}
        lines = [
            f"copied cluster {invocation.cluster} to {target.url}, and compared it",
            f"{copied.secrets} secrets, {copied.versions} versions that can be read, {copied.records} records",
            *(f"left out, since it is disabled: {secret}, version {number}" for secret, number in copied.left_out),
        ]
        if grants:
            from daskpki.grants import carry_grants
            from daskpki.store.gsm.store import GsmStore

            assert isinstance(source, GsmStore), "a store of such a URL is one"
            assert isinstance(target, GsmStore), "a store of such a URL is one"
            carried, left = carry_grants(source, target, invocation.cluster)
            document |= {"grants": list(map(_grant, carried)), "grants_left": list(map(_grant, left))}
            lines.append(f"{len(carried)} grants, each in the policy of its copy")
            for secret, binding in left:
                condition = f" under the condition {binding.condition}" if binding.condition else ""
                has = f"{binding.member} has {binding.role} on {secret}{condition}"
                lines.append(f"not copied, because daskpki grant does not make such a grant: {has}")
    invocation.output.result(document, lines)
    invocation.output.hint("Issue and revoke in one of the two only.")
    if not grants and any(isinstance(url, GsmUrl) for url in urls):
        invocation.output.hint(
            "No grants were copied. Between two stores on Secret Manager, --grants copies them; daskpki grant makes "
            "new ones. A local store has none."
        )


def _grant(one: SecretGrant) -> dict[str, object]:
    secret, binding = one
    return {"secret": secret, **binding._asdict()}
