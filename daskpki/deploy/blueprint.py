"""All resources of a deployment, in the order in which they are made. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from daskpki import secret_names
from daskpki.deploy import compute, iam
from daskpki.deploy.cloud_init import NANNY_PORTS, SCHEDULER_PORT, WORKER_ARGUMENTS, WORKER_PORTS, Container
from daskpki.deploy.compute import GroupSpec, Rule, VmSpec
from daskpki.deploy.resource import Owner, Resource, account_email, account_id, internal_host
from daskpki.deploy.settings import Deployment
from daskpki.identity import Role, default_name

HEALTH: Final = "127.0.0.1:8790"
"""Address at which a VM serves health and metrics, for agents on the VM only."""

IAP_RANGE: Final = "35.235.240.0/20"
"""Source range of TCP connections that Identity-Aware Proxy forwards."""

# Before the network's other rules, of priority 1000 and more, such as the default network's default-allow-internal.
_ALLOW: Final = 800
_DENY: Final = 900
_ACCOUNTS_A_RULE: Final = 10  # Compute Engine's limit for sources and for targets
_INSIDE: Final = f"tcp:{WORKER_PORTS[0]}-{WORKER_PORTS[1]},tcp:{NANNY_PORTS[0]}-{NANNY_PORTS[1]}"
_EVERYTHING: Final = "tcp:1024-65535,udp:1024-65535"


class Part(NamedTuple):
    """VMs that are alike: `command` is the entrypoint's, `leaves` are the credentials that they may read."""

    name: str
    command: str
    leaves: tuple[tuple[Role, str], ...]

    @property
    def works(self) -> bool:
        """True if tasks run on these VMs."""
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
    """The scheduler's part, then the workers'."""
    return (scheduler_part(wanted), *worker_parts(wanted))


def account_of(wanted: Deployment, part: Part) -> str:
    """The address of the part's service account: an existing one that was named, or one for this part alone."""
    named = wanted.worker_account if part.command == "worker" else wanted.scheduler_account
    return named or account_email(wanted.project, account_id(wanted.cluster, part.name))


def resources(wanted: Deployment) -> Sequence[Resource]:
    """All resources, each after those that it needs."""
    return (*_services(wanted), *_identities(wanted), *_network(wanted), *_machines(wanted))


def _services(wanted: Deployment) -> Iterator[Resource]:
    names = ["cloudresourcemanager", "compute", "iam", "secretmanager"]
    names += ["logging"] * wanted.logging + ["monitoring"] * wanted.monitoring
    repository = iam.repository_of(wanted.image)
    if repository and repository.project == wanted.project:
        names.append("artifactregistry")
    yield iam.services(wanted.project, (f"{name}.googleapis.com" for name in names))


def is_own(wanted: Deployment, part: Part) -> bool:
    """True if the deployment makes the part's service account."""
    return not (wanted.worker_account if part.command == "worker" else wanted.scheduler_account)


def _identities(wanted: Deployment) -> Iterator[Resource]:
    for part in parts(wanted):
        if is_own(wanted, part):
            account = account_id(wanted.cluster, part.name)
            yield iam.service_account(wanted.project, Owner(wanted.cluster), account, part.name)
    granted: set[str] = set()
    for part in parts(wanted):
        for grant in _grants(wanted, part):
            if grant.name not in granted:  # two parts may have one account
                yield grant
            granted.add(grant.name)


def _grants(wanted: Deployment, part: Part) -> Iterator[Resource]:
    """The part's grants: an account that existed before gets the secrets alone, since its roles are its owner's."""
    member = f"serviceAccount:{account_of(wanted, part)}"
    for secret in secrets(wanted, part):
        yield iam.secret_grant(wanted.project, wanted.store.location, secret, member)
    if not is_own(wanted, part):
        return
    if wanted.logging:
        yield iam.project_grant(wanted.project, iam.LOG_WRITER, member)
    if wanted.monitoring:
        yield iam.project_grant(wanted.project, iam.METRIC_WRITER, member)
    if repository := iam.repository_of(wanted.image):
        yield iam.image_grant(repository, member)


def secrets(wanted: Deployment, part: Part) -> Sequence[str]:
    """The ids of the secrets that the part reads: the trust document, its own credentials, and what it mounts."""
    own = [secret_names.credential_id(wanted.cluster, role, name) for role, name in part.leaves]
    mounted = [secret_names.user_secret_id(wanted.cluster, mount.name) for mount in wanted.mounts if part.works]
    return (secret_names.trust_id(wanted.cluster), *own, *mounted)


def _network(wanted: Deployment) -> Iterator[Resource]:
    if not wanted.private:
        yield compute.address(wanted.project, Owner(wanted.cluster), address_name(wanted), wanted.region)
    owner = wanted.network_owner
    for rule in _rules(wanted):
        yield compute.firewall(wanted.network_project, owner, rule)


