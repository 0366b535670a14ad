"""The settings of `daskpki deploy gcp`, checked: UsageError names the value, the rule and the remedy."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass, replace
from typing import Annotated, Final, NamedTuple

from daskpki.boot.mounts import Mount, parse_mounts
from daskpki.errors import UsageError
from daskpki.handover import SEALED, STOCK
from daskpki.identity import parse_label
from daskpki.settings import GsmUrl

MAX_ISOLATED: Final = 50
"""Workers with a service account each: a project has 100 of these by default, and a firewall rule names 10."""

ZONES_OF_A_REGION: Final = 3
"""Zones over which a regional group spreads its VMs by default; a surge is 0 or at least that many."""

SECRETS_DIRECTORY: Final = "/run/secrets"
"""Tmpfs of a worker's container for mounted secrets, beside its `/tmp`."""

WIDEST: Final = 8
"""Shortest prefix of `--clients-from`. The largest private network is a /8 (RFC 1918, 3); two /1 would be everybody."""

_MAX_ACCOUNT: Final = 30  # IAM: 6 to 30 characters
_MAX_RESOURCE: Final = 63  # RFC 1035, as Compute Engine asks
_DIGEST: Final = 8
_MIN_DISK: Final = 10  # GB: the size of Container-Optimized OS's image
_MAX_DISK: Final = 65_536
_MAX_LABELS: Final = 60  # Google's limit is 64, and four may be ours

_NAME: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_SUBNET: Final = r"projects/[a-z0-9.:-]+/regions/(?P<region>[a-z0-9-]+)/subnetworks/[a-z0-9-]+"
IMAGE: Final = "[a-z0-9][a-z0-9._/:-]*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|@sha256:[0-9a-f]{64})"
"""REGISTRY/PATH:TAG or @sha256:..., as Python and Terraform both read patterns."""

# On the container's tmpfs.
_MOUNT_PATH: Final = re.compile(rf"({SECRETS_DIRECTORY}|/tmp)(/[A-Za-z0-9_.-]+)+\Z")

_SHARED: Final = "its short name, or for a Shared VPC projects/HOST/global/networks/NAME and .../subnetworks/NAME"

_MACHINE_TYPE: Final = ("machine type", _NAME, "such as e2-highcpu-16")
_ACCOUNT: Final = (
    "service account", r"[a-z0-9-]+@[a-z0-9.-]+\.gserviceaccount\.com", "NAME@PROJECT.iam.gserviceaccount.com"
)  # fmt: skip
_FORMS: Final = {
    "zone": ("zone", r"[a-z]+(-[a-z]+)+[0-9]+-[a-z]", "such as europe-west1-b"),
    "machine_type": _MACHINE_TYPE,
    "scheduler_machine_type": _MACHINE_TYPE,
    "disk_type": ("disk type", r"[a-z][a-z0-9-]{1,40}", "such as pd-balanced, pd-ssd or hyperdisk-balanced"),
    "network": ("network", rf"{_NAME}|projects/[a-z0-9.:-]+/global/networks/[a-z0-9-]+", _SHARED),
    "subnet": ("subnet", rf"{_NAME}|{_SUBNET}", _SHARED),
    "scheduler_account": _ACCOUNT,
    "worker_account": _ACCOUNT,
    "ca_sha256": ("--ca-sha256", r"[0-9a-f]{64}", "64 hexadecimal digits, as `daskpki init-ca` prints them"),
    "memory_per_worker": ("--memory-per-worker", r"(?=.*[1-9])[0-9]{1,4}(\.[0-9]{1,3})?", "GB, such as 1 or 3.5"),
    "worker_clients": ("--worker-clients", "deny|limited|allow", "one of deny, limited, allow"),
    "scheduler_code": ("--scheduler-code", f"{STOCK}|{SEALED}", f"one of {STOCK}, {SEALED}"),
    "tags": ("tag", r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", "such as dask-server"),
    "labels": ("label", r"[a-z][a-z0-9_-]{0,62}=[a-z0-9_-]{0,63}", "KEY=VALUE of a-z, 0-9, '_' and '-'"),
}
"""By field: its name in messages, the pattern of its value or of each value, and the rule in words."""

# The first word of a machine type shows its processors and GPUs; N1 VMs get GPUs by an option.
_ACCELERATED: Final = re.compile(r"(a[2-9][a-z]?|g[24]|ct[0-9][a-z]*|tpu[a-z0-9]*)-")
_ARM: Final = re.compile(r"(t2a|c4a|n4a|a4x)-")


class Option(NamedTuple):
    """An option of `daskpki deploy gcp`, by default named like the field that it sets; flags have no metavar."""

    help: str
    metavar: str | None = None
    name: str | None = None
    hidden: bool = False


class Owner(NamedTuple):
    """The cluster that resources of `project` belong to; `guest` is the cluster's project if that is another one."""

    project: str
    cluster: str
    guest: str | None = None

    @property
    def mark(self) -> str:
        """The description that makes a resource ours."""
        # Clusters of the same name in two projects may share one network, so its rules name the project as well.
        project = f" project={self.guest}" if self.guest else ""
        return f"managed-by=daskpki daskpki-cluster={self.cluster}{project}"

    def name(self, part: str) -> str:
        """`daskpki-CLUSTER-PART`; a long name is cut and made unambiguous by a digest."""
        guest = f"{self.guest}-".replace(":", "-").replace(".", "-") if self.guest else ""
        return _fit(f"daskpki-{guest}{self.cluster}-{part}", _MAX_RESOURCE)


def account_id(cluster: str, part: str) -> str:
    """The part of a service account's address before the `@`."""
    return _fit(f"daskpki-{cluster}-{part}", _MAX_ACCOUNT)


def account_email(project: str, account: str) -> str:
    """A service account's address; in a project of a domain, `example.com:p`, the order is reversed."""
    domain, _, name = project.rpartition(":")
    return f"{account}@{name}.{domain + '.' if domain else ''}iam.gserviceaccount.com"


def internal_host(project: str, zone: str, name: str) -> str:
    """The VM's zonal DNS name, which resolves inside its network and is known before the VM exists."""
    domain, _, rest = project.rpartition(":")
    return f"{name}.{zone}.c.{rest}{'.' + domain if domain else ''}.internal"


def digest(text: str) -> str:
    """Eight hexadecimal digits of the content's hash."""
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]


