"""`daskpki list`, `show` and `verify`: what was issued, one certificate in full, files against the CA."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daskpki.cli.drawing import certificate_facts, certificate_table
from daskpki.errors import NotTrustedError, UsageError
from daskpki.files import os_error
from daskpki.identity import Role

if TYPE_CHECKING:
    from daskpki.authority import CertificateAuthority
    from daskpki.authority.verification import Verifier
    from daskpki.cli.invocation import Invocation

STATES = ("reserved", "issued", "superseded", "expired", "revoking", "revoked", "abandoned")


def list_(
    ctx: typer.Context,
    role: Annotated[Role | None, typer.Option(help="Only this role.")] = None,
    name: Annotated[str | None, typer.Option(metavar="N", help="Only this name.")] = None,
    state: Annotated[
        list[str] | None, typer.Option(metavar="S", help=f"Only these states: {', '.join(STATES)}.")
    ] = None,
    expiring_in: Annotated[
        str | None, typer.Option(metavar="T", help="Only what ends within this time, such as 14d.")
    ] = None,
) -> None:
    """List what was issued, in the order in which it was.

    Example:  [bold]daskpki list --role worker --expiring-in 14d[/bold]
    """
    invocation: Invocation = ctx.obj
    with invocation.authority() as authority:
        found = _selected(authority, role, name, state or [], expiring_in)
        documents = [authority.describe(entry) for entry in found]
        now = authority.session.now()
    lines = certificate_table(documents, now) if documents else ["no certificates"]
    invocation.output.result(documents, lines)


def _selected(
    authority: CertificateAuthority, role: Role | None, name: str | None, states: list[str], expiring_in: str | None
) -> list[Any]:
    from daskpki.authority.lookup import select
    from daskpki.pki.profile import parse_ttl

    unknown = set(states) - set(STATES)
    if unknown:
        raise UsageError(f"{min(unknown)!r} is not a state", hint=f"states are {', '.join(STATES)}")
    inventory = authority.inventory()
    authority.active()
    now = authority.session.now()
    before = now + timedelta(seconds=parse_ttl(expiring_in)) if expiring_in else None
    if before is not None and not states:
        states = ["issued"]
    chosen = frozenset(states) or None
    return list(select(inventory, now=now, role=role, name=name, states=chosen, before=before))


def show(
    ctx: typer.Context,
    which: Annotated[str, typer.Argument(metavar="NAME_OR_SERIAL", help="ROLE/NAME, a serial, or a fingerprint.")],
) -> None:
    """Show one certificate in full.

    Examples:  [bold]daskpki show client/alice[/bold]   [bold]daskpki show 3f9a21c4[/bold]
    """
    invocation: Invocation = ctx.obj
    with invocation.authority() as authority:
        document = authority.describe(authority.find(which))
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
        found = verifier.verify(_read(path))
    except NotTrustedError as error:
        return document | {"trusted": False, "error": str(error)}
    return document | {
        "trusted": True,
        "identity": found.identity.uri,
        "serial": f"{found.serial:x}",
        "fingerprint": found.fingerprint,
        "notAfter": found.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise os_error(error, path) from error
