"""What runs: VMs of their own, and groups of alike workers made from a template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from daskpki.deploy.names import digest, labels, mark
from daskpki.deploy.resource import NO_FILES, Command, Lasting, gcloud

OS_IMAGE: Final = ("cos-stable", "cos-cloud")
"""Container-Optimized OS: the image family, and the project that publishes it."""

SPEC_LABEL: Final = "daskpki-spec"
"""On VMs of their own: the digest of how they were made. The VMs of a group do not carry it."""


@dataclass(frozen=True)
class VmSpec:
    """How a VM is made, whatever its name and zone.

    `external` says whether it has an address outside, `address` names a static one.
    """

    project: str
    cluster: str
    machine_type: str
    account: str
    network: str
    subnet: str | None
    external: bool
    tags: tuple[str, ...]
    metadata: tuple[tuple[str, str], ...]
    user_data: str
    address: str | None = None

    @cached_property
    def digest(self) -> str:
        """Tells one way of making a VM from another."""
        return digest(repr(self))

    def flags(self, file: str, extra_labels: Mapping[str, str] = NO_FILES) -> list[str]:
        """The options of `gcloud compute instances create` and `instance-templates create` alike."""
        family, publisher = OS_IMAGE
        marked = {**labels(self.cluster), **extra_labels}
        return [
            f"--machine-type={self.machine_type}",
            f"--image-family={family}",
            f"--image-project={publisher}",
            f"--service-account={self.account}",
            "--scopes=cloud-platform",
            "--shielded-secure-boot",
            "--shielded-vtpm",
            "--shielded-integrity-monitoring",
            f"--network={self.network}",
            *([f"--subnet={self.subnet}"] if self.subnet else []),
            *([] if self.external else ["--no-address"]),
            *([f"--tags={','.join(self.tags)}"] if self.tags else []),
            f"--labels={_pairs(marked.items())}",
            f"--metadata={_pairs(self.metadata)}",
            f"--metadata-from-file=user-data={file}",
        ]


def _pairs(items: Iterable[tuple[str, str]]) -> str:
    return ",".join(f"{key}={value}" for key, value in items)


@dataclass(frozen=True)
class Machine:
    """A VM of its own; a found one knows only the digest of its spec."""

    project: str
    name: str
    zone: str
    digest: str
    spec: VmSpec | None = None

    @property
    def key(self) -> tuple[str, str]:
        """See Resource."""
        return "VM", f"{self.zone}/{self.name}"

    @property
    def title(self) -> str:
        """See Resource."""
        return f"VM {self.name} in {self.zone}" + (f", {self.spec.machine_type}" if self.spec else "")

    @property
    def facts(self) -> Mapping[str, str]:
        """See Resource."""
        return {"specification": self.digest}

    @property
    def file(self) -> str:
        """Where its user-data is written."""
        return f"{self.name}.yaml"

    @property
    def files(self) -> Mapping[str, str]:
        """See Resource."""
        return {self.file: self.spec.user_data} if self.spec else NO_FILES

    @property
    def create(self) -> Sequence[Command]:
        """See Resource."""
        if self.spec is None:
            return ()
        address = [f"--address={self.spec.address}"] if self.spec.address else []
        flags = self.spec.flags(self.file, {SPEC_LABEL: self.digest})
        return (
            gcloud(self.project, "compute", "instances", "create", self.name, f"--zone={self.zone}", *flags, *address),
        )

    def update(self, former: Mapping[str, str]) -> Sequence[Command]:  # noqa: ARG002 - always made anew
        """See Resource; the VM is replaced, and keeps its address."""
        return (*self.delete, *self.create)

    @property
    def delete(self) -> Sequence[Command]:
        """See Resource."""
        return (gcloud(self.project, "compute", "instances", "delete", self.name, f"--zone={self.zone}"),)


@dataclass(frozen=True)
class Template(Lasting):
    """What the VMs of a group are made from; its name ends in its spec's digest, since it cannot be changed."""

    project: str
    cluster: str
    name: str
    spec: VmSpec | None = None

    @property
    def key(self) -> tuple[str, str]:
        """See Resource."""
        return "instance template", self.name

    @property
    def title(self) -> str:
        """See Resource."""
        return f"instance template {self.name}" + (f", {self.spec.machine_type}" if self.spec else "")

    @property
    def file(self) -> str:
        """Where its user-data is written."""
        return f"{self.name}.yaml"

    @property
    def files(self) -> Mapping[str, str]:
        """See Resource."""
        return {self.file: self.spec.user_data} if self.spec else NO_FILES

    @property
    def create(self) -> Sequence[Command]:
        """See Resource."""
        if self.spec is None:
            return ()
        flags = [*self.spec.flags(self.file), f"--description={mark(self.cluster)}"]
        return (gcloud(self.project, "compute", "instance-templates", "create", self.name, *flags),)

    @property
    def delete(self) -> Sequence[Command]:
        """See Resource."""
        return (gcloud(self.project, "compute", "instance-templates", "delete", self.name),)


@dataclass(frozen=True)
class Group:
    """A managed instance group of workers, which share one identity and are revoked together."""

    project: str
    cluster: str
    name: str
    zone: str
    template: str
    size: int

    @property
    def key(self) -> tuple[str, str]:
        """See Resource."""
        return "instance group", f"{self.zone}/{self.name}"

    @property
    def title(self) -> str:
        """See Resource."""
        return f"instance group {self.name} in {self.zone}: {self.size} VMs from {self.template}"

    @property
    def facts(self) -> Mapping[str, str]:
        """See Resource."""
        return {"template": self.template, "size": str(self.size)}

    @property
    def files(self) -> Mapping[str, str]:
        """See Resource."""
        return NO_FILES

    @property
    def create(self) -> Sequence[Command]:
        """See Resource."""
        flags = (
            f"--template={self.template}",
            f"--size={self.size}",
            f"--base-instance-name={self.name}",
            f"--description={mark(self.cluster)}",
        )
        return (self._group("create", self.name, *flags),)

    def update(self, former: Mapping[str, str]) -> Sequence[Command]:
        """See Resource; a new template replaces the VMs one after another, and only then is the former one free."""
        commands = []
        if former["template"] != self.template:
            version = f"--version=template={self.template}"
            commands.append(self._group("rolling-action", "start-update", self.name, version))
            commands.append(self._group("wait-until", self.name, "--version-target-reached"))
        if former["size"] != str(self.size):
            commands.append(self._group("resize", self.name, f"--size={self.size}"))
        return tuple(commands)

    @property
    def delete(self) -> Sequence[Command]:
        """See Resource."""
        return (self._group("delete", self.name),)

    def _group(self, *words: str) -> Command:
        return gcloud(self.project, "compute", "instance-groups", "managed", *words, f"--zone={self.zone}")
