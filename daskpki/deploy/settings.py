"""What `daskpki deploy gcp` was asked for, checked: UsageError names the value, the rule and the way out."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from daskpki.boot.mounts import Mount, parse_mounts
from daskpki.errors import UsageError
from daskpki.handover import SEALED
from daskpki.identity import parse_label
from daskpki.settings import GsmUrl, LocalUrl, parse_store_url

MAX_ISOLATED: Final = 50
"""Workers with a service account each: a project has 100 of these by default, and a firewall rule names 10."""

SECRETS_DIRECTORY: Final = "/run/secrets"
"""Where a worker's container has a tmpfs for mounted secrets, beside its `/tmp`."""

_WIDEST: Final = 8
"""A whole private network (RFC 1918, 3): two halves of the Internet would name everybody as well as one /0."""

_ZONE = re.compile(r"[a-z]+(-[a-z]+)+[0-9]+-[a-z]\Z")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_TAG = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?\Z")
# REGISTRY/PATH:TAG or @sha256:..., none of whose characters means anything to a shell, systemd or YAML.
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._/:-]*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|@sha256:[0-9a-f]{64})\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_DECIMAL = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?\Z")
# On the container's tmpfs, and nothing that a shell, systemd or YAML reads as more than a path.
_MOUNT_PATH = re.compile(rf"({SECRETS_DIRECTORY}|/tmp)(/[A-Za-z0-9_.-]+)+\Z")


class Deployment(NamedTuple):
    """A cluster to be: `workers` VMs beside the scheduler's, or 0 for one VM that is both."""

    store: GsmUrl
    cluster: str
    zone: str
    image: str
    machine_type: str = "e2-standard-4"
    scheduler_machine_type: str = "e2-standard-2"
    workers: int = 0
    isolate_workers: bool = False
    clients_from: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    network: str = "default"
    subnet: str | None = None
    private: bool = False
    logging: bool = True
    monitoring: bool = True
    threads_per_worker: int | None = None
    memory_per_worker: str | None = None
    num_workers: int | None = None
    worker_clients: str | None = None
    scheduler_code: str | None = None
    ca_sha256: str | None = None
    ca_passphrase_file: str | None = None
    secrets: tuple[str, ...] = ()
    secrets_in_environment: bool = False

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """The cluster's other secrets that the workers mount, as the entrypoint reads them."""
        return parse_mounts(",".join(self.secrets), in_environment=self.secrets_in_environment)

    @property
    def project(self) -> str:
        """The project that holds the secrets and runs the VMs."""
        return self.store.project

    @property
    def region(self) -> str:
        """The region of the zone."""
        return self.zone.rpartition("-")[0]

    @property
    def scheduler_type(self) -> str:
        """The machine type of the scheduler's VM, which with no other VMs is the workers' as well."""
        return self.machine_type if self.single else self.scheduler_machine_type

    @property
    def single(self) -> bool:
        """Whether one VM is scheduler and workers."""
        return self.workers == 0


def check_deployment(wanted: Deployment) -> Deployment:
    """`wanted`, normalised; raises UsageError for the first value that breaks a rule."""
    parse_label(wanted.cluster, "cluster")
    if wanted.project.isdigit():
        raise UsageError(f"{wanted.project!r} is a project's number", hint="name the project by its id: gsm://PROJECT")
    _match(_ZONE, wanted.zone, "zone", "such as europe-west1-b")
    _check_image(wanted.image)
    for what, name in (("machine type", wanted.machine_type), ("machine type", wanted.scheduler_machine_type)):
        _match(_NAME, name, what, "such as e2-highcpu-16")
    for what, name in (("network", wanted.network), ("subnet", wanted.subnet or "default")):
        _match(_NAME, name, what, "its short name, such as default")
    for tag in wanted.tags:
        _match(_TAG, tag, "tag", "such as dask-server")
    _check_sizes(wanted)
    _check_pins(wanted)
    _check_mounts(wanted)
    ranges = tuple(parse_range(text) for text in wanted.clients_from)
    return wanted._replace(clients_from=tuple(dict.fromkeys(ranges)))


