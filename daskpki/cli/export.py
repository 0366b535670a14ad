"""`daskpki export`: writes a credential to files, for machines that reach neither store nor keyring."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from daskpki.cli.invocation import Invocation, complete_name, parse_role_and_name, read_passphrase
from daskpki.errors import UsageError
from daskpki.identity import Role


def export(
    invocation: Invocation,
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
    from daskpki.credentials.credential_files import export_directory
    from daskpki.credentials.sources import fetch_credential
    from daskpki.credentials.verified import Pins
    from daskpki.files import check_writable, write_private
    from daskpki.pki.credential import encode_pkcs12

    if (p12 is None) == (out is None):
        raise UsageError("export writes either a directory or a PKCS#12 file", hint="--out DIR or --p12 FILE")
    if p12 is not None:
        check_writable(p12, force=force)
    role, name = parse_role_and_name(who)
    with invocation.open_store() as store:
        pins = Pins(sha256=invocation.given.ca_sha256)
        verified = fetch_credential(store, invocation.cluster, role, name, pins=pins, now=datetime.now(UTC))
    if out is not None:
        written = export_directory(verified, out, force=force)
    elif p12 is not None:
        passphrase = read_passphrase(p12_passphrase_file, str(p12), "--p12-passphrase-file", new=True)
        sealed = encode_pkcs12(verified.credential, verified.trust.roots, passphrase)
        write_private(p12, sealed.reveal(), force=force)
        written = [p12]
    invocation.output.result({"files": [str(path) for path in written]}, map(str, written))
    if out:
        setting = f"export DASKPKI_CREDENTIAL_DIR={shlex.quote(str(out.absolute()))}"
        user = "Client(...) where daskpki is installed" if role is Role.CLIENT else "daskpki-entrypoint"
        invocation.output.hint(f"next: {setting}", f"  {user} uses it then")