def _rules(wanted: Deployment) -> Iterator[Rule]:
    scheduler = account_of(wanted, scheduler_part(wanted))
    workers = tuple(account_of(wanted, part) for part in worker_parts(wanted))
    everyone = tuple(dict.fromkeys((scheduler, *workers)))
    port = f"tcp:{SCHEDULER_PORT}"

    def rule(name: str, action: str, ports: str, targets: tuple[str, ...], **sources: tuple[str, ...]) -> Rule:
        priority = _ALLOW if action == "ALLOW" else _DENY
        full = wanted.network_owner.name(name)
        return Rule(full, wanted.network, action, ports, priority, targets, label=name, **sources)

    if wanted.clients_from:
        yield rule("clients", "ALLOW", port, (scheduler,), source_ranges=wanted.clients_from)
    if wanted.iap:
        yield rule("iap", "ALLOW", f"tcp:22,{port}", (scheduler,), source_ranges=(IAP_RANGE,))
        for number, some in enumerate(_lots(workers)):
            yield rule(f"iap-workers-{number}", "ALLOW", "tcp:22", some, source_ranges=(IAP_RANGE,))
    for name, ports, sources, targets in (
        ("workers-to-scheduler", port, workers, (scheduler,)),
        ("inside", _INSIDE, everyone, workers),
    ):
        pairs = [(some_targets, some) for some_targets in _lots(targets) for some in _lots(sources)]
        for number, (some_targets, some) in enumerate(pairs):
            yield rule(f"{name}-{number}", "ALLOW", ports, some_targets, source_accounts=some)
    for number, some in enumerate(_lots(everyone)):
        yield rule(f"deny-{number}", "DENY", _EVERYTHING, some, source_ranges=("0.0.0.0/0",))


def _lots(accounts: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for first in range(0, len(accounts), _ACCOUNTS_A_RULE):
        yield tuple(accounts[first : first + _ACCOUNTS_A_RULE])


def address_name(wanted: Deployment) -> str:
    """The name of the scheduler's static address."""
    return Owner(wanted.cluster).name("scheduler")


def _machines(wanted: Deployment) -> Iterator[Resource]:
    owner = Owner(wanted.cluster)
    for part in parts(wanted):
        spec = vm_spec(wanted, part)
        if part.command != "worker" or wanted.isolate_workers:
            yield compute.vm(spec, owner.name(part.name), wanted.zone)
            continue
        yield compute.template(spec)
        yield compute.group(
            GroupSpec(
                wanted.project, owner, owner.name(part.name),
                wanted.region if wanted.regional else wanted.zone, wanted.regional, wanted.workers,
                compute.template_name(spec), spec.facts, wanted.max_surge, wanted.max_unavailable, spec.says,
            )
        )  # fmt: skip


def vm_spec(wanted: Deployment, part: Part) -> VmSpec:
    """Specification of the part's VMs."""
    scheduler = part.command != "worker"
    return VmSpec(
        wanted=wanted,
        part=part.name,
        machine_type=wanted.scheduler_type if scheduler else wanted.machine_type,
        account=account_of(wanted, part),
        address=address_name(wanted) if scheduler and not wanted.private else None,
        spot=wanted.spot and not scheduler,
        container=container(wanted, part),
    )


def container(wanted: Deployment, part: Part) -> Container:
    """Container that the part's VMs run."""
    ports = (str(SCHEDULER_PORT),) if part.command != "worker" else tuple(f"{a}:{b}" for a, b in _RANGES)
    return Container(
        cluster=wanted.cluster,
        image=wanted.image,
        command=part.command,
        arguments=("--", *WORKER_ARGUMENTS) if part.works else (),
        environment=_environment(wanted, part),
        ports=ports,  # what other VMs connect to; iptables writes ranges with a colon
        mounts_files=part.works and any(mount.path for mount in wanted.mounts),
    )


_RANGES: Final = (WORKER_PORTS, NANNY_PORTS)


def _environment(wanted: Deployment, part: Part) -> dict[str, str]:
    """The entrypoint's settings, none of them secret, so that they may stand in the VM's metadata."""
    role, name = part.leaves[-1]
    settings: dict[str, str | int | None] = {
        "DASKPKI_STORE": str(wanted.store),
        "DASKPKI_CLUSTER": wanted.cluster,
        "DASKPKI_NAME": name if name != default_name(role) else None,
        "DASKPKI_SCHEDULER": internal_address(wanted) if part.command == "worker" else None,
        "DASKPKI_CA_SHA256": wanted.ca_sha256,
        "DASKPKI_WORKER_CLIENTS": wanted.worker_clients,
        "DASKPKI_SCHEDULER_CODE": wanted.scheduler_code if part.command != "worker" else None,
        "DASKPKI_LOG_FORMAT": "json" if wanted.logging else None,  # entries that alerts can be built on
        "DASKPKI_HEALTH": HEALTH if wanted.monitoring else None,
        "DASKPKI_METRICS": "yes" if wanted.monitoring else None,
    }
    if part.works:
        settings |= {
            "DASKPKI_SECRETS": ",".join(wanted.secrets) or None,
            "DASKPKI_ALLOW_SECRETS_IN_ENVIRONMENT": "yes" if any(one.variable for one in wanted.mounts) else None,
            "THREADS_PER_WORKER": wanted.threads_per_worker,
            "MEMORY_PER_WORKER": wanted.memory_per_worker,
            "NUM_WORKERS": wanted.num_workers,
        }
    return {variable: str(value) for variable, value in settings.items() if value is not None}


def internal_address(wanted: Deployment) -> str:
    """The scheduler's address inside its network."""
    name = Owner(wanted.cluster).name(scheduler_part(wanted).name)
    return f"tls://{internal_host(wanted.project, wanted.zone, name)}:{SCHEDULER_PORT}"