def _fit(name: str, limit: int) -> str:
    if len(name) <= limit:
        return name
    return f"{name[: limit - _DIGEST - 1].rstrip('-')}-{digest(name)}"


@dataclass(frozen=True)
class Site:
    """Where a cluster is: its store, whose project also runs the VMs, and its network, which may be a Shared VPC."""

    store: GsmUrl
    cluster: str
    network: Annotated[str, Option("VPC network; for a Shared VPC projects/HOST/global/networks/N.", "N")] = "default"

    @property
    def project(self) -> str:
        """The project that has the secrets and runs the VMs."""
        return self.store.project

    @property
    def owner(self) -> Owner:
        """Owner of the resources in the project."""
        return Owner(self.project, self.cluster)

    @property
    def network_owner(self) -> Owner:
        """Owner of the firewall rules, which are in the network's project: another one for a Shared VPC."""
        host = self.network.split("/")[1] if self.network.startswith("projects/") else self.project
        return Owner(host, self.cluster, None if host == self.project else self.project)


@dataclass(frozen=True, kw_only=True)
class Deployment(Site):
    """A cluster to deploy: `workers` VMs beside the scheduler's, or 0 for one VM that runs both.

    The command's options are made from these fields.
    """

    zone: Annotated[str, Option("Zone of the VMs, such as europe-west1-b.", "Z")]
    image: Annotated[str, Option("Container image, by version or digest.", "I")]
    machine_type: Annotated[str, Option("Machine type of the workers' VMs, or of the only VM.", "M")] = "e2-standard-4"
    scheduler_machine_type: Annotated[str, Option("Machine type of the scheduler's VM, if there are others.", "M")] = (
        "e2-standard-2"
    )
    accelerator: Annotated[
        str | None, Option("GPU of the VMs. Refused: nothing here sets one up.", "T", hidden=True)
    ] = None
    workers: Annotated[int, Option("VMs of workers. With 0, one VM runs everything.", "N")] = 0
    isolate_workers: Annotated[bool, Option("Give each worker VM its own name, leaf and service account.")] = False
    regional: Annotated[bool, Option("Spread the workers' VMs over the zones of the region.")] = False
    surge: Annotated[
        int | None, Option("VMs that a rolling replacement adds: 0, or at least 1 (regional: 3).", "N")
    ] = None
    spot: Annotated[bool, Option("Use spot VMs for workers.")] = False
    disk_size: Annotated[int | None, Option("Boot disk, where workers spill. Default: the OS image's 10 GB.", "GB")] = (
        None
    )
    disk_type: Annotated[str | None, Option("Boot disk type, such as pd-ssd. Default: Google's.", "T")] = None
    labels: Annotated[tuple[str, ...], Option("Label of the VMs.", "K=V", "--label")] = ()
    clients_from: Annotated[tuple[str, ...], Option("IP range that may reach port 8786. Default: none.", "RANGE")] = ()
    iap: Annotated[bool, Option("Let Identity-Aware Proxy reach SSH and port 8786.")] = False
    tags: Annotated[tuple[str, ...], Option("Network tag of the VMs.", "T", "--tag")] = ()
    subnet: Annotated[str | None, Option("Subnet; for a Shared VPC projects/HOST/regions/R/subnetworks/S.", "S")] = None
    private: Annotated[bool, Option("Give no VM an external address.")] = False
    scheduler_account: Annotated[
        str | None,
        Option("Existing service account of the scheduler's or only VM.", "MAIL", "--scheduler-service-account"),
    ] = None
    worker_account: Annotated[
        str | None, Option("Existing service account of the workers' VMs.", "MAIL", "--worker-service-account")
    ] = None
    no_logging: Annotated[bool, Option("Send no logs to Cloud Logging.")] = False
    no_monitoring: Annotated[bool, Option("Send no metrics to Cloud Monitoring.")] = False
    threads_per_worker: Annotated[int | None, Option("Threads per worker process.", "N")] = None
    memory_per_worker: Annotated[str | None, Option("Memory limit per worker process.", "GB")] = None
    num_workers: Annotated[int | None, Option("Worker processes on each VM.", "N")] = None
    worker_clients: Annotated[str | None, Option("Clients inside tasks: deny, limited or allow.", "MODE")] = None
    scheduler_code: Annotated[
        str | None,
        Option("stock: everyone who submits can run code in the scheduler; sealed: only admins.", "MODE"),
    ] = None
    ca_sha256: str | None = None
    ca_passphrase_file: str | None = None
    secrets: Annotated[
        tuple[str, ...],
        Option("Mount secret N, or N@VERSION, on the workers: at /run/secrets/FILE or as fd.", "N=WHERE", "--secret"),
    ] = ()
    secrets_in_environment: Annotated[
        bool,
        Option(
            "Allow N=env:VAR; child processes, crash reports and readers of /proc/PID/environ see the value.",
            name="--allow-secrets-in-environment",
        ),
    ] = False

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """The cluster's other secrets that the workers mount, as the entrypoint reads them."""
        return parse_mounts(",".join(self.secrets), in_environment=self.secrets_in_environment)

    @property
    def subnet_path(self) -> str | None:
        """The full path of the subnet: an instance template has no region that could complete a short name."""
        if self.subnet is None or "/" in self.subnet:
            return self.subnet
        return f"projects/{self.network_owner.project}/regions/{self.region}/subnetworks/{self.subnet}"

    @property
    def region(self) -> str:
        """The region of the zone."""
        return self.zone.rpartition("-")[0]

    @property
    def agents(self) -> list[str]:
        """The agents of Container-Optimized OS that run."""
        return ["logging"] * (not self.no_logging) + ["monitoring"] * (not self.no_monitoring)

    @property
    def max_surge(self) -> int:
        """VMs that a rolling replacement adds before it removes others."""
        return self.surge if self.surge is not None else ZONES_OF_A_REGION if self.regional else 1

    @property
    def max_unavailable(self) -> int:
        """VMs that may be missing during a replacement: none if others are added first."""
        return 0 if self.max_surge else ZONES_OF_A_REGION if self.regional else 1

    @property
    def single(self) -> bool:
        """True if one VM runs the scheduler and the workers."""
        return self.workers == 0


