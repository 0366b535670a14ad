"""`daskpki deploy gcp`: a cluster on Google Cloud, planned, shown, exported, carried out, removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from daskpki.cli.invocation import Commands
from daskpki.errors import NothingToDo, UsageError

if TYPE_CHECKING:
    from daskpki.cli.invocation import Invocation
    from daskpki.deploy.gcloud import Run
    from daskpki.deploy.observing import Scene
    from daskpki.deploy.plan import Step
    from daskpki.deploy.settings import Deployment

    Planner = Callable[[Run], Sequence[Step]]

deploy = Commands(no_args_is_help=True, help="Plan a cluster's machines and grants, and carry the plan out.")


class Wish(NamedTuple):
    """What is to be done with the plan."""

    apply: bool
    destroy: bool
    export: Export | None
    part: str | None
    show_commands: bool
    detailed_exit_code: bool


class Export(StrEnum):
    """What a plan can be written as."""

    SCRIPT = "script"
    TERRAFORM = "terraform"
    CLOUD_INIT = "cloud-init"


@deploy.callback()
def group() -> None:
    """Where a cluster can be deployed to."""


@deploy.command("gcp", no_args_is_help=True)
def gcp(
    ctx: typer.Context,
    zone: Annotated[str | None, typer.Option(metavar="Z", help="Where the VMs run, such as europe-west1-b.")] = None,
    image: Annotated[str | None, typer.Option(metavar="I", help="The container, with its version or digest.")] = None,
    machine_type: Annotated[
        str, typer.Option(metavar="M", help="Of the workers' VMs, or of the only one.")
    ] = "e2-standard-4",
    scheduler_machine_type: Annotated[
        str, typer.Option(metavar="M", help="Of the scheduler's VM, when there are others.")
    ] = "e2-standard-2",
    workers: Annotated[int, typer.Option(metavar="N", help="VMs of workers; with 0, one VM is all.")] = 0,
    isolate_workers: Annotated[
        bool, typer.Option("--isolate-workers", help="Each worker VM gets a name, leaf and service account of its own.")
    ] = False,
    clients_from: Annotated[
        list[str] | None, typer.Option(metavar="RANGE", help="Whence clients may reach port 8786; else nobody may.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="T", help="A network tag of the VMs.")] = None,
    network: Annotated[str, typer.Option(metavar="N", help="Their network.")] = "default",
    subnet: Annotated[str | None, typer.Option(metavar="S", help="Their subnet, where the network needs one.")] = None,
    private: Annotated[bool, typer.Option("--private", help="No VM has an address outside its network.")] = False,
    no_logging: Annotated[bool, typer.Option("--no-logging", help="Keep logs out of Cloud Logging.")] = False,
    no_monitoring: Annotated[
        bool, typer.Option("--no-monitoring", help="Keep metrics out of Cloud Monitoring.")
    ] = False,
    threads_per_worker: Annotated[int | None, typer.Option(metavar="N", help="As THREADS_PER_WORKER.")] = None,
    memory_per_worker: Annotated[str | None, typer.Option(metavar="GB", help="As MEMORY_PER_WORKER.")] = None,
    num_workers: Annotated[int | None, typer.Option(metavar="N", help="Worker processes on each VM.")] = None,
    worker_clients: Annotated[str | None, typer.Option(metavar="MODE", help="As DASKPKI_WORKER_CLIENTS.")] = None,
    ca_sha256: Annotated[str | None, typer.Option(metavar="HEX", help="VMs trust only this CA.")] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="N=WHERE", help="Workers mount N, or N@VERSION, at /run/secrets/FILE or as fd."),
    ] = None,
    allow_secrets_in_environment: Annotated[
        bool,
        typer.Option(
            "--allow-secrets-in-environment",
            help="Also as env:VAR, which child processes, crash reports and whoever reads /proc/PID/environ see.",
        ),
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Carry the plan out.")] = False,
    destroy: Annotated[bool, typer.Option("--destroy", help="Plan to remove all that was made.")] = False,
    export: Annotated[
        Export | None,
        typer.Option(metavar="FORM", help="Write the whole plan as script, terraform or cloud-init; nothing is read."),
    ] = None,
    part: Annotated[
        str | None, typer.Option(metavar="P", help="Whose cloud-init: scheduler, worker, worker-3, or node.")
    ] = None,
    show_commands: Annotated[
        bool, typer.Option("--show-commands", help="Show what each step runs and undoes.")
    ] = False,
    detailed_exit_code: Annotated[
        bool, typer.Option("--detailed-exit-code", help="Exit code 6 when there is nothing to change.")
    ] = False,
) -> None:
    """Plan a cluster on Compute Engine, and with --apply carry the plan out by gcloud.

    One VM:  [bold]daskpki deploy gcp --store gsm://PROJECT --zone europe-west1-b --image IMAGE:1[/bold]

    Many:  [bold]daskpki deploy gcp --store gsm://PROJECT --zone Z --image I:1 --workers 20 --clients-from R[/bold]

    Without --apply or --export the plan is shown, and nothing changes. Applying twice changes nothing. No secret is
    in a command, in metadata or in an environment. CA, credentials and enabled services outlive --destroy.
    """
    from daskpki.deploy.observing import Scene
    from daskpki.deploy.settings import Deployment, check_deployment, parse_gsm

    invocation: Invocation = ctx.obj
    wish = Wish(apply, destroy, export, part, show_commands, detailed_exit_code)
    store = parse_gsm(invocation.store)
    if zone is None or image is None:
        if not destroy:
            raise UsageError(
                "a deployment needs a zone and an image", hint="--zone europe-west1-b --image REGISTRY/PATH:TAG"
            )
        _change(invocation, wish, _destruction(Scene(store, invocation.cluster), None))
        return
    wanted = Deployment(
        store=store,
        cluster=invocation.cluster,
        zone=zone,
        image=image,
        machine_type=machine_type,
        scheduler_machine_type=scheduler_machine_type,
        workers=workers,
        isolate_workers=isolate_workers,
        clients_from=tuple(clients_from or ()),
        tags=tuple(tag or ()),
        network=network,
        subnet=subnet,
        private=private,
        logging=not no_logging,
        monitoring=not no_monitoring,
        threads_per_worker=threads_per_worker,
        memory_per_worker=memory_per_worker,
        num_workers=num_workers,
        worker_clients=worker_clients,
        ca_sha256=ca_sha256,
        ca_passphrase_file=_absolute(invocation.ca_passphrase_file),
        secrets=tuple(secret or ()),
        secrets_in_environment=allow_secrets_in_environment,
    )
    _act(invocation, wish, check_deployment(wanted))


def _absolute(file: str | None) -> str | None:
    """Steps run in a directory of their own, so a path has to say where it begins."""
    return None if file is None else str(Path(file).absolute())


def _act(invocation: Invocation, wish: Wish, wanted: Deployment) -> None:
    from daskpki.deploy.deploying import plan_deployment
    from daskpki.deploy.observing import Scene

    if wish.export is not None:
        _export(invocation, wish, wanted)
    elif wish.destroy:
        _change(invocation, wish, _destruction(Scene(wanted.store, wanted.cluster), wanted))
    else:
        _change(invocation, wish, lambda run: plan_deployment(run, wanted))
        if wish.apply:
            _announce(invocation, wanted)


def _destruction(scene: Scene, wanted: Deployment | None) -> Planner:
    from daskpki.deploy.deploying import plan_destruction

    return lambda run: plan_destruction(run, scene, wanted)


def _change(invocation: Invocation, wish: Wish, planner: Planner) -> None:
    """Show the plan; with --apply carry it out, and show what was done."""
    from daskpki.deploy.gcloud import runner
    from daskpki.deploy.rendering_text import plan_document, plan_lines, summary

    run = runner()
    steps = planner(run)
    if wish.apply:
        _carry_out(invocation, steps, run)
    if invocation.ca_passphrase_file is None and any("init-ca" in one for step in steps for one in step.commands):
        invocation.output.hint("note: the CA's key is stored unsealed; --ca-passphrase-file FILE seals it")
    document = {"applied": wish.apply, "steps": plan_document(steps)}
    invocation.output.result(document, plan_lines(steps, commands=wish.show_commands))
    if steps:
        invocation.output.hint(summary(steps) + ("; done" if wish.apply else "; nothing was changed: add --apply"))
    elif wish.detailed_exit_code:
        raise NothingToDo("nothing to change")


def _carry_out(invocation: Invocation, steps: Sequence[Step], run: Run) -> None:
    import time

    from daskpki.deploy.carrying_out import carry_out

    def progress(number: int, step: Step) -> None:
        invocation.output.hint(f"[{number}/{len(steps)}] {step.action} {step.title}")

    carry_out(steps, run, progress=progress, sleep=time.sleep)


def _export(invocation: Invocation, wish: Wish, wanted: Deployment) -> None:
    from daskpki.deploy.exporting import exported

    if wish.apply or wish.destroy:
        raise UsageError("--export only writes the plan", hint="leave out --apply and --destroy")
    assert wish.export is not None
    text = exported(wanted, wish.export.value, wish.part)
    invocation.output.result({"format": wish.export.value, "text": text}, [text.rstrip("\n")])


def _announce(invocation: Invocation, wanted: Deployment) -> None:
    """Record where the scheduler is reached, so that `daskpki login` need not be told."""
    from daskpki.deploy.deploying import find_scheduler
    from daskpki.deploy.gcloud import runner

    address = find_scheduler(runner(), wanted)
    with invocation.authority() as authority:
        authority.announce(address)
    invocation.output.hint(f"the scheduler's address is recorded: {address}", "next: daskpki login")
