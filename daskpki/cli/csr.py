"""`daskpki request` and `daskpki sign`: a certificate for a key that stays where it was made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daskpki.cli.output import certificate_facts
from daskpki.errors import PolicyError
from daskpki.identity import Identity, Role, default_trust_domain, parse_label, parse_slug

if TYPE_CHECKING:
    from daskpki.authority.ca import CertificateAuthority
    from daskpki.authority.issuance import Issued
    from daskpki.cli.invocation import Invocation
    from daskpki.settings import GsmUrl, LocalUrl
    from daskpki.store.port import Store

PUBLIC = 0o644


def request(
    ctx: typer.Context,
    role: Annotated[Role, typer.Argument(help="client: the only one whose key lives in a keyring.")],
    name: Annotated[str, typer.Option(metavar="N", help="A DNS label.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the request there [default: stdout].")] = None,
    key_type: Annotated[str, typer.Option(metavar="K", help="p256, p384 or rsa3072.")] = "p256",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Make a key in your OS keyring, and the request by which an operator issues its certificate.

    Example:  [bold]daskpki request client --name alice --out alice.csr[/bold]

    The key never leaves the keyring. Asked again, the request is for the same key, until a login
    completes it; daskpki whoami says what waits, daskpki logout removes it.
    """
    from daskpki.authority.ca_keys import parse_key_type
    from daskpki.cli.login import surroundings
    from daskpki.credentials.csr import request_certificate, waiting_for
    from daskpki.files import write_private
    from daskpki.pki.csr import request_pem

    invocation: Invocation = ctx.obj
    if role is not Role.CLIENT:
        hint = f"daskpki issue {role.value}; or any program's request: daskpki sign FILE {role.value}/NAME"
        raise PolicyError(f"a {role.value}'s key does not live in a person's keyring", hint=hint)
    identity = Identity(default_trust_domain(invocation.cluster), role, parse_label(name, "name"))
    here = surroundings(invocation)
    waiting = waiting_for(here.contexts, _store_name(invocation), invocation.cluster, identity.name)
    made = request_certificate(waiting, identity, here.contexts, here.keyring, parse_key_type(key_type))
    text = request_pem(made)
    if out is not None:
        write_private(out, text.encode(), force=force, mode=PUBLIC)
    document = {"identity": identity.slug, "file": str(out) if out else None, "request": text}
    invocation.output.result(document, [str(out)] if out else text.splitlines())
    invocation.output.hint(f"next: an operator runs daskpki sign {out or 'FILE'}; then daskpki login --name {name}")


def _store_name(invocation: Invocation) -> str:
    """The store's URL as logins are told apart by, without opening it: it may not be readable yet."""
    import os

    from daskpki.settings import LocalUrl, parse_store_url
    from daskpki.store.opening import local_directory

    url: LocalUrl | GsmUrl = parse_store_url(invocation.store)
    return f"local:{local_directory(url, os.environ)}" if isinstance(url, LocalUrl) else str(url)


def sign(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The request, PEM or DER.")],
    who: Annotated[
        str | None, typer.Argument(metavar="[ROLE/NAME]", help="Whose it is [default: what it says, for new clients].")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the certificate there as well.")] = None,
    ttl: Annotated[str | None, typer.Option(metavar="T", help="Lifetime, such as 30d or 12h.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Issue a certificate for a request: its key is copied, and nothing else that it says.

    Examples:  [bold]daskpki sign alice.csr[/bold]   [bold]daskpki sign w.csr worker/w --out w.pem[/bold]

    The credential is stored without a key; whoever made the request has it.
    """
    from daskpki.authority.csr import proposed, sign_request
    from daskpki.cli.list_show import read_file
    from daskpki.files import write_private
    from daskpki.pki.csr import parse_request

    invocation: Invocation = ctx.obj
    asked = parse_request(read_file(file))
    with invocation.authority() as authority:
        role, name = parse_slug(who) if who else proposed(authority, asked)
        (leaf,) = authority.requests(role, [name], ttl=ttl)
        authority.check([leaf])
        issued = sign_request(authority, leaf, asked)
        document, now = authority.describe(issued.record), authority.session.now()
        if out is not None:
            write_private(out, _certificate(authority, issued).encode(), force=force, mode=PUBLIC)
    invocation.output.result(document, certificate_facts(document, now))
    if role is Role.CLIENT:
        certificate = f" --certificate {out}" if out else ""
        invocation.output.hint(f"next: where the request was made, daskpki login --name {name}{certificate}")


def _certificate(authority: CertificateAuthority, issued: Issued) -> str:
    from daskpki.pki.credential import certificate_pem, parse_credential

    store: Store = authority.session.store
    assert issued.record.version is not None, "it was stored just now"
    return certificate_pem(parse_credential(store.secrets.access(issued.secret, issued.record.version)))