def check_deployment(wanted: Deployment) -> Deployment:
    """`wanted`, normalised; raises UsageError for the first value that breaks a rule."""
    parse_label(wanted.cluster, "cluster")
    if wanted.project.isdigit():
        raise UsageError(f"{wanted.project!r} is a project's number", hint="name the project by its id: gsm://PROJECT")
    for field, (what, pattern, rule) in _FORMS.items():
        given = getattr(wanted, field)
        for text in given if isinstance(given, tuple) else (given,):
            if text is not None and not re.fullmatch(pattern, text):
                raise UsageError(f"{what} {text!r} is not well-formed", hint=rule)
    _check_machines(wanted)
    _check_network(wanted)
    for option, count, least, most in (
        ("--workers", wanted.workers, 0, 1000),
        ("--threads-per-worker", wanted.threads_per_worker, 1, 1000),
        ("--num-workers", wanted.num_workers, 1, 1000),  # the width of the port ranges
        ("--disk-size", wanted.disk_size, _MIN_DISK, _MAX_DISK),
    ):
        if count is not None and not least <= count <= most:
            raise UsageError(f"{option} {count} is not from {least} to {most}")
    _check_group(wanted)
    _check_labels(wanted.labels)
    for mount in wanted.mounts:
        if mount.path is not None and not _MOUNT_PATH.match(mount.path):
            raise UsageError(
                f"--secret {mount.name}={mount.path!r} is not on a tmpfs of the container",
                hint=f"--secret {mount.name}={SECRETS_DIRECTORY}/{mount.name}, or {mount.name}=fd",
            )
    return replace(wanted, clients_from=tuple(dict.fromkeys(map(parse_range, wanted.clients_from))))


