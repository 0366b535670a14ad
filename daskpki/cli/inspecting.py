"""`daskpki show` and `verify`: one certificate in full, files against the CA."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daskpki.cli.completion import complete_name
from daskpki.cli.drawing import certificate_facts
from daskpki.errors import NotTrustedError
from daskpki.files import os_error

if TYPE_CHECKING:
    from daskpki.authority.verification import Verifier
    from daskpki.cli.invocation import Invocation


def show(
    ctx: typer.Context,
    which: Annotated[
        str,
        typer.Argument(
            metavar="NAME_OR_SERIAL",
            help="ROLE/NAME, a name of one role only, a serial, or a fingerprint.",
            autocompletion=complete_name,
        ),
    ],
) -> None:
    """Show one certificate in full.

    Examples:  [bold]daskpki show client/alice[/bold]   [bold]daskpki show 3f9a21c4[/bold]
    """
    invocation: Invocation = ctx.obj
    with invocation.authority(reading=True) as authority:
        document = authority.describe(authority.find(which, guess=True))
        now = authority.session.now()
    invocation.output.result(document, certificate_facts(document, now))


def verify(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Certificates, PEM or DER, leaf first.")],
) -> None:
    """Check certificates in files against the cluster's CA: chain, validity, role, revocation.

    Example:  [bold]daskpki verify cert.pem[/bold]

    Exit code 3 when one of them is not trusted.
    """
    invocation: Invocation = ctx.obj
    with invocation.authority() as authority:
        trusted = authority.verifier()
        documents = [_verified(trusted, path) for path in files]
    invocation.output.result(documents, [_verdict(document) for document in documents])
    if refused := [document["file"] for document in documents if not document["trusted"]]:
        raise NotTrustedError(f"not trusted: {', '.join(refused)}")


def _verdict(document: dict[str, Any]) -> str:
    if document["trusted"]:
        return f"{document['file']}: {document['identity']}, valid until {document['notAfter'][:10]}"
    return f"{document['file']}: NOT TRUSTED: {document['error']}"


def _verified(verifier: Verifier, path: Path) -> dict[str, Any]:
    document: dict[str, Any] = {"file": str(path)}
    try:
        found = verifier.verify(read_file(path))
    except NotTrustedError as error:
        return document | {"trusted": False, "error": str(error)}
    return document | {
        "trusted": True,
        "identity": found.identity.uri,
        "serial": f"{found.serial:x}",
        "fingerprint": found.fingerprint,
        "notAfter": found.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def read_file(path: Path) -> bytes:
    """The bytes of a file that is no secret; errors that name it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise os_error(error, path) from error
