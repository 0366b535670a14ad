"""A deployment as data: the parts of the cluster, their grants, firewall rules and containers. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from daskpki import secret_names
from daskpki.deploy.cloud_init import NANNY_PORTS, SCHEDULER_PORT, WORKER_ARGUMENTS, WORKER_PORTS, Container
from daskpki.deploy.settings import Deployment, account_email, account_id, internal_host
from daskpki.identity import Role, default_name

ACCESSOR: Final = "roles/secretmanager.secretAccessor"
IMAGE_READER: Final = "roles/artifactregistry.reader"
LOG_WRITER: Final = "roles/logging.logWriter"
METRIC_WRITER: Final = "roles/monitoring.metricWriter"

HEALTH: Final = "127.0.0.1:8790"
"""Address at which a VM serves health and metrics, for agents on the VM only."""

IAP_RANGE: Final = "35.235.240.0/20"
"""Source range of TCP connections that Identity-Aware Proxy forwards."""

_ARTIFACT: Final = re.compile(r"([a-z0-9-]+)-docker\.pkg\.dev/([a-z0-9.:-]+)/([a-z0-9._-]+)/")

# These decide before the network's other rules (priority 1000 and more), such as its default-allow-internal.
_PRIORITIES: Final = {"ALLOW": 800, "DENY": 900}
_ACCOUNTS_A_RULE: Final = 10  # Compute Engine's limit for sources and for targets
_INSIDE: Final = ",".join(f"tcp:{ports.replace(':', '-')}" for ports in (WORKER_PORTS, NANNY_PORTS))
_EVERYTHING: Final = "tcp:1024-65535,udp:1024-65535"


class Part(NamedTuple):
    """VMs that are alike: `command` is the entrypoint's, `leaves` are the credentials that they may read.

    `own` is true if their service account is made for them, and false for an existing one that was named.
    """

    name: str
    command: str
    leaves: tuple[tuple[Role, str], ...]
    machine_type: str
    account: str
    own: bool

    @property
    def works(self) -> bool:
        """True if tasks run on these VMs."""
        return self.command != "scheduler"

    @property
    def schedules(self) -> bool:
        """True if the scheduler runs on this VM."""
        return self.command != "worker"


def parts(wanted: Deployment) -> Sequence[Part]:
    """The scheduler's part, then the workers': one for all of them, or one for each that is isolated."""

    def part(name: str, command: str, machine_type: str, account: str | None, *leaves: tuple[Role, str]) -> Part:
        own = account_email(wanted.project, account_id(wanted.cluster, name))
        return Part(name, command, leaves, machine_type, account or own, account is None)

    scheduler = (Role.SCHEDULER, default_name(Role.SCHEDULER))
    worker = default_name(Role.WORKER)
    if wanted.single:
        leaves = (scheduler, (Role.WORKER, worker))
        return (part("node", "node", wanted.machine_type, wanted.scheduler_account, *leaves),)
    names = [f"{worker}-{number}" for number in range(wanted.workers)] if wanted.isolate_workers else [worker]
    return (
        part("scheduler", "scheduler", wanted.scheduler_machine_type, wanted.scheduler_account, scheduler),
        *(part(name, "worker", wanted.machine_type, wanted.worker_account, (Role.WORKER, name)) for name in names),
    )


def repository_of(image: str) -> str | None:
    """PROJECT/LOCATION/NAME of the repository in Artifact Registry; None for other registries, which need no grant."""
    found = _ARTIFACT.match(image)
    return f"{found[2]}/{found[1]}/{found[3]}" if found else None


class Grant(NamedTuple):
    """A service account's role on a secret, on a repository of images or in the project, whichever the role is for."""

    account: str
    role: str
    where: str

    @property
    def member(self) -> str:
        """The account as policies name it."""
        return f"serviceAccount:{self.account}"


def grants(wanted: Deployment) -> Iterator[tuple[Part, Grant]]:
    """The grants that each part needs and no more. An existing account gets the secrets alone."""
    repository = repository_of(wanted.image)
    given: set[Grant] = set()
    for part in parts(wanted):
        read = [secret_names.trust_id(wanted.cluster)]
        read += [secret_names.credential_id(wanted.cluster, role, name) for role, name in part.leaves]
        read += [secret_names.user_secret_id(wanted.cluster, mount.name) for mount in wanted.mounts if part.works]
        found = [(ACCESSOR, secret) for secret in read]
        found += [(LOG_WRITER, wanted.project)] * (part.own and not wanted.no_logging)
        found += [(METRIC_WRITER, wanted.project)] * (part.own and not wanted.no_monitoring)
        found += [(IMAGE_READER, repository)] if part.own and repository else []
        for role, where in found:
            grant = Grant(part.account, role, where)
            if grant not in given:  # two parts may have one account
                yield part, grant
            given.add(grant)