def parse_range(text: str) -> str:
    """Parse an IPv4 range in CIDR form; UsageError for another form, and for a range wider than WIDEST."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise UsageError(f"--clients-from {text!r}: {error}", hint="for example 203.0.113.0/24") from None
    if network.version != 4:  # noqa: PLR2004 - the VMs that are made have IPv4 addresses only
        raise UsageError(f"--clients-from {text!r} is IPv6, and the VMs have IPv4 addresses", hint="name an IPv4 range")
    if network.prefixlen < WIDEST:
        whom = "everybody" if network.prefixlen == 0 else f"more than a /{WIDEST}, the widest range that is let in"
        raise UsageError(f"--clients-from {text!r} names {whom}", hint="name the range that your clients come from")
    return str(network)


def _check_machines(wanted: Deployment) -> None:
    if not re.fullmatch(IMAGE, wanted.image):
        raise UsageError(
            f"image {wanted.image!r} names no version", hint="REGISTRY/PATH:TAG, or better REGISTRY/PATH@sha256:DIGEST"
        )
    if wanted.image.endswith(":latest"):
        raise UsageError(f"image {wanted.image!r} changes under the cluster", hint="name a version or a digest")
    types = (wanted.machine_type, wanted.scheduler_machine_type)
    if arm := next(filter(_ARM.match, types), None):
        raise UsageError(
            f"machine type {arm!r} has Arm processors: the VMs' operating system is the one for x86-64",
            hint="choose an x86-64 type, such as n2-standard-8, or export cloud-init and make the VMs yourself",
        )
    if accelerated := wanted.accelerator or next(filter(_ACCELERATED.match, types), None):
        raise UsageError(
            f"{accelerated!r} has GPUs or TPUs: Container-Optimized OS needs their drivers installed, the container "
            "needs the devices, the VM needs --maintenance-policy=TERMINATE, which is not done here",
            hint="run GPU workers on GKE (docs/deploy/kubernetes.md), or export cloud-init and make the VMs yourself",
        )


def _check_network(wanted: Deployment) -> None:
    subnet = re.fullmatch(_SUBNET, wanted.subnet or "")
    if subnet and subnet["region"] != wanted.region:
        raise UsageError(
            f"subnet {wanted.subnet!r} is not in {wanted.region}", hint="name a subnet of the zone's region"
        )
    host = wanted.network_owner.project
    if host != wanted.project and wanted.subnet is None:
        raise UsageError(
            f"network {wanted.network!r} is shared, and no subnet is named",
            hint=f"--subnet projects/{host}/regions/{wanted.region}/subnetworks/NAME",
        )


def _check_group(wanted: Deployment) -> None:
    if wanted.isolate_workers and not 1 <= wanted.workers <= MAX_ISOLATED:
        raise UsageError(
            f"--isolate-workers with --workers {wanted.workers} is not from 1 to {MAX_ISOLATED}",
            hint="each isolated worker has its own VM, leaf and service account, which are limited by quota",
        )
    grouped = wanted.workers > 0 and not wanted.isolate_workers
    for option, given in (
        ("--regional", wanted.regional),
        ("--surge", wanted.surge is not None),
        ("--worker-service-account", wanted.worker_account is not None),
    ):
        if given and not grouped:
            raise UsageError(f"{option} is about a group of workers", hint="add --workers N, without --isolate-workers")
    if wanted.spot and wanted.single:
        raise UsageError(
            "--spot is for workers: a single VM is the scheduler as well, and preempting it ends all work",
            hint="add --workers N",
        )
    least = ZONES_OF_A_REGION if wanted.regional else 1
    if wanted.surge is not None and wanted.surge != 0 and not least <= wanted.surge <= 1000:  # noqa: PLR2004 - as --workers
        raise UsageError(
            f"--surge {wanted.surge} is neither 0 nor from {least} to 1000",
            hint="Compute Engine takes 0, or for a regional group at least the number of its zones",
        )


def _check_labels(given: tuple[str, ...]) -> None:
    if len(given) > _MAX_LABELS:
        raise UsageError(f"{len(given)} labels are more than {_MAX_LABELS}", hint="leave some out")
    keys = [pair.partition("=")[0] for pair in given]
    for key in keys:
        if key == "managed-by" or key.startswith("daskpki-"):
            raise UsageError(f"label {key!r} is one of daskpki's", hint="choose another key")
        if keys.count(key) > 1:
            raise UsageError(f"label {key!r} is given twice", hint="leave one out")
