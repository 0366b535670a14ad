"""`daskpki export`: writes a credential to files, for machines that reach neither store nor keyring."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daskpki.cli.completion import complete_name
from daskpki.cli.invocation import parse_role_and_name, read_passphrase
from daskpki.errors import UsageError
from daskpki.identity import Role

if TYPE_CHECKING:
    from daskpki.cli.invocation import Invocation
    from daskpki.credentials.verified import VerifiedCredential


def export(
    ctx: typer.Context,
    who: Annotated[
        str, typer.Argument(metavar="ROLE/NAME", help="Owner of the credential.", autocompletion=complete_name)
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write ca.pem, cert.pem, key.pem and trust.json there.")
    ] = None,
    p12: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one PKCS#12 file, for a browser.")] = None,
    p12_passphrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with the passphrase of the PKCS#12 file (default: ask).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Write a credential to files; only their owner can read the key.

    Examples:  [bold]daskpki export worker --out /run/dask[/bold]   [bold]daskpki export client/alice --p12 a.p12[/bold]
    """
    invocation: Invocation = ctx.obj
    if p12 is not None and out is None:
        written = _pkcs12(invocation, who, p12, p12_passphrase_file, force)
    elif out is not None and p12 is None:
        written = _directory(invocation, who, out, force)
    else:
        raise UsageError("export writes either a directory or a PKCS#12 file", hint="--out DIR or --p12 FILE")
    invocation.output.result({"files": [str(path) for path in written]}, map(str, written))
    if out:
        setting = f"export DASKPKI_CREDENTIAL_DIR={shlex.quote(str(out.absolute()))}"
        a_person = parse_role_and_name(who)[0] is Role.CLIENT
        user = "Client(...) where daskpki is installed" if a_person else "daskpki-entrypoint"
        invocation.output.hint(f"next: {setting}", f"  {user} uses it then")


def _directory(invocation: Invocation, who: str, out: Path, force: bool) -> list[Path]:
    from daskpki.credentials.directory import export_directory

    return export_directory(_held(invocation, who), out, force=force)


def _pkcs12(invocation: Invocation, who: str, file: Path, passphrase_file: Path | None, force: bool) -> list[Path]:
    from daskpki.files import write_private
    from daskpki.pki.pkcs12 import encode_pkcs12

    held, option = _held(invocation, who), "--p12-passphrase-file"
    passphrase = read_passphrase(passphrase_file, f"the file of {option}", str(file), f"{option} FILE", new=True)
    write_private(file, encode_pkcs12(held.credential, held.trust.roots, passphrase).reveal(), force=force)
    return [file]


def _held(invocation: Invocation, who: str) -> VerifiedCredential:
    from daskpki.credentials.fetch import fetch_credential
    from daskpki.credentials.verified import Pins

    role, name = parse_role_and_name(who)
    with invocation.open_store() as store:
        pins = Pins(sha256=invocation.ca_sha256).remembering(store.memory.trust(invocation.cluster))
        return fetch_credential(store.secrets, invocation.cluster, role, name, pins=pins, now=datetime.now(UTC))
