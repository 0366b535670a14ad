"""`daskpki list`, `show` and `verify`: issued certificates, one of them in full, and files checked by the CA."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from daskpki.cli.crl import warn_of_end
from daskpki.cli.invocation import Invocation, complete_name, parse_role_and_name
from daskpki.cli.output import certificate_facts, certificate_table, print_listing
from daskpki.errors import NotTrustedError, UsageError
from daskpki.files import read_file
from daskpki.identity import Role
from daskpki.quoting import rfc3339

if TYPE_CHECKING:
    from daskpki.authority.audit import Verifier


def show(
    invocation: Invocation,
    which: Annotated[
        str,
        typer.Argument(
            metavar="NAME_OR_SERIAL",
            help="ROLE/NAME, NAME if only one role has it, serial, or fingerprint.",
            autocompletion=complete_name,
        ),
    ],
) -> None:
    """Show one certificate in full.

    Examples:  [bold]daskpki show client/alice[/bold]   [bold]daskpki show 3f9a21c4[/bold]
    """
    with invocation.authority(reading=True) as authority:
        document = authority.describe(authority.find(which, guess=True))
        now = authority.session.now()
    invocation.output.result(document, certificate_facts(document, now))


def verify(
    invocation: Invocation,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Certificates, PEM or DER, leaf first.")],
) -> None:
    """Check certificates in files against the cluster's CA: chain, validity, role, revocation.

    Example:  [bold]daskpki verify cert.pem[/bold]

    Exits 3 if one of them is not trusted.
    """
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
        "notAfter": rfc3339(found.not_after),
    }


STATES: Final = ("reserved", "issued", "superseded", "expired", "revoking", "revoked", "abandoned")
COLUMNS: Final = (
    "role",
    "name",
    "identity",
    "serial",
    "fingerprint",
    "notBefore",
    "notAfter",
    "state",
    "keyType",
    "names",
    "issuer",
    "version",
    "revokedAt",
    "reason",
)


def list_(
    invocation: Invocation,
    role: Annotated[list[Role] | None, typer.Option(help="Only this role.")] = None,
    name: Annotated[str | None, typer.Option(metavar="N", help="Only this name, NAME or ROLE/NAME.")] = None,
    state: Annotated[
        list[str] | None, typer.Option(metavar="S", help=f"Only these states: {', '.join(STATES)}.")
    ] = None,
    expiring_in: Annotated[
        str | None, typer.Option(metavar="T", help="Only certificates that expire within this time, such as 14d.")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a heading.")] = False,
) -> None:
    """List issued certificates, oldest first.

    Examples:  [bold]daskpki list --role worker --expiring-in 14d[/bold]   [bold]daskpki list --csv > issued.csv[/bold]
    """
    from daskpki.authority.lookup import select
    from daskpki.pki.profile import parse_ttl

    roles = frozenset(role or ())
    if name is not None and "/" in name:
        only, name = parse_role_and_name(name)
        if roles - {only}:
            raise UsageError(f"--role contradicts --name {only}/{name}", hint="leave --role out")
        roles = frozenset({only})
    if unknown := set(state or ()) - set(STATES):
        raise UsageError(f"{min(unknown)!r} is not a state", hint=f"states are {', '.join(STATES)}")
    with invocation.authority(reading=True) as authority:
        now, inventory = authority.session.now(), authority.inventory()
        authority.active()
        before = now + timedelta(seconds=parse_ttl(expiring_in)) if expiring_in else None
        found = select(
            inventory,
            now=now,
            roles=roles,
            name=name,
            states=frozenset(state or (("issued",) if before else ())),
            before=before,
        )
        documents = map(authority.describe, found)
        lines = certificate_table(documents, now, empty="no certificates")
        print_listing(invocation.output, documents, lines, columns=COLUMNS if as_csv else None)
        warn_of_end(invocation.output, inventory, now)
