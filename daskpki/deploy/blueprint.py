"""What a deployment takes: all its resources, in the order in which they are made. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from daskpki.deploy.identities import Account, ImageGrant, ProjectGrant, SecretGrant, Services
from daskpki.deploy.machines import Group, Machine, Template, VmSpec
from daskpki.deploy.names import resource_name
from daskpki.deploy.network import Address, Firewall
from daskpki.deploy.parts import Part, account, container, parts, scheduler_part, secrets, worker_parts
from daskpki.deploy.ports import NANNIES, SCHEDULER, WORKERS
from daskpki.deploy.resource import Resource
from daskpki.deploy.settings import Deployment
from daskpki.deploy.user_data import render_user_data

LOG_WRITER: Final = "roles/logging.logWriter"
METRIC_WRITER: Final = "roles/monitoring.metricWriter"

# Before the network's own rules, of priority 1000 and more, such as the default network's default-allow-internal.
_ALLOW: Final = 800
_DENY: Final = 900
_ACCOUNTS_A_RULE: Final = 10  # Compute Engine's limit for sources and for targets
_INSIDE: Final = f"tcp:{WORKERS[0]}-{WORKERS[1]},tcp:{NANNIES[0]}-{NANNIES[1]}"
_EVERYTHING: Final = "tcp:1024-65535,udp:1024-65535"
_ARTIFACT: Final = re.compile(r"([a-z0-9-]+)-docker\.pkg\.dev/([a-z0-9.:-]+)/([a-z0-9._-]+)/")


def resources(wanted: Deployment) -> Sequence[Resource]:
    """Everything, each after what it needs."""
    return (*_services(wanted), *_identities(wanted), *_network(wanted), *_machines(wanted))


def _services(wanted: Deployment) -> Iterator[Services]:
    names = ["cloudresourcemanager", "compute", "iam", "secretmanager"]
    names += ["logging"] * wanted.logging + ["monitoring"] * wanted.monitoring
    image = _ARTIFACT.match(wanted.image)
    if image and image[2] == wanted.project:
        names.append("artifactregistry")
    yield Services(wanted.project, frozenset(f"{name}.googleapis.com" for name in names))


def _identities(wanted: Deployment) -> Iterator[Resource]:
    accounts = [account(wanted, part) for part in parts(wanted)]
    yield from accounts
    for part, owner in zip(parts(wanted), accounts, strict=True):
        for secret in secrets(wanted, part):
            yield SecretGrant(wanted.project, wanted.store.location, secret, owner.member)
    for owner in accounts:
        yield from _grants(wanted, owner)


def _grants(wanted: Deployment, owner: Account) -> Iterator[Resource]:
    if wanted.logging:
        yield ProjectGrant(wanted.project, LOG_WRITER, owner.member)
    if wanted.monitoring:
        yield ProjectGrant(wanted.project, METRIC_WRITER, owner.member)
    if image := _ARTIFACT.match(wanted.image):
        location, project, repository = image.groups()
        yield ImageGrant(project, location, repository, owner.member)


def _network(wanted: Deployment) -> Iterator[Resource]:
    scheduler = account(wanted, scheduler_part(wanted)).email
    workers = tuple(account(wanted, part).email for part in worker_parts(wanted))
    if not wanted.private:
        yield Address(wanted.project, wanted.cluster, _address_name(wanted), wanted.region)
    if wanted.clients_from:
        clients = Firewall(
            wanted.project, wanted.cluster, resource_name(wanted.cluster, "clients"), wanted.network,
            "ALLOW", f"tcp:{SCHEDULER}", _ALLOW, (scheduler,), source_ranges=wanted.clients_from,
        )  # fmt: skip
        yield clients
    yield from _allow(wanted, "workers-to-scheduler", f"tcp:{SCHEDULER}", workers, (scheduler,))
    yield from _allow(wanted, "inside", _INSIDE, (scheduler, *workers), workers)
    for number, targets in enumerate(_lots((scheduler, *workers))):
        name = resource_name(wanted.cluster, f"deny-{number}")
        yield Firewall(
            wanted.project, wanted.cluster, name, wanted.network,
            "DENY", _EVERYTHING, _DENY, targets, source_ranges=("0.0.0.0/0",),
        )  # fmt: skip


def _allow(
    wanted: Deployment, purpose: str, rules: str, sources: Sequence[str], targets: Sequence[str]
) -> Iterator[Firewall]:
    """Rules from each of the sources to each of the targets, as few as the limit of accounts in one rule allows."""
    number = 0
    for some_targets in _lots(targets):
        for some_sources in _lots(sources):
            name = resource_name(wanted.cluster, f"{purpose}-{number}")
            number += 1
            yield Firewall(
                wanted.project, wanted.cluster, name, wanted.network,
                "ALLOW", rules, _ALLOW, some_targets, source_accounts=some_sources,
            )  # fmt: skip


def _lots(accounts: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for first in range(0, len(accounts), _ACCOUNTS_A_RULE):
        yield tuple(accounts[first : first + _ACCOUNTS_A_RULE])


def _address_name(wanted: Deployment) -> str:
    return resource_name(wanted.cluster, "scheduler")


def _machines(wanted: Deployment) -> Iterator[Resource]:
    address = None if wanted.private else _address_name(wanted)
    yield _machine(wanted, scheduler_part(wanted), wanted.scheduler_type, address)
    if wanted.isolate_workers:
        for part in worker_parts(wanted):
            yield _machine(wanted, part, wanted.machine_type, None)
        return
    for part in worker_parts(wanted):
        spec = _spec(wanted, part, wanted.machine_type, None)
        template = resource_name(wanted.cluster, f"{part.name}-{spec.digest}")
        yield Template(wanted.project, wanted.cluster, template, spec)
        name = resource_name(wanted.cluster, part.name)
        yield Group(wanted.project, wanted.cluster, name, wanted.zone, template, wanted.workers)


def _machine(wanted: Deployment, part: Part, machine_type: str, address: str | None) -> Machine:
    spec = _spec(wanted, part, machine_type, address)
    return Machine(wanted.project, resource_name(wanted.cluster, part.name), wanted.zone, spec.digest, spec)


def _spec(wanted: Deployment, part: Part, machine_type: str, address: str | None) -> VmSpec:
    return VmSpec(
        project=wanted.project,
        cluster=wanted.cluster,
        machine_type=machine_type,
        account=account(wanted, part).email,
        network=wanted.network,
        # In full, since a template belongs to no region from which a short name could be completed.
        subnet=wanted.subnet and f"projects/{wanted.project}/regions/{wanted.region}/subnetworks/{wanted.subnet}",
        external=not wanted.private,
        tags=wanted.tags,
        metadata=_metadata(wanted),
        user_data=render_user_data(container(wanted, part)),
        address=address,
    )


def _metadata(wanted: Deployment) -> tuple[tuple[str, str], ...]:
    """Beside the user-data: the logging and monitoring agents of Container-Optimized OS, and logins by IAM only."""
    return (
        ("enable-oslogin", "TRUE"),
        *((("google-logging-enabled", "true"),) if wanted.logging else ()),
        *((("google-monitoring-enabled", "true"),) if wanted.monitoring else ()),
    )
