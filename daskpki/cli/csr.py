"""`daskpki request` and `daskpki sign`: a certificate for a key that stays where it was made."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daskpki.cli.invocation import Invocation, parse_role_and_name
from daskpki.cli.output import certificate_facts, colon_fingerprint
from daskpki.errors import PolicyError, UsageError
from daskpki.identity import Identity, Role, default_trust_domain
from daskpki.quoting import minute

if TYPE_CHECKING:
    from daskpki.authority.ca import CertificateAuthority
    from daskpki.credentials.contexts import Context
    from daskpki.pki.credential import Credential


def request(
    invocation: Invocation,
    who: Annotated[str, typer.Argument(metavar="client/NAME", help="The client; only clients keep keys in a keyring.")],
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The name, if it is not given as client/NAME.")
    ] = None,
    named: Annotated[str | None, typer.Option("--name", metavar="N", help="The same; a DNS label.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", show_default="stdout", help="Write the request to this file.")
    ] = None,
    key_type: Annotated[str, typer.Option(metavar="K", help="p256, p384 or rsa3072.")] = "p256",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Make a key in your OS keyring, and a request (CSR) for its certificate.

    Example:  [bold]daskpki request client/alice --out alice.csr[/bold]

    The key never leaves the keyring. Repeating the command gives a request for the same key, until a login completes
    it; daskpki whoami shows waiting keys, daskpki logout removes them.
    """
    from daskpki.authority.ca_keys import parse_key_type
    from daskpki.cli.login import keyring_remedy
    from daskpki.credentials.contexts import LOGIN_FILE, LOGIN_SUFFIX
    from daskpki.credentials.csr import request_certificate, waiting_for
    from daskpki.files import PUBLIC_FILE, check_writable, write_private
    from daskpki.pki.csr import request_pem

    role, label = parse_role_and_name(who, name, named)
    if role is not Role.CLIENT:
        hint = f"daskpki issue {role.value}; or any program's request: daskpki sign FILE {role.value}/NAME"
        raise PolicyError(f"a {role.value}'s key does not live in a person's keyring", hint=hint)
    if out is not None:
        check_writable(out, force=force)
    identity = Identity(default_trust_domain(invocation.cluster), role, label)
    here = invocation.environment()
    waiting = waiting_for(here.contexts, invocation.store_name, invocation.cluster, identity.name)
    instead = f"on a machine without a keyring, use what an operator's daskpki export client/{label} --out DIR writes"
    with keyring_remedy(f"unlock the keyring of your desktop session; {instead}"):
        made = request_certificate(waiting, identity, here.contexts, here.keyring, parse_key_type(key_type))
    text = request_pem(made)
    if out is not None:
        write_private(out, text.encode(), force=force, mode=PUBLIC_FILE)
    document = {"identity": identity.slug, "file": str(out) if out else None, "request": text}
    invocation.output.result(document, [str(out)] if out else text.splitlines())
    request_file = shlex.quote(str(out)) if out else "FILE"
    logins = {f"{here.contexts.id_of(store, waiting.cluster, label)}.json" for store in (LOGIN_FILE, waiting.store)}
    is_renewal = bool(logins & set(here.contexts.names()))
    # For a renewal, `sign` is told the name, and to replace the file.
    again, over = (f" client/{label}", " --force") if is_renewal else ("", "")
    login_file = shlex.quote(f"{out.stem if out else label}{LOGIN_SUFFIX}")
    invocation.output.hint(
        f"next: an operator runs daskpki sign {request_file}{again} --out {login_file}{over} and sends you that file; "
        f"then daskpki login {login_file}"
    )


def sign(
    invocation: Invocation,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The request, PEM or DER.")],
    who: Annotated[
        str | None,
        typer.Argument(
            metavar="ROLE/NAME",
            show_default="the name in the request, for a new client",
            help="Identity of the certificate.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write a file: a login file if it is called NAME.login, otherwise the certificate (PEM).",
        ),
    ] = None,
    ttl: Annotated[str | None, typer.Option(metavar="T", help="Lifetime, such as 30d or 12h.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Issue a certificate for the key of a request; its other fields are ignored.

    Examples:  [bold]daskpki sign dora.csr --out dora.login[/bold]   [bold]daskpki sign w.csr worker/w --out
    w.pem[/bold]

    The credential is stored without a key, which stays where the request was made. A login file is all that a person
    without access to the store needs: certificate, signed trust document and the scheduler's address, but no key.
    """
    from daskpki.credentials.contexts import LOGIN_SUFFIX, encode_context
    from daskpki.files import PUBLIC_FILE, check_writable, read_file, write_private
    from daskpki.pki.credential import certificate_pem, parse_credential
    from daskpki.pki.csr import parse_request

    options = [*(["--out", str(out)] if out else []), *(["--ttl", ttl] if ttl else []), *(["--force"] if force else [])]
    by_login_file = out is not None and out.suffix == LOGIN_SUFFIX
    asked = parse_request(read_file(file))
    if out is not None:
        check_writable(out, force=force)
    with invocation.authority() as authority:
        command = shlex.join(["daskpki", "sign", str(file), *options])
        role, name = parse_role_and_name(who) if who else authority.proposed(asked, command)
        if by_login_file and role is not Role.CLIENT:
            what = f"{out} would be a login file, and a {role.value} does not log in"
            raise UsageError(what, hint=f"--out {name}.pem")
        (leaf,) = authority.requests(role, [name], ttl=ttl)
        authority.check([leaf])
        issued = authority.sign_request(leaf, asked)
        document, now = authority.describe(issued.record), authority.session.now()
        if out is not None:
            assert issued.record.version is not None, "it was stored just now"
            payload = authority.session.store.secrets.access(issued.secret, issued.record.version)
            credential = parse_credential(payload)
            login_file = _login_file(authority, credential) if by_login_file else None
            data = encode_context(login_file) if login_file else certificate_pem(credential).encode()
            write_private(out, data, force=force, mode=PUBLIC_FILE)
    invocation.output.result(document, certificate_facts(document, now))
    if out is not None and login_file:
        invocation.output.hint(*_how_to_use(out, login_file))
    elif role is Role.CLIENT:
        invocation.output.hint(f"next: where the request was made, daskpki login {name}")


def _login_file(authority: CertificateAuthority, credential: Credential) -> Context:
    """The login file; its revocation list is valid as long as the certificate, up to the longest life of a list."""
    from daskpki.credentials.contexts import LOGIN_FILE, Context
    from daskpki.pki.certificates import load_certificate

    cluster, identity, _, leaf, chain = credential
    trust = authority.outlasting_trust(load_certificate(leaf).not_valid_after_utc)
    schedulers = trust.signed.document.schedulers
    return Context(LOGIN_FILE, cluster, identity.name, schedulers, leaf, chain, trust.data.reveal())


def _how_to_use(out: Path, file: Context) -> list[str]:
    from daskpki.pki.certificates import load_certificate
    from daskpki.pki.crl import next_update

    end = min(load_certificate(file.leaf).not_valid_after_utc.timestamp(), next_update(file.document))
    quoted = shlex.quote(str(out))
    how = f"daskpki login {shlex.quote(out.name)} --ca-sha256 FINGERPRINT"
    return [
        f"{out} is good until {minute(end)}; the CA's SHA-256 is",
        f"  {colon_fingerprint(file.ca_sha256)}",
        f"next: send {quoted} to {file.name}, and that fingerprint by another way; where the request was made, {how}",
    ]