def parse_gsm(text: str) -> GsmUrl:
    """The store on Secret Manager of that URL; UsageError for a local one, which no VM could read."""
    url = parse_store_url(text)
    if isinstance(url, LocalUrl):
        raise UsageError(f"VMs cannot read the store {text!r}", hint="--store gsm://PROJECT")
    return url


def parse_range(text: str) -> str:
    """A range of addresses in CIDR form; a whole address family names nobody, so it is refused."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise UsageError(f"--clients-from {text!r}: {error}", hint="for example 203.0.113.0/24") from None
    if network.version != 4:  # noqa: PLR2004 - the VMs that are made have IPv4 addresses only
        raise UsageError(f"--clients-from {text!r} is IPv6, and the VMs have IPv4 addresses", hint="name an IPv4 range")
    if network.prefixlen < _WIDEST:
        whom = "everybody" if network.prefixlen == 0 else f"more than a /{_WIDEST}, the widest range that is let in"
        raise UsageError(f"--clients-from {text!r} names {whom}", hint="name the range that your clients come from")
    return str(network)


def _match(pattern: re.Pattern[str], text: str, what: str, rule: str) -> None:
    if not pattern.match(text):
        raise UsageError(f"{what} {text!r} is not well-formed", hint=rule)


def _check_image(image: str) -> None:
    if not _IMAGE.match(image):
        raise UsageError(
            f"image {image!r} names no version", hint="REGISTRY/PATH:TAG, or better REGISTRY/PATH@sha256:DIGEST"
        )
    if image.endswith(":latest"):
        raise UsageError(f"image {image!r} changes under the cluster", hint="name a version or a digest")


def _check_sizes(wanted: Deployment) -> None:
    counts: Iterable[tuple[str, int | None, int]] = (
        ("--workers", wanted.workers, 0),
        ("--threads-per-worker", wanted.threads_per_worker, 1),
        ("--num-workers", wanted.num_workers, 1),
    )
    for option, count, least in counts:
        if count is not None and not least <= count <= 1000:  # noqa: PLR2004 - the width of the port ranges
            raise UsageError(f"{option} {count} is not from {least} to 1000")
    memory = wanted.memory_per_worker
    if memory is not None and not (_DECIMAL.match(memory) and float(memory) > 0):
        raise UsageError(f"--memory-per-worker {memory!r} is not a number of GB", hint="for example 1 or 3.5")
    if wanted.isolate_workers and not 1 <= wanted.workers <= MAX_ISOLATED:
        raise UsageError(
            f"--isolate-workers with --workers {wanted.workers} is not from 1 to {MAX_ISOLATED}",
            hint="each isolated worker has a VM, a leaf and a service account of its own, which are limited by quota",
        )


def _check_pins(wanted: Deployment) -> None:
    modes = ("deny", "limited", "allow")
    if wanted.worker_clients is not None and wanted.worker_clients not in modes:
        raise UsageError(f"--worker-clients {wanted.worker_clients!r} is none of {', '.join(modes)}")
    if wanted.scheduler_code not in {None, "stock", SEALED}:
        raise UsageError(f"--scheduler-code {wanted.scheduler_code!r} is none of stock, {SEALED}")
    _optional(wanted.ca_sha256, _SHA256.match, "--ca-sha256", "64 hexadecimal digits, as `daskpki show` prints them")


def _check_mounts(wanted: Deployment) -> None:
    for mount in wanted.mounts:
        if mount.path is not None and not _MOUNT_PATH.match(mount.path):
            raise UsageError(
                f"--secret {mount.name}={mount.path!r} is not on a tmpfs of the container",
                hint=f"--secret {mount.name}={SECRETS_DIRECTORY}/{mount.name}, or {mount.name}=fd",
            )


def _optional(text: str | None, fits: Callable[[str], object], what: str, rule: str) -> None:
    if text is not None and not fits(text):
        raise UsageError(f"{what} {text!r} is not well-formed", hint=rule)
