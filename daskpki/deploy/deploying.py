"""The use cases: what a deployment would change, what destroying it would, and where its scheduler is reached."""

from __future__ import annotations

from collections.abc import Sequence

from daskpki.deploy.blueprint import resources
from daskpki.deploy.gcloud import Run
from daskpki.deploy.network import Address
from daskpki.deploy.observing import Scene, observe
from daskpki.deploy.parts import internal_address
from daskpki.deploy.plan import NOTHING, Observed, Step, plan
from daskpki.deploy.ports import SCHEDULER
from daskpki.deploy.prerequisites import check_mounted, prerequisites
from daskpki.deploy.resource import NO_FILES, gcloud
from daskpki.deploy.settings import Deployment


def plan_deployment(run: Run, wanted: Deployment) -> Sequence[Step]:
    """The steps from what is there to what is wanted; NotFoundError for a secret to mount that is not there."""
    observed = observe(run, Scene(wanted.store, wanted.cluster), resources(wanted))
    check_mounted(wanted, observed)
    return plan_from(wanted, observed)


def plan_from(wanted: Deployment, observed: Observed = NOTHING) -> Sequence[Step]:
    """The same from a known state, by default an empty project."""
    return plan(resources(wanted), observed, prerequisites(wanted, observed))


def plan_destruction(run: Run, scene: Scene, wanted: Deployment | None) -> Sequence[Step]:
    """The steps that remove all that bears the cluster's mark; `wanted` says whose images its accounts may pull."""
    return plan((), observe(run, scene, resources(wanted) if wanted else ()))


def find_scheduler(run: Run, wanted: Deployment) -> str:
    """The address at which clients reach the scheduler of a deployment that was carried out."""
    for one in resources(wanted):
        if isinstance(one, Address):
            words = ("compute", "addresses", "describe", one.name, f"--region={one.region}", "--format=value(address)")
            return f"tls://{run(gcloud(one.project, *words), NO_FILES).strip()}:{SCHEDULER}"
    return internal_address(wanted)
