"""The machines of a cluster as parts: which roles each plays, by which service account, reading which secrets. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from daskpki import secret_names
from daskpki.deploy.identities import Account
from daskpki.deploy.names import account_id, internal_host, resource_name
from daskpki.deploy.ports import NANNIES, SCHEDULER, WORKER_ARGUMENTS, WORKERS
from daskpki.deploy.settings import Deployment
from daskpki.deploy.user_data import Container
from daskpki.identity import Role, default_name


class Part(NamedTuple):
    """VMs that are alike: `command` is the entrypoint's, `leaves` are the credentials that they may read."""

    name: str
    command: str
    leaves: tuple[tuple[Role, str], ...]

    @property
    def works(self) -> bool:
        """Whether tasks run there, so that what tasks need has to be there, too."""
        return self.command != "scheduler"


def scheduler_part(wanted: Deployment) -> Part:
    """The VM that is the scheduler, and all workers too when there are no other VMs."""
    scheduler = (Role.SCHEDULER, default_name(Role.SCHEDULER))
    if wanted.single:
        return Part("node", "node", (scheduler, (Role.WORKER, default_name(Role.WORKER))))
    return Part("scheduler", "scheduler", (scheduler,))


def worker_parts(wanted: Deployment) -> Sequence[Part]:
    """The workers' VMs: one part for all, or one for each that is isolated."""
    if wanted.single:
        return ()
    if not wanted.isolate_workers:
        return (Part("worker", "worker", ((Role.WORKER, default_name(Role.WORKER)),)),)
    names = (f"worker-{number}" for number in range(wanted.workers))
    return tuple(Part(name, "worker", ((Role.WORKER, name),)) for name in names)


def parts(wanted: Deployment) -> Sequence[Part]:
    """The scheduler's, then the workers'."""
    return (scheduler_part(wanted), *worker_parts(wanted))


def account(wanted: Deployment, part: Part) -> Account:
    """The part's service account, nobody else's."""
    return Account(wanted.project, wanted.cluster, account_id(wanted.cluster, part.name))


def secrets(wanted: Deployment, part: Part) -> Sequence[str]:
    """The ids of the secrets that the part reads: what says whom to trust, its own credentials, and what it mounts."""
    own = [secret_names.credential_id(wanted.cluster, role, name) for role, name in part.leaves]
    mounted = [secret_names.user_secret_id(wanted.cluster, mount.name) for mount in wanted.mounts if part.works]
    return (secret_names.trust_id(wanted.cluster), *own, *mounted)


def container(wanted: Deployment, part: Part) -> Container:
    """What the part's VMs run."""
    return Container(
        cluster=wanted.cluster,
        image=wanted.image,
        command=part.command,
        arguments=("--", *WORKER_ARGUMENTS) if part.works else (),
        environment=_environment(wanted, part),
        ports=_ports(part),
        mounts_files=part.works and any(mount.path for mount in wanted.mounts),
    )


def _ports(part: Part) -> tuple[str, ...]:
    """What other VMs connect to; iptables writes ranges with a colon."""
    if part.command != "worker":
        return (str(SCHEDULER),)
    return tuple(f"{first}:{last}" for first, last in (WORKERS, NANNIES))


def _environment(wanted: Deployment, part: Part) -> dict[str, str]:
    """The entrypoint's settings, none of them secret, so that they may stand in the VM's metadata."""
    role, name = part.leaves[-1]
    settings = {
        "DASKPKI_STORE": str(wanted.store),
        "DASKPKI_CLUSTER": wanted.cluster,
        "DASKPKI_NAME": name if name != default_name(role) else None,
        "DASKPKI_SCHEDULER": internal_address(wanted) if part.command == "worker" else None,
        "DASKPKI_CA_SHA256": wanted.ca_sha256,
        "DASKPKI_WORKER_CLIENTS": wanted.worker_clients,
    }
    if part.works:
        settings |= {
            "DASKPKI_SECRETS": ",".join(wanted.secrets) or None,
            "DASKPKI_ALLOW_SECRETS_IN_ENVIRONMENT": "yes" if any(one.variable for one in wanted.mounts) else None,
            "THREADS_PER_WORKER": _text(wanted.threads_per_worker),
            "MEMORY_PER_WORKER": wanted.memory_per_worker,
            "NUM_WORKERS": _text(wanted.num_workers),
        }
    return {variable: value for variable, value in settings.items() if value is not None}


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)


def internal_address(wanted: Deployment) -> str:
    """The scheduler's address inside its network."""
    name = resource_name(wanted.cluster, scheduler_part(wanted).name)
    return f"tls://{internal_host(wanted.project, wanted.zone, name)}:{SCHEDULER}"
