"""Use cases of `deploy`: plan a deployment or its removal, and apply a plan.

After a failed step the earlier ones stay, and the same command continues from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from daskpki.deploy.blueprint import internal_address
from daskpki.deploy.cloud_init import SCHEDULER_PORT
from daskpki.deploy.gcloud import NotSettledError, Run, ServiceDisabledError
from daskpki.deploy.iam import NO_FILES, Command, Kind, gcloud
from daskpki.deploy.observe import Tell, check_egress, observe
from daskpki.deploy.plan import NOTHING, Observed, Step, check_mounted, plan, prerequisites, resources
from daskpki.deploy.settings import Deployment, Site
from daskpki.errors import DaskpkiError

WAITS: Final = (5.0, 10.0, 20.0, 40.0, 60.0)
"""Seconds between attempts while a service account or an API that was just made is not known everywhere."""


def plan_deployment(run: Run, wanted: Deployment, tell: Tell = lambda _line: None) -> Sequence[Step]:
    """Plan the steps from the existing resources to the wanted ones; NotFoundError if a prerequisite is missing."""
    if wanted.private:
        check_egress(run, wanted)
    observed = observe(run, wanted, resources(wanted), tell)
    check_mounted(wanted, observed)
    return plan_from(wanted, observed)


def plan_from(wanted: Deployment, observed: Observed = NOTHING) -> Sequence[Step]:
    """Plan the steps from a known state, by default an empty project."""
    return plan(resources(wanted), observed, prerequisites(wanted, observed))


def plan_destruction(run: Run, site: Site, tell: Tell = lambda _line: None) -> Sequence[Step]:
    """Plan the removal of everything with the cluster's mark; a Deployment names further repositories and accounts."""
    return plan((), observe(run, site, resources(site) if isinstance(site, Deployment) else (), tell))


def find_machines(run: Run, site: Site) -> list[str]:
    """The names of the existing VMs and groups of the cluster that `deploy` made."""
    ours = observe(run, site).ours
    return sorted(name.rpartition("/")[2] for kind, name in ours if kind in (Kind.VM, Kind.GROUP))


def find_scheduler(run: Run, wanted: Deployment) -> str:
    """Address at which clients reach the scheduler of an applied deployment."""
    if wanted.private:
        return internal_address(wanted)
    words = ("compute", "addresses", "describe", wanted.owner.name("scheduler"), f"--region={wanted.region}")
    found = run(gcloud(wanted.project, *words, "--format=value(address)"), NO_FILES).strip()
    return f"tls://{found}:{SCHEDULER_PORT}"


def carry_out(
    steps: Sequence[Step], run: Run, *, progress: Callable[[int, Step], None], sleep: Callable[[float], None]
) -> None:
    """Run the steps in order; raise the first error with the step's name."""
    for number, step in enumerate(steps, start=1):
        progress(number, step)
        for command in step.commands:
            try:
                _run_settled(command, step, run, sleep)
            except DaskpkiError as error:
                raise type(error)(
                    f"step {number} of {len(steps)} ({step.line}): {error}",
                    hint=error.hint or "fix the cause and run the same command again: it goes on where it stopped",
                ) from error


def _run_settled(command: Command, step: Step, run: Run, sleep: Callable[[float], None]) -> None:
    for wait in WAITS if step.settles else ():
        try:
            run(command, step.files)
        except (NotSettledError, ServiceDisabledError):
            sleep(wait)
        else:
            return
    run(command, step.files)
