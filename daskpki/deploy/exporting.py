"""The whole of a deployment as text for others to carry out: a shell script, Terraform, or user-data alone. Pure."""

from __future__ import annotations

from typing import Final

from daskpki.deploy.blueprint import resources
from daskpki.deploy.deploying import plan_from
from daskpki.deploy.parts import container, parts, scheduler_part
from daskpki.deploy.plan import NOTHING
from daskpki.deploy.prerequisites import prerequisites
from daskpki.deploy.rendering_script import render_script
from daskpki.deploy.rendering_terraform import render_terraform
from daskpki.deploy.settings import Deployment
from daskpki.deploy.user_data import render_user_data
from daskpki.errors import UsageError

SCRIPT: Final = "script"
TERRAFORM: Final = "terraform"
CLOUD_INIT: Final = "cloud-init"


def exported(wanted: Deployment, form: str, part: str | None = None) -> str:
    """The text in that form; `part` says whose user-data, by default the scheduler's. UsageError lists the parts."""
    if form == SCRIPT:
        return render_script(f"Dask cluster {wanted.cluster} in {wanted.project}, {wanted.zone}", plan_from(wanted))
    if form == TERRAFORM:
        return render_terraform(resources(wanted), prerequisites(wanted, NOTHING))
    known = {one.name: one for one in parts(wanted)}
    chosen = known.get(part or scheduler_part(wanted).name)
    if chosen is None:
        raise UsageError(f"the deployment has no part {part!r}", hint=f"it has {', '.join(known)}")
    return render_user_data(container(wanted, chosen))
