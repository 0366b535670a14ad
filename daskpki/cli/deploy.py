"""`daskpki deploy gcp`: a cluster on Google Cloud, planned, shown, exported, carried out, removed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from daskpki.cli.invocation import Commands, YesOption
from daskpki.errors import NothingToDo, UsageError

if TYPE_CHECKING:
    from daskpki.cli.invocation import Invocation
    from daskpki.deploy.gcloud import Run
    from daskpki.deploy.plan import Step
    from daskpki.deploy.settings import Deployment, Site

deploy = Commands(no_args_is_help=True, help="Plan a cluster's machines and grants, and carry the plan out.")


class Export(StrEnum):
    """The forms in which a plan can be written."""

    SCRIPT = "script"
    TERRAFORM = "terraform"
    CLOUD_INIT = "cloud-init"


class Use(NamedTuple):
    """Options for the use of the plan."""

    apply: bool
    yes: bool
    show_commands: bool
    detailed_exit_code: bool


@deploy.callback()
def group() -> None:
    """Place to which a cluster can be deployed."""


@deploy.command("gcp", no_args_is_help=True)
def gcp(
    ctx: typer.Context,
    zone: Annotated[str | None, typer.Option(metavar="Z", help="Zone of the VMs, such as europe-west1-b.")] = None,
    image: Annotated[str | None, typer.Option(metavar="I", help="Container image, by version or digest.")] = None,
    machine_type: Annotated[
        str, typer.Option(metavar="M", help="Machine type of the workers' VMs, or of the only VM.")
    ] = "e2-standard-4",
    scheduler_machine_type: Annotated[
        str, typer.Option(metavar="M", help="Machine type of the scheduler's VM, if there are others.")
    ] = "e2-standard-2",
    accelerator: Annotated[
        str | None, typer.Option(metavar="T", hidden=True, help="GPU of the VMs. Refused: nothing here sets one up.")
    ] = None,
    workers: Annotated[int, typer.Option(metavar="N", help="VMs of workers. With 0, one VM runs everything.")] = 0,
    isolate_workers: Annotated[
        bool, typer.Option("--isolate-workers", help="Give each worker VM its own name, leaf and service account.")
    ] = False,
    regional: Annotated[
        bool, typer.Option("--regional", help="Spread the workers' VMs over the zones of the region.")
    ] = False,
    surge: Annotated[
        int | None,
        typer.Option(metavar="N", help="VMs that a rolling replacement adds: 0, or at least 1 (regional: 3)."),
    ] = None,
    spot: Annotated[bool, typer.Option("--spot", help="Use spot VMs for workers.")] = False,
    disk_size: Annotated[
        int | None, typer.Option(metavar="GB", help="Boot disk, where workers spill. Default: the OS image's 10 GB.")
    ] = None,
    disk_type: Annotated[
        str | None, typer.Option(metavar="T", help="Boot disk type, such as pd-ssd. Default: Google's.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="K=V", help="Label of the VMs.")] = None,
    clients_from: Annotated[
        list[str] | None, typer.Option(metavar="RANGE", help="IP range that may reach port 8786. Default: none.")
    ] = None,
    iap: Annotated[bool, typer.Option("--iap", help="Let Identity-Aware Proxy reach SSH and port 8786.")] = False,
    tag: Annotated[list[str] | None, typer.Option(metavar="T", help="Network tag of the VMs.")] = None,
    network: Annotated[
        str, typer.Option(metavar="N", help="VPC network; for a Shared VPC projects/HOST/global/networks/N.")
    ] = "default",
    subnet: Annotated[
        str | None, typer.Option(metavar="S", help="Subnet; for a Shared VPC projects/HOST/regions/R/subnetworks/S.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Give no VM an external address.")] = False,
    scheduler_service_account: Annotated[
        str | None,
        typer.Option(metavar="MAIL", help="Existing service account of the scheduler's or only VM."),
    ] = None,
    worker_service_account: Annotated[
        str | None, typer.Option(metavar="MAIL", help="Existing service account of the workers' VMs.")
    ] = None,
    no_logging: Annotated[bool, typer.Option("--no-logging", help="Send no logs to Cloud Logging.")] = False,
    no_monitoring: Annotated[
        bool, typer.Option("--no-monitoring", help="Send no metrics to Cloud Monitoring.")
    ] = False,
    threads_per_worker: Annotated[int | None, typer.Option(metavar="N", help="Threads per worker process.")] = None,
    memory_per_worker: Annotated[
        str | None, typer.Option(metavar="GB", help="Memory limit per worker process.")
    ] = None,
    num_workers: Annotated[int | None, typer.Option(metavar="N", help="Worker processes on each VM.")] = None,
    worker_clients: Annotated[
        str | None, typer.Option(metavar="MODE", help="Clients inside tasks: deny, limited or allow.")
    ] = None,
    scheduler_code: Annotated[
        str | None, typer.Option(metavar="MODE", help="What the scheduler may unpickle: stock or sealed (nothing).")
    ] = None,
    ca_sha256: Annotated[str | None, typer.Option(metavar="HEX", help="The only CA that VMs trust.")] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="N=WHERE", help="Workers mount N, or N@VERSION, at /run/secrets/FILE or as fd."),
    ] = None,
    allow_secrets_in_environment: Annotated[
        bool,
        typer.Option(
            "--allow-secrets-in-environment",
            help="Also as env:VAR, which child processes, crash reports and readers of /proc/PID/environ see.",
        ),
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Carry the plan out, after a question on a terminal.")] = False,
    yes: YesOption = False,
    destroy: Annotated[bool, typer.Option("--destroy", help="Plan to remove everything that was made.")] = False,
    export: Annotated[
        Export | None,
        typer.Option(metavar="FORM", help="Write the plan as script, terraform or cloud-init; nothing is read."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="New directory for --export terraform.")] = None,
    part: Annotated[
        str | None, typer.Option(metavar="P", help="Part for --export cloud-init: scheduler, worker, worker-3 or node.")
    ] = None,
    show_commands: Annotated[
        bool, typer.Option("--show-commands", help="Show what each step runs and what undoes it.")
    ] = False,
    detailed_exit_code: Annotated[
        bool, typer.Option("--detailed-exit-code", help="Exit code 6 if there is nothing to change.")
    ] = False,
) -> None:
    """Plan a cluster on Compute Engine, and with --apply carry the plan out by gcloud.

    One VM:  [bold]daskpki deploy gcp --store gsm://PROJECT --zone europe-west1-b --image IMAGE:1[/bold]

    Many:  [bold]daskpki deploy gcp --store gsm://PROJECT --zone Z --image I:1 --workers 20 --clients-from R[/bold]

    The plan is shown first. Without --apply nothing changes; applying twice changes nothing. No secret is in a command,
    in metadata or in an environment. CA, credentials and enabled services outlive --destroy.
    """
    from daskpki.deploy.settings import Deployment, Site, check_deployment, parse_gsm

    invocation: Invocation = ctx.obj
    use = Use(apply, yes, show_commands, detailed_exit_code)
    store = parse_gsm(invocation.store)
    wanted = None
    if zone is not None and image is not None:
        wanted = check_deployment(
            Deployment(
                store=store,
                cluster=invocation.cluster,
                zone=zone,
                image=image,
                machine_type=machine_type,
                scheduler_machine_type=scheduler_machine_type,
                accelerator=accelerator,
                workers=workers,
                isolate_workers=isolate_workers,
                regional=regional,
                surge=surge,
                spot=spot,
                disk_size=disk_size,
                disk_type=disk_type,
                labels=tuple(label or ()),
                clients_from=tuple(clients_from or ()),
                iap=iap,
                tags=tuple(tag or ()),
                network=network,
                subnet=subnet,
                private=private,
                scheduler_account=scheduler_service_account,
                worker_account=worker_service_account,
                logging=not no_logging,
                monitoring=not no_monitoring,
                threads_per_worker=threads_per_worker,
                memory_per_worker=memory_per_worker,
                num_workers=num_workers,
                worker_clients=worker_clients,
                scheduler_code=scheduler_code,
                ca_sha256=ca_sha256,
                ca_passphrase_file=_absolute(invocation.ca_passphrase_file),
                secrets=tuple(secret or ()),
                secrets_in_environment=allow_secrets_in_environment,
            )
        )
    if export is not None:
        if apply or destroy:
            raise UsageError("--export only writes the plan", hint="leave out --apply and --destroy")
        _export(invocation, _given(wanted), export, out, part)
    elif destroy:
        _destroy(invocation, use, wanted or Site(store, invocation.cluster, network))
    else:
        _deploy(invocation, use, _given(wanted))


def _absolute(file: str | None) -> str | None:
    """Steps run in another directory, so the path has to say where it begins."""
    return None if file is None else str(Path(file).absolute())


def _given(wanted: Deployment | None) -> Deployment:
    if wanted is None:
        raise UsageError(
            "a deployment needs a zone and an image", hint="--zone europe-west1-b --image REGISTRY/PATH:TAG"
        )
    return wanted


def _deploy(invocation: Invocation, use: Use, wanted: Deployment) -> None:
    """Show the plan; with --apply carry it out and record the scheduler's address."""
    from daskpki.deploy.apply import find_scheduler, plan_deployment
    from daskpki.deploy.gcloud import runner
    from daskpki.deploy.plan import reach

    run = runner()
    invocation.output.hint(f"asking Google Cloud what is in {wanted.project} of cluster {wanted.cluster} ...")
    steps = plan_deployment(run, wanted, invocation.output.hint)
    if invocation.ca_passphrase_file is None and any("init-ca" in one for step in steps for one in step.commands):
        invocation.output.hint("note: the CA's key is stored unsealed; --ca-passphrase-file FILE seals it")
    _carry_out(invocation, use, steps, run, notes=reach(wanted))
    if use.apply:
        # People who log in need not be told the address.
        address = find_scheduler(run, wanted)
        with invocation.authority() as authority:
            authority.announce(address)
        invocation.output.hint(f"the scheduler's address is recorded: {address}", "next: daskpki login")


def _destroy(invocation: Invocation, use: Use, site: Site) -> None:
    from daskpki.deploy.apply import plan_destruction
    from daskpki.deploy.gcloud import runner

    run = runner()
    invocation.output.hint(f"asking Google Cloud what is in {site.project} of cluster {site.cluster} ...")
    _carry_out(invocation, use, plan_destruction(run, site, invocation.output.hint), run)


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

    if form is Export.TERRAFORM:
        files = terraform_files(wanted)
        if not invocation.output.as_json:
            _write(files, out)
        lines = [f"{out}/{name}" for name in files]
        invocation.output.result({"format": form.value, "files": files}, lines)
        return
    text = script(wanted) if form is Export.SCRIPT else user_data(wanted, part)
    invocation.output.result({"format": form.value, "text": text}, [text.rstrip("\n")])


def _write(files: dict[str, str], out: Path | None) -> None:
    if out is None:
        raise UsageError("a Terraform configuration is several files", hint="--out DIR names a directory for them")
    out.mkdir(parents=True, exist_ok=True)
    for name in files:
        if (out / name).exists():
            raise UsageError(f"{out / name} exists, and may have been edited", hint="--out names another directory")
    for name, content in files.items():
        (out / name).write_text(content)
