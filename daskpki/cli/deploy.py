"""`daskpki deploy gcp`: a cluster on Google Cloud, planned, shown, exported, carried out, removed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, fields
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_type_hints

import typer

from daskpki.cli.invocation import Commands, Invocation, YesOption, replace_parameter
from daskpki.deploy.settings import Deployment, Site, check_deployment
from daskpki.errors import NothingToDo, UsageError
from daskpki.settings import require_gsm

if TYPE_CHECKING:
    from daskpki.deploy.gcloud import Run
    from daskpki.deploy.plan import Step

deploy = Commands(no_args_is_help=True, help="Plan a cluster's machines and grants, and carry the plan out.")


class Export(StrEnum):
    """The forms in which a plan can be written."""

    SCRIPT = "script"
    TERRAFORM = "terraform"
    CLOUD_INIT = "cloud-init"


class Use(NamedTuple):
    """Options for the use of the plan."""

    apply: Annotated[bool, typer.Option("--apply", help="Carry the plan out, after a question on a terminal.")] = False
    yes: YesOption = False
    destroy: Annotated[bool, typer.Option("--destroy", help="Plan to remove everything that was made.")] = False
    export: Annotated[
        Export | None,
        typer.Option(metavar="FORM", help="Write the plan as script, terraform or cloud-init; nothing is read."),
    ] = None
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="New directory for --export terraform.")] = None
    part: Annotated[
        str | None, typer.Option(metavar="P", help="Part for --export cloud-init: scheduler, worker, worker-3 or node.")
    ] = None
    show_commands: Annotated[
        bool, typer.Option("--show-commands", help="Show what each step runs and what undoes it.")
    ] = False
    detailed_exit_code: Annotated[
        bool, typer.Option("--detailed-exit-code", help="Exit code 6 if there is nothing to change.")
    ] = False


@deploy.callback()
def group() -> None:
    """Makes deploy a group, although it has one command."""


def _options() -> Iterator[tuple[str, Any, Any]]:
    """The options that set fields of a Deployment: the required ones first, then in the order of the fields."""
    hints = get_type_hints(Deployment, include_extras=True)
    for field in sorted(fields(Deployment), key=lambda field: field.default is not MISSING):
        for option in getattr(hints[field.name], "__metadata__", ()):
            name = option.name or f"--{field.name.replace('_', '-')}"
            declared = typer.Option(name, metavar=option.metavar, help=option.help, hidden=option.hidden)
            kind = hints[field.name].__origin__
            if kind == tuple[str, ...]:
                yield field.name, Annotated[list[str] | None, declared], None
            elif field.default is MISSING:
                yield field.name, Annotated[kind | None, declared], None
            else:
                yield field.name, Annotated[kind, declared], field.default


def _settings(**options: Any) -> dict[str, Any]:
    """The options that were given or have a default, as fields of a Deployment."""
    given = {name: value for name, value in options.items() if value is not None}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


@deploy.command("gcp", no_args_is_help=True)
@partial(replace_parameter, name="settings", options=list(_options()), make=_settings)
def gcp(invocation: Invocation, settings: dict[str, Any], use: Use = Use()) -> None:
    """Plan a cluster on Compute Engine, and with --apply carry the plan out by gcloud.

    One VM:  [bold]daskpki deploy gcp --store gsm://PROJECT --zone europe-west1-b --image IMAGE:1[/bold]

    Many:  [bold]daskpki deploy gcp --store gsm://PROJECT --zone Z --image I:1 --workers 20 --clients-from R[/bold]

    The plan is shown first. Without --apply nothing changes; applying twice changes nothing. No secret is in a command,
    in metadata or in an environment. CA, credentials and enabled services outlive --destroy.
    """
    store = require_gsm(invocation.url)
    wanted = None
    if {"zone", "image"} <= settings.keys():
        # Steps run in another directory, so the path has to be absolute.
        file = invocation.given.ca_passphrase_file and str(Path(invocation.given.ca_passphrase_file).absolute())
        settings |= {"ca_sha256": invocation.given.ca_sha256, "ca_passphrase_file": file}
        wanted = check_deployment(Deployment(store=store, cluster=invocation.cluster, **settings))
    if use.export is not None and (use.apply or use.destroy):
        raise UsageError("--export only writes the plan", hint="leave out --apply and --destroy")
    if wanted is None and not use.destroy:
        hint = "--zone europe-west1-b --image REGISTRY/PATH:TAG"
        raise UsageError("a deployment needs a zone and an image", hint=hint)
    if wanted is not None and use.export is not None:
        _export(invocation, wanted, use.export, use.out, use.part)
        return
    from daskpki.deploy.apply import find_scheduler, plan_deployment, plan_destruction
    from daskpki.deploy.gcloud import runner
    from daskpki.deploy.plan import reach

    run, tell = runner(), invocation.output.hint
    site = wanted or Site(store, invocation.cluster, settings["network"])
    tell(f"asking Google Cloud what is in {site.project} of cluster {site.cluster} ...")
    if wanted is None or use.destroy:
        _carry_out(invocation, use, plan_destruction(run, site, tell), run)
        return
    steps = plan_deployment(run, wanted, tell)
    if invocation.given.ca_passphrase_file is None and any("init-ca" in one for step in steps for one in step.commands):
        tell("note: the CA's key is stored unsealed; --ca-passphrase-file FILE seals it")
    _carry_out(invocation, use, steps, run, notes=reach(wanted))
    if use.apply:
        # People who log in need not be told the address.
        address = find_scheduler(run, wanted)
        with invocation.authority() as authority:
            authority.announce(address)
        tell(f"the scheduler's address is recorded: {address}", "next: daskpki login")


def _carry_out(invocation: Invocation, use: Use, steps: Sequence[Step], run: Run, notes: Iterable[str] = ()) -> None:
    """Show the plan, ask, and carry it out. With --json the document comes last, since it reports the result."""
    import time

    from daskpki.deploy.apply import carry_out
    from daskpki.deploy.plan import plan_document, plan_lines, summary

    output = invocation.output
    lines = [*plan_lines(steps, commands=use.show_commands), *(f"  {note}" for note in notes if steps)]
    if not output.as_json:
        output.result(None, lines)
    if steps and use.apply:
        output.hint(summary(steps))
        output.confirm("Apply?", yes=use.yes)
        carry_out(
            steps,
            run,
            progress=lambda number, step: output.hint(f"[{number}/{len(steps)}] {step.line}"),
            sleep=time.sleep,
        )
        output.hint("done")
    elif steps:
        output.hint(f"{summary(steps)}; nothing was changed: add --apply")
    if output.as_json:
        output.result({"applied": use.apply, "steps": plan_document(steps)}, ())
    if not steps and use.detailed_exit_code:
        raise NothingToDo("nothing to change")


def _export(invocation: Invocation, wanted: Deployment, form: Export, out: Path | None, part: str | None) -> None:
    from daskpki.deploy.export import script, user_data
    from daskpki.deploy.terraform import terraform_files
    from daskpki.files import PUBLIC_FILE, is_there, make_directory, write_private

    if form is Export.TERRAFORM:
        files = terraform_files(wanted)
        if not invocation.output.as_json:
            if out is None:
                raise UsageError("a Terraform configuration is several files", hint="--out DIR takes them")
            make_directory(out)
            if taken := [str(out / name) for name in files if is_there(out / name)]:
                raise UsageError(f"{taken[0]} exists, and may have been edited", hint="--out names another directory")
            for name, content in files.items():
                write_private(out / name, content.encode(), mode=PUBLIC_FILE)
        lines = [f"{out}/{name}" for name in files]
        invocation.output.result({"format": form.value, "files": files}, lines)
        return
    text = script(wanted) if form is Export.SCRIPT else user_data(wanted, part)
    invocation.output.result({"format": form.value, "text": text}, [text.rstrip("\n")])
