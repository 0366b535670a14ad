"""`daskpki rotate-ca`: replaces the CA step by step, or at once when its key was stolen.

Every step ends with the same document (`--json`): the state of the rollover, its CAs, and the next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from daskpki.authority.rollover import RETIRING, STARTED
from daskpki.cli.init_ca import OfflineRootFile
from daskpki.cli.invocation import Commands, Invocation, YesOption
from daskpki.cli.issue import progress
from daskpki.cli.output import colon_fingerprint, table
from daskpki.cli.renew_revoke import ONE_POLL, Push, notify_schedulers
from daskpki.errors import UnavailableError, UsageError
from daskpki.quoting import rfc3339
from daskpki.records import CA_ACTIVATED

if TYPE_CHECKING:
    from daskpki.authority.ca import CertificateAuthority
    from daskpki.authority.ca_keys import OfflineRoot
    from daskpki.authority.rollover import RolloverStatus, Successor
    from daskpki.inventory import AuthorityRecord


class NewCa(NamedTuple):
    """Options that describe the new CA."""

    key_type: Annotated[str, typer.Option(metavar="K", help="Key type of the new CA: p256, p384 or rsa3072.")] = "p256"
    ca_key: Annotated[
        str | None,
        typer.Option(metavar="URI", show_default="beside the old CA's", help="Where to keep the new CA's key."),
    ] = None
    ca_passphrase: Annotated[
        bool, typer.Option("--ca-passphrase", help="Encrypt the new key with a passphrase, and ask for it.")
    ] = False
    lower_sealing: Annotated[
        bool, typer.Option("--lower-sealing", help="Allow weaker protection of the new key than of the old one.")
    ] = False

    def successor(self, root: OfflineRoot | None, permit_dns: Sequence[str] = ()) -> Successor:
        """The new CA for the rollover; PolicyError or UsageError for what a CA cannot be."""
        from daskpki.authority.ca_keys import parse_ca_key_type
        from daskpki.authority.rollover import Successor

        return Successor(parse_ca_key_type(self.key_type), self.ca_key, root, tuple(permit_dns), self.lower_sealing)


def rollover_document(authority: CertificateAuthority) -> dict[str, Any]:
    """State of the rollover, its CAs oldest first, and the next step if there is one."""
    now = authority.rollover().status()
    return {
        "phase": now.phase,
        "issuing": now.active.generation,
        "published": now.published,
        "authorities": [_authority(authority, entry) for entry in sorted(now.living)],
        "toReissue": [entry.slug for entry in now.reissue],
        "heldByOthers": [entry.slug for entry in now.by_request],
        "next": _next_step(now),
    }


def _authority(authority: CertificateAuthority, entry: AuthorityRecord) -> dict[str, Any]:
    from daskpki.authority.lookup import STATES
    from daskpki.pki.certificates import load_certificate
    from daskpki.pki.pem import fingerprint

    anchor = entry.anchor_der
    moment = authority.session.now().timestamp()
    leaves = authority.inventory().certificates()
    return {
        "generation": entry.generation,
        "state": STATES[entry.status],
        "fingerprint": fingerprint(anchor),
        "notAfter": rfc3339(load_certificate(anchor).not_valid_after_utc),
        "key": entry.key_uri,
        "certificates": sum(leaf.issuer == entry.generation and leaf.state(moment) == "issued" for leaf in leaves),
    }


def _next_step(now: RolloverStatus) -> str | None:
    if not now.published:
        step = {STARTED: "rotate-ca start", RETIRING: f"rotate-ca {now.last_step}"}.get(now.phase, "renew --due")
        return f"daskpki {step}, to publish what an interrupted command had begun"
    if not now.others:
        return "daskpki renew --due, since certificates of a dropped CA are not trusted" if now.reissue else None
    if now.phase == STARTED:
        return "wait until nodes have read it (within a minute), then daskpki rotate-ca promote"
    if now.reissue:
        return f"daskpki rotate-ca {now.last_step}"
    return (
        "wait until nodes have their new certificates (within some minutes) and people ran daskpki login, "
        "then daskpki rotate-ca finish"
    )


rotate_ca = Commands(
    invoke_without_command=True,
    help=(
        "Replace the CA without downtime: start, promote, finish; status at any time, abort until finish. "
        "If the CA's key was stolen: [bold]daskpki rotate-ca --emergency[/bold]"
    ),
)

LostOption = Annotated[
    bool, typer.Option("--old-key-lost", help="Continue without the old key; running nodes have to be restarted.")
]


@rotate_ca.callback()
def rotate(
    ctx: typer.Context,
    emergency: Annotated[
        bool, typer.Option("--emergency", help="Replace a compromised CA at once; nothing it issued stays trusted.")
    ] = False,
    new: NewCa = NewCa(),
    root: OfflineRootFile = OfflineRootFile(),
    old_key_lost: LostOption = False,
    push: Push = Push(),
    yes: YesOption = False,
) -> None:
    """Replace the CA at once with --emergency; otherwise name a step."""
    if step := ctx.invoked_subcommand:
        if any(source and source.name == "COMMANDLINE" for source in map(ctx.get_parameter_source, ctx.params)):
            hint = "put them behind it; --emergency takes no step"
            raise UsageError(f"options before {step} are not used", hint=hint)
        return
    if not emergency:
        raise UsageError("rotate-ca needs a step", hint="daskpki rotate-ca start, status, promote, finish or abort")
    invocation: Invocation = ctx.obj
    successor = new.successor(root.named(invocation.cluster))
    invocation.output.confirm(
        f"This replaces the CA of cluster {invocation.cluster} at once: nothing it issued stays trusted. Go on?",
        yes=yes,
    )
    with invocation.authority(seal=new.ca_passphrase) as authority:
        began = authority.session.clock()
        made, cut = authority.rollover().emergency(successor, old_keys=not old_key_lost)
        if made.status == CA_ACTIVATED:
            which = f"this finished the emergency that made CA {made.generation}"
            invocation.output.warn(f"{which}; if the key of that CA was stolen as well, run the command again")
        notify_schedulers(invocation, authority, push, expected=False)
        invocation.output.hint(f"the old CA is no longer trusted, after {cut:.1f} s; reissuing")
        count = _reissue(invocation, authority, give_way=False)
        total = (authority.session.clock() - began).total_seconds()
        document = rollover_document(authority) | {"reissued": count, "cutAfterSeconds": cut, "seconds": total}
    lines = [
        f"CA {made.generation} issues; nothing else is trusted, {cut:.1f} s after the start",
        f"{_certificates(count)} reissued, {total:.1f} s after the start",
        f"  SHA-256  {colon_fingerprint(document['authorities'][-1]['fingerprint'])}",
    ]
    _report(invocation, document, lines)
    invocation.output.hint(
        _LOST if old_key_lost else "running nodes follow within a minute; people have to run daskpki login again"
    )


@rotate_ca.command()
def start(
    invocation: Invocation,
    new: NewCa = NewCa(),
    root: OfflineRootFile = OfflineRootFile(),
    permit_dns: Annotated[
        list[str] | None, typer.Option(metavar="D", help="Further domain that certificates of the new CA may name.")
    ] = None,
    push: Push = Push(),
) -> None:
    """Make the new CA and publish it: nodes then trust both CAs.

    Example:  [bold]daskpki rotate-ca start[/bold]
    """
    successor = new.successor(root.named(invocation.cluster), permit_dns or ())
    with invocation.authority(seal=new.ca_passphrase) as authority:
        made, resumed = authority.rollover().start(successor)
        notify_schedulers(invocation, authority, push, expected=False)
        document = rollover_document(authority)
    lines = [f"CA {made.generation} is trusted in addition to CA {document['issuing']}"]
    lines.append(f"  SHA-256  {colon_fingerprint(document['authorities'][-1]['fingerprint'])}")
    if resumed:
        lines.append("it was started before, with the options given then; daskpki rotate-ca abort drops it")
    _report(invocation, document, lines)


@rotate_ca.command()
def status(invocation: Invocation) -> None:
    """Show the trusted CAs, the certificates still to reissue, and the next step.

    Example:  [bold]daskpki rotate-ca status[/bold]
    """
    with invocation.authority() as authority:
        document = rollover_document(authority)
    rows = [
        (str(entry["generation"]), entry["state"], entry["notAfter"][:10], str(entry["certificates"]), key)
        for entry in document["authorities"]
        for key in ["in the store" if entry["key"] == "store:" else entry["key"]]
    ]
    lines = [*table(("ca", "state", "valid until", "valid leaves", "key"), rows)]
    if not document["published"]:
        lines.append("the trust document does not show this yet")
    _report(invocation, document, lines)


@rotate_ca.command()
def promote(invocation: Invocation, push: Push = Push()) -> None:
    """Make the new CA issue, and reissue all valid certificates from it; run it again after an interruption.

    Example:  [bold]daskpki rotate-ca promote[/bold]
    """
    with invocation.authority() as authority:
        rollover = authority.rollover()
        if rollover.status().phase == STARTED:
            age = authority.session.now().timestamp() - authority.trust().issued_at
            if age < ONE_POLL:
                fresh = f"the trust document is {age:.0f} s old"
                invocation.output.warn(f"{fresh}; nodes that have not read it refuse the new CA for up to a minute")
        target = rollover.promote()
        notify_schedulers(invocation, authority, push, expected=False)
        count = _reissue(invocation, authority)
        document = rollover_document(authority) | {"reissued": count}
    _report(invocation, document, [f"CA {target.generation} issues; {_certificates(count)} reissued"])
    _check_all_reissued(document)


@rotate_ca.command()
def finish(
    invocation: Invocation,
    force: Annotated[
        bool, typer.Option("--force", help="Drop the old CA even if valid certificates of it remain.")
    ] = False,
    old_key_lost: LostOption = False,
    push: Push = Push(),
    yes: YesOption = False,
) -> None:
    """Drop the old CA: nothing it issued stays trusted, and its key is erased.

    Example:  [bold]daskpki rotate-ca finish[/bold]
    """
    with invocation.authority() as authority:
        before = authority.rollover().status()
        if before.others:
            dropped = " and ".join(f"CA {entry.generation}" for entry in before.others)
            invocation.output.confirm(
                f"This drops {dropped}: nothing it issued stays trusted, and its key is erased. Go on?", yes=yes
            )
        erased = authority.rollover().finish(force=force, old_keys=not old_key_lost)
        notify_schedulers(invocation, authority, push, expected=False)
        document = rollover_document(authority) | {"keysErased": erased}
    _report(invocation, document, _dropped(before.others) or [_one_left(before, "finish")])
    if not erased:
        refused = "the old CA's key was not erased, because you lack the permission"
        invocation.output.warn(f"{refused}; ask someone who may delete its secret")


@rotate_ca.command()
def abort(invocation: Invocation, push: Push = Push()) -> None:
    """Undo the rollover: drop the new CA, or after promote make the old one issue again (then finish).

    Example:  [bold]daskpki rotate-ca abort[/bold]
    """
    with invocation.authority() as authority:
        before = authority.rollover().status()
        target = authority.rollover().abort()
        notify_schedulers(invocation, authority, push, expected=False)
        count = _reissue(invocation, authority)
        document = rollover_document(authority) | {"reissued": count}
    if not before.others:
        lines = [_one_left(before, "abort")]
    else:
        dropped = _dropped(before.others) if before.phase == STARTED else []
        lines = [*dropped, f"CA {target.generation} issues; {_certificates(count)} reissued"]
    _report(invocation, document, lines)
    _check_all_reissued(document)


def _reissue(invocation: Invocation, authority: CertificateAuthority, *, give_way: bool = True) -> int:
    rollover = authority.rollover()
    total = len(rollover.status().reissue)
    with progress(invocation, total, rollover.reissue(give_way=give_way)) as issued:
        return sum(1 for _ in issued)


def _report(invocation: Invocation, document: dict[str, Any], lines: list[str]) -> None:
    invocation.output.result(document, lines)
    if held := document["heldByOthers"]:
        made = f"certificates whose keys their owners made: {', '.join(held)}"
        invocation.output.hint(f"{made}; these people have to run daskpki request again")
    if step := document["next"]:
        invocation.output.hint(f"next: {step}")


def _check_all_reissued(document: dict[str, Any]) -> None:
    """Raise UnavailableError if certificates are not reissued yet: another command may reserve them for ten minutes."""
    if left := document["toReissue"]:
        raise UnavailableError(
            f"certificates not reissued yet, because another command reserved them: {len(left)}",
            hint="run this again in ten minutes",
        )


_LOST = (
    "no running node follows without the old key: restart each, with the new SHA-256 where it has a pin; people run "
    "daskpki logout and daskpki login"
)


def _one_left(before: RolloverStatus, step: str) -> str:
    return f"nothing to {step}: there is one CA" + ("" if before.published else "; the trust document shows that now")


def _dropped(others: Sequence[AuthorityRecord]) -> list[str]:
    return [f"dropped CA {entry.generation}: nothing it issued stays trusted" for entry in others]


def _certificates(count: int) -> str:
    return f"{count} certificate" + ("" if count == 1 else "s")
