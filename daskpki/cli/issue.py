"""`daskpki issue`: leaves for schedulers, workers and clients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from daskpki.cli.invocation import Invocation, parse_role_and_name
from daskpki.cli.output import certificate_table
from daskpki.errors import Interrupted
from daskpki.identity import Role, parse_label
from daskpki.pki.profile import Grade

if TYPE_CHECKING:
    from rich.progress import Progress

    from daskpki.authority.issuance import Issued

_BAR_FROM = 20  # fewer leaves are issued before anybody could read a bar


def issue(
    invocation: Invocation,
    who: Annotated[str, typer.Argument(metavar="ROLE[/NAME]", help="Role of the certificate, and its name.")],
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The name, if it is not given as ROLE/NAME.")
    ] = None,
    named: Annotated[
        str | None,
        typer.Option("--name", metavar="N", help="The same; a DNS label. Default for scheduler and worker: the role."),
    ] = None,
    dns: Annotated[list[str] | None, typer.Option(metavar="D", help="Further DNS name, in a permitted domain.")] = None,
    ip: Annotated[list[str] | None, typer.Option(metavar="A", help="IP address of the scheduler or worker.")] = None,
    ttl: Annotated[str | None, typer.Option(metavar="T", help="Lifetime, such as 30d or 12h.")] = None,
    grade: Annotated[
        list[Grade] | None, typer.Option(metavar="G", help="admin lets a client run code in a sealed scheduler.")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            min=1, max=100_000, metavar="N", help="Issue N certificates, NAME-0 to NAME-(N-1), in one secret each."
        ),
    ] = None,
    key_type: Annotated[str, typer.Option(metavar="K", help="p256, p384, rsa3072 or ed25519.")] = "p256",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, and change nothing.")] = False,
) -> None:
    """Issue a certificate and keep it in the store.

    Examples:  [bold]daskpki issue worker[/bold]   [bold]daskpki issue client/alice --ttl 7d[/bold]

    A hundred named workers:  [bold]daskpki issue worker --name w --count 100[/bold]

    Run an interrupted --count again to continue: names with a valid certificate are kept.
    """
    role, stem = parse_role_and_name(who, name, named)
    names = [stem] if count is None else [parse_label(f"{stem}-{number}", "name") for number in range(count)]
    with invocation.authority() as authority:
        requests = authority.requests(role, names, dns=dns or (), ips=ip or (), ttl=ttl, grades=grade or ())
        wanted = [request for request in requests if not count or not authority.has_valid(request.identity)]
        kept = len(requests) - len(wanted)
        authority.check(wanted, key_type)
        if dry_run:
            identities = [request.identity.uri for request in wanted]
            lines = [f"would issue {identity}" for identity in identities]
            lines += [f"valid certificates that would be kept: {kept}"] if kept else []
            invocation.output.result({"issue": identities, "kept": kept}, lines or ["nothing to issue"])
            return
        if key_type == "ed25519":
            from daskpki.pki.keys import ED25519_WARNING

            invocation.output.warn(ED25519_WARNING)
        now = authority.session.now()
        with progress(invocation, len(wanted), authority.issue(wanted, key_type)) as issued:
            documents = [authority.describe(leaf.record) for leaf in issued]
    lines = [*certificate_table(documents, now)] if documents else []
    lines += [f"valid certificates kept: {kept}; daskpki renew replaces them"] if kept else []
    invocation.output.result(documents, lines)
    if documents:
        invocation.output.hint(next_step(documents[0]["role"], documents[0]["name"]))


@contextmanager
def progress(invocation: Invocation, total: int, issued: Iterator[Issued]) -> Iterator[Iterable[Issued]]:
    """Pass the leaves on as they are issued, with a bar on stderr for many; Ctrl-C reports how many were issued."""
    done = 0

    def counted() -> Iterator[Issued]:
        nonlocal done
        for leaf in issued:
            done += 1
            yield leaf

    try:
        if total < _BAR_FROM or invocation.output.quiet:
            yield counted()
        else:
            with _bar() as bar:
                yield bar.track(counted(), total=total)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted: {done} of {total} certificates were issued", hint="the same command goes on with the rest"
        ) from None


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("issuing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def next_step(role: str, name: str) -> str:
    """The hint for a leaf that was just issued."""
    if role == Role.CLIENT:
        return f"next: daskpki login {name}"
    setting = "" if name == role else f"DASKPKI_NAME={name} "
    return f"next: on the machine, {setting}daskpki-entrypoint {role}"