class Rule(NamedTuple):
    """An ingress rule. `ports` is as gcloud takes it, such as `tcp:8786`; a lower `priority` decides first."""

    name: str
    network: str
    action: str
    ports: str
    priority: int
    targets: tuple[str, ...]
    source_ranges: tuple[str, ...] = ()
    source_accounts: tuple[str, ...] = ()


def rules(wanted: Deployment) -> Iterator[Rule]:
    """The firewall rules, by short names."""
    scheduler, *workers = (part.account for part in parts(wanted))
    workers = list(dict.fromkeys(workers))
    everyone = list(dict.fromkeys((scheduler, *workers)))
    port = f"tcp:{SCHEDULER_PORT}"

    def rule(name: str, ports: str, targets: Sequence[str], *, action: str = "ALLOW", **sources: Sequence[str]) -> Rule:
        given = {key: tuple(value) for key, value in sources.items()}
        return Rule(name, wanted.network, action, ports, _PRIORITIES[action], tuple(targets), **given)

    if wanted.clients_from:
        yield rule("clients", port, [scheduler], source_ranges=wanted.clients_from)
    if wanted.iap:
        yield rule("iap", f"tcp:22,{port}", [scheduler], source_ranges=[IAP_RANGE])
        for number, some in enumerate(_lots(workers)):
            yield rule(f"iap-workers-{number}", "tcp:22", some, source_ranges=[IAP_RANGE])
    for name, ports, sources, targets in (
        ("workers-to-scheduler", port, workers, [scheduler]),
        ("inside", _INSIDE, everyone, workers),
    ):
        pairs = [(some_targets, some) for some_targets in _lots(targets) for some in _lots(sources)]
        for number, (some_targets, some) in enumerate(pairs):
            yield rule(f"{name}-{number}", ports, some_targets, source_accounts=some)
    for number, some in enumerate(_lots(everyone)):
        yield rule(f"deny-{number}", _EVERYTHING, some, action="DENY", source_ranges=["0.0.0.0/0"])


def _lots(accounts: Sequence[str]) -> list[Sequence[str]]:
    return [accounts[first : first + _ACCOUNTS_A_RULE] for first in range(0, len(accounts), _ACCOUNTS_A_RULE)]


def container(wanted: Deployment, part: Part) -> Container:
    """The container of the part's VMs. Its environment is in the VM's metadata, so nothing in it is secret."""
    role, name = part.leaves[-1]
    settings: dict[str, object] = {
        "DASKPKI_STORE": wanted.store,
        "DASKPKI_CLUSTER": wanted.cluster,
        "DASKPKI_NAME": name if name != default_name(role) else None,
        "DASKPKI_SCHEDULER": None if part.schedules else internal_address(wanted),
        "DASKPKI_CA_SHA256": wanted.ca_sha256,
        "DASKPKI_WORKER_CLIENTS": wanted.worker_clients,
        "DASKPKI_SCHEDULER_CODE": wanted.scheduler_code if part.schedules else None,
        "DASKPKI_LOG_FORMAT": None if wanted.no_logging else "json",  # entries that alerts can be built on
        "DASKPKI_HEALTH": None if wanted.no_monitoring else HEALTH,
        "DASKPKI_METRICS": None if wanted.no_monitoring else "yes",
    }
    if part.works:
        settings |= {
            "DASKPKI_SECRETS": ",".join(wanted.secrets) or None,
            "DASKPKI_ALLOW_SECRETS_IN_ENVIRONMENT": "yes" if any(one.variable for one in wanted.mounts) else None,
            "THREADS_PER_WORKER": wanted.threads_per_worker,
            "MEMORY_PER_WORKER": wanted.memory_per_worker,
            "NUM_WORKERS": wanted.num_workers,
        }
    return Container(
        cluster=wanted.cluster,
        image=wanted.image,
        command=part.command,
        arguments=("--", *WORKER_ARGUMENTS) if part.works else (),
        environment={variable: str(value) for variable, value in settings.items() if value is not None},
        ports=(str(SCHEDULER_PORT),) if part.schedules else (WORKER_PORTS, NANNY_PORTS),  # what other VMs connect to
        mounts_files=part.works and any(mount.path for mount in wanted.mounts),
    )


def internal_address(wanted: Deployment) -> str:
    """The scheduler's address inside its network."""
    name = wanted.owner.name("node" if wanted.single else "scheduler")
    return f"tls://{internal_host(wanted.project, wanted.zone, name)}:{SCHEDULER_PORT}"
