"""`daskpki backup`, `restore` and `copy`: a local store as one file and back, a cluster from one store to another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daskpki.errors import UsageError
from daskpki.settings import LocalUrl, home, parse_store_url

if TYPE_CHECKING:
    from daskpki.cli.invocation import Invocation
    from daskpki.store.local.backup import Contents


def backup(
    ctx: typer.Context, file: Annotated[Path, typer.Argument(metavar="FILE", help="The new file; never overwritten.")]
) -> None:
    """Write the local store, as of this moment, to one file, while others go on.

    Example:  [bold]daskpki backup /media/safe/daskpki-2026-11-23.backup[/bold]

    What is sealed stays sealed: the file opens by the store's own key slots, so keep one of those apart from it.
    """
    from daskpki.store.local.backup import write_backup

    invocation: Invocation = ctx.obj
    contents = write_backup(_directory(invocation), file)
    invocation.output.result(_document(file, contents), [f"wrote {file}", *_lines(contents)])
    invocation.output.hint("It opens by the store's own passphrase, key file, keyring or recovery code.")


def restore(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As daskpki backup wrote it.")],
    accept_older: Annotated[
        bool, typer.Option("--accept-older", help="Also when this user has seen the store in a later state.")
    ] = False,
) -> None:
    """Make the local store from a backup; where there is a store, nothing is done.

    Example:  [bold]daskpki restore daskpki-2026-11-23.backup --store local:/srv/daskpki[/bold]

    What was issued after the backup is unknown to it. Running nodes keep what they were told since, and take the trust
    document of the restored store once its epoch has passed the one they know.
    """
    from daskpki.store.local.backup import restore_backup

    invocation: Invocation = ctx.obj
    directory = _directory(invocation)
    contents = restore_backup(file, directory, home(os.environ) / "seen", accept_older=accept_older)
    invocation.output.result(_document(directory, contents), [f"restored {directory}", *_lines(contents)])
    invocation.output.hint("Check it with: daskpki audit --verify")


def _directory(invocation: Invocation) -> Path:
    from daskpki.store.opening import local_directory

    url = parse_store_url(invocation.store)
    if not isinstance(url, LocalUrl):
        raise UsageError(
            f"{invocation.store} is no local store, and Secret Manager is not backed up to a file",
            hint="daskpki copy --to local:/path makes a copy of a cluster",
        )
    return local_directory(url, os.environ)


def _document(place: Path, contents: Contents) -> dict[str, object]:
    heads = {cluster: {"records": head.seq, "head": head.hash} for cluster, head in contents.heads.items()}
    return {"path": str(place), "store": contents.store_id, "clusters": heads}


def _lines(contents: Contents) -> list[str]:
    return [f"cluster {cluster}: {head.seq} records" for cluster, head in sorted(contents.heads.items())]


def copy(ctx: typer.Context, to: Annotated[str, typer.Option("--to", metavar="URL", help="The other store.")]) -> None:
    """Copy the cluster to another store, number by number and byte by byte, and verify the copy.

    Examples:  [bold]daskpki copy --to gsm://my-project[/bold]   [bold]daskpki copy --to local:/srv/copy[/bold]

    A copy that was cut off goes on when it is run again. A target that has something else of that name is refused.
    """
    from daskpki.authority.copying import copy_cluster

    invocation: Invocation = ctx.obj
    if parse_store_url(to) == parse_store_url(invocation.store):
        raise UsageError(f"{to} is the store that is copied from", hint="name another one with --to")
    with invocation.open_store() as source, invocation.open_store(url=to, create=True) as target:
        copied = copy_cluster(source, target, invocation.cluster)
        document = {"from": source.url, "to": target.url, **copied._asdict()}
    lines = [
        f"copied cluster {invocation.cluster} to {document['to']}, and compared it",
        f"{copied.secrets} secrets, {copied.versions} versions that can be read, {copied.records} records",
    ]
    invocation.output.result(document, lines)
    invocation.output.hint(
        "Issue and revoke in one of the two only. Grants are not copied: daskpki grant makes them anew."
    )
