"""The use cases: the plan of a deployment and of its removal, and carrying a plan out.

A step that fails leaves the steps before it in place, and the same command goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from daskpki.deploy.blueprint import address_name, internal_address, resources
from daskpki.deploy.cloud_init import SCHEDULER_PORT
from daskpki.deploy.gcloud import NotSettledError, Run, ServiceDisabledError
from daskpki.deploy.observe import Project, Tell, check_egress, observe, project_of
from daskpki.deploy.plan import NOTHING, Observed, Step, check_mounted, plan, prerequisites
from daskpki.deploy.resource import NO_FILES, Command, Kind, gcloud
from daskpki.deploy.settings import Deployment
from daskpki.errors import DaskpkiError

WAITS: Final = (5.0, 10.0, 20.0, 40.0, 60.0)
"""Seconds between attempts while a service account or an API that was just made is not known everywhere."""


def plan_deployment(run: Run, wanted: Deployment, tell: Tell = lambda _line: None) -> Sequence[Step]:
    """The steps from what is there to what is wanted; NotFoundError for what has to be there first."""
    if wanted.private:
        check_egress(run, wanted)
    observed = observe(run, project_of(wanted), resources(wanted), tell)
    check_mounted(wanted, observed)
    return plan_from(wanted, observed)


def plan_from(wanted: Deployment, observed: Observed = NOTHING) -> Sequence[Step]:
    """The same from a known state, by default an empty project."""
    return plan(resources(wanted), observed, prerequisites(wanted, observed))


def plan_destruction(
    run: Run, project: Project, wanted: Deployment | None = None, tell: Tell = lambda _line: None
) -> Sequence[Step]:
    """The steps that remove everything with the cluster's mark; `wanted` may name further repositories and accounts."""
    return plan((), observe(run, project, resources(wanted) if wanted else (), tell))


def find_machines(run: Run, project: Project) -> list[str]:
    """The names of the cluster's VMs and groups that `deploy` made and that are there."""
    ours = observe(run, project).ours
    return sorted(name.rpartition("/")[2] for kind, name in ours if kind in (Kind.VM, Kind.GROUP))


def find_scheduler(run: Run, wanted: Deployment) -> str:
    """The address at which clients reach the scheduler of a deployment that was carried out."""
    if wanted.private:
        return internal_address(wanted)
    words = ("compute", "addresses", "describe", address_name(wanted), f"--region={wanted.region}")
    found = run(gcloud(wanted.project, *words, "--format=value(address)"), NO_FILES).strip()
    return f"tls://{found}:{SCHEDULER_PORT}"


def carry_out(
    steps: Sequence[Step], run: Run, *, progress: Callable[[int, Step], None], sleep: Callable[[float], None]
) -> None:
    """Carry out the steps in order; raises the first error, which names the step."""
    for number, step in enumerate(steps, start=1):
        progress(number, step)
        for command in step.commands:
            try:
                _run_settled(command, step, run, sleep)
            except DaskpkiError as error:
                raise type(error)(
                    f"step {number} of {len(steps)} ({step.line}): {error}",
                    hint=error.hint or "mend the cause and run the same command again: it goes on where it stopped",
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
