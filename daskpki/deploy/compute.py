"""Compute Engine: the scheduler's address, firewall rules by service account, VMs, templates and groups. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from daskpki.deploy.cloud_init import Container, render_user_data
from daskpki.deploy.resource import NO_FILES, Block, Change, Command, Kind, Owner, Resource, digest, gcloud, labels
from daskpki.deploy.settings import Deployment

OS_IMAGE: Final = ("cos-stable", "cos-cloud")
"""Container-Optimized OS: the image family, and the project that publishes it."""

PART_LABEL: Final = "daskpki-part"
"""On VMs that are managed one by one. The VMs of a group do not carry it."""

FACTS_KEY: Final = "daskpki-facts"
"""Metadata that says how a VM was made, so that a plan can name each field that differs. Nothing in it is secret."""

_CLOUD_PLATFORM: Final = "https://www.googleapis.com/auth/cloud-platform"


def address(project: str, owner: Owner, name: str, region: str) -> Resource:
    """The scheduler's external address, which stays when its VM is replaced."""
    where = f"--region={region}"
    about = {"project": project, "name": name, "region": region, "description": owner.mark}
    return Resource(
        Kind.ADDRESS,
        f"{region}/{name}",
        f"static external address {name} in {region}",
        create=(gcloud(project, "compute", "addresses", "create", name, where, f"--description={owner.mark}"),),
        delete=(gcloud(project, "compute", "addresses", "delete", name, where),),
        terraform=Block("google_compute_address", "scheduler", about),
    )


@dataclass(frozen=True)
class Rule:
    """An ingress rule. `ports` is as gcloud takes it, such as `tcp:8786`; a lower `priority` decides first."""

    name: str
    network: str
    action: str
    ports: str
    priority: int
    targets: tuple[str, ...]
    source_ranges: tuple[str, ...] = ()
    source_accounts: tuple[str, ...] = ()
    label: str = ""


def firewall(project: str, owner: Owner, rule: Rule) -> Resource:
    """The rule as a resource of the network's project."""
    allows = rule.action == "ALLOW"
    sources = ", ".join((*rule.source_ranges, *(each.partition("@")[0] for each in rule.source_accounts)))
    targets = ", ".join(each.partition("@")[0] for each in rule.targets)
    says = f"lets {sources} reach {targets} on" if allows else f"keeps {sources} from {targets} on"
    named = {"--source-ranges": rule.source_ranges, "--source-service-accounts": rule.source_accounts}
    changeable = (
        f"--rules={rule.ports}",
        f"--priority={rule.priority}",
        f"--target-service-accounts={','.join(rule.targets)}",
        *(f"{option}={','.join(given)}" for option, given in named.items() if given),
    )
    fixed = (
        f"--network={rule.network}",
        "--direction=INGRESS",
        f"--action={rule.action}",
        f"--description={owner.mark}",
    )

    def command(verb: str, *options: str) -> Command:
        return gcloud(project, "compute", "firewall-rules", verb, rule.name, *options)

    return Resource(
        Kind.FIREWALL,
        rule.name,
        f"firewall rule {rule.name}: {says} {rule.ports}",
        facts={
            "network": rule.network.rpartition("/")[2],
            "action": rule.action,
            "ports": rule.ports,
            "priority": str(rule.priority),
            "targets": ",".join(sorted(rule.targets)),
            "source ranges": ",".join(sorted(rule.source_ranges)),
            "source accounts": ",".join(sorted(rule.source_accounts)),
        },
        create=(command("create", *fixed, *changeable),),
        delete=(command("delete"),),
        # Compute Engine cannot change a rule's network and action.
        changes=(
            Change(
                frozenset({"ports", "priority", "targets", "source ranges", "source accounts"}),
                (command("update", *changeable),),
            ),
        ),
        terraform=Block("google_compute_firewall", rule.label, _firewall_arguments(project, owner, rule)),
    )


def _firewall_arguments(project: str, owner: Owner, rule: Rule) -> dict[str, Any]:
    protocols: dict[str, list[str]] = {}
    for each in rule.ports.split(","):
        protocol, _, ports = each.partition(":")
        protocols.setdefault(protocol, []).append(ports)
    arguments = {
        "project": project,
        "name": rule.name,
        "network": rule.network,
        "description": owner.mark,
        "direction": "INGRESS",
        "priority": rule.priority,
        "source_ranges": list(rule.source_ranges),
        "source_service_accounts": list(rule.source_accounts),
        "target_service_accounts": list(rule.targets),
        rule.action.lower(): [{"protocol": protocol, "ports": ports} for protocol, ports in protocols.items()],
    }
    return given(arguments)


@dataclass(frozen=True)
class VmSpec:
    """Specification of one part's VMs; `address` names a static external address."""

    wanted: Deployment
    part: str
    machine_type: str
    account: str
    address: str | None
    spot: bool
    container: Container

    @property
    def project(self) -> str:
        """The VM's project."""
        return self.wanted.project

    @property
    def owner(self) -> Owner:
        """The cluster."""
        return Owner(self.wanted.cluster)

    @property
    def agents(self) -> list[str]:
        """The agents of Container-Optimized OS that run."""
        return ["logging"] * self.wanted.logging + ["monitoring"] * self.wanted.monitoring

    @cached_property
    def facts(self) -> dict[str, str]:
        """Properties that a plan compares, by names for people."""
        neutral = self.container._replace(cluster="", image="", environment={}, arguments=(), ports=())
        return {
            "machine type": self.machine_type,
            "image": self.container.image,
            "boot disk": self.disk,
            "external address": self.reachable,
            "network": self.wanted.network,
            "subnet": self.wanted.subnet_path or "",
            "service account": self.account,
            "spot": "yes" if self.spot else "no",
            "labels": ",".join(sorted(self.wanted.labels)),
            "tags": ",".join(self.wanted.tags),
            "agents": ", ".join(self.agents),
            "arguments": " ".join((self.container.command, *self.container.arguments)),
            "open ports": ", ".join(self.container.ports),
            **self.container.environment,
            # Differs with the version of daskpki that wrote the user-data.
            "boot script": digest(render_user_data(neutral)),
        }

    @property
    def disk(self) -> str:
        """The boot disk in words."""
        size = f"{self.wanted.disk_size} GB" if self.wanted.disk_size else "as large as the OS image (10 GB)"
        return f"{size}, {self.wanted.disk_type}" if self.wanted.disk_type else size

    @property
    def reachable(self) -> str:
        """The external address in words."""
        return "none" if self.wanted.private else f"static {self.address}" if self.address else "one that changes"

    @property
    def says(self) -> str:
        """The VM in words, for a plan."""
        kind = f"{self.machine_type}{', spot' if self.spot else ''}"
        return f"{kind}, {self.container.image}, boot disk {self.disk}, external address {self.reachable}"

    @property
    def user_data(self) -> str:
        """The VM's user-data."""
        return render_user_data(self.container)

    @property
    def marks(self) -> dict[str, str]:
        """The labels, ours and the given ones."""
        return {**labels(self.owner.cluster), **dict(pair.split("=") for pair in self.wanted.labels)}

    @property
    def metadata(self) -> dict[str, str]:
        """Beside the files: the agents of Container-Optimized OS, and logins by IAM only."""
        return {"enable-oslogin": "TRUE", **{f"google-{agent}-enabled": "true" for agent in self.agents}}

    def files(self, name: str) -> dict[str, str]:
        """The files that become metadata, none of them secret."""
        return {f"{name}.yaml": self.user_data, f"{name}.json": json.dumps(self.facts, sort_keys=True) + "\n"}

    def flags(self, name: str, extra_labels: Mapping[str, str] = NO_FILES) -> tuple[str, ...]:
        """The options of `gcloud compute instances create` and `instance-templates create` alike."""
        family, publisher = OS_IMAGE
        spot = ("--provisioning-model=SPOT", "--instance-termination-action=STOP")
        return (
            f"--machine-type={self.machine_type}",
            f"--image-family={family}",
            f"--image-project={publisher}",
            *([f"--boot-disk-size={self.wanted.disk_size}GB"] if self.wanted.disk_size else []),
            *([f"--boot-disk-type={self.wanted.disk_type}"] if self.wanted.disk_type else []),
            f"--service-account={self.account}",
            "--scopes=cloud-platform",
            "--shielded-secure-boot",
            "--shielded-vtpm",
            "--shielded-integrity-monitoring",
            f"--network={self.wanted.network}",
            *([f"--subnet={self.wanted.subnet_path}"] if self.wanted.subnet_path else []),
            *([] if not self.wanted.private else ["--no-address"]),
            *(spot if self.spot else ()),
            *([f"--tags={','.join(self.wanted.tags)}"] if self.wanted.tags else []),
            f"--labels={_pairs({**self.marks, **extra_labels})}",
            f"--metadata={_pairs(self.metadata)}",
            f"--metadata-from-file=user-data={name}.yaml,{FACTS_KEY}={name}.json",
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """Terraform arguments that instance and template have in common."""
        wanted = self.wanted
        access = [] if wanted.private else [given({"nat_ip": self.address})]
        network = {"network": wanted.network, "subnetwork": wanted.subnet_path, "access_config": access}
        spot = {"provisioning_model": "SPOT", "preemptible": True, "automatic_restart": False}
        shielded = {"enable_secure_boot": True, "enable_vtpm": True, "enable_integrity_monitoring": True}
        return given(
            {
                "project": self.project,
                "machine_type": self.machine_type,
                "tags": list(wanted.tags),
                "labels": self.marks,
                "metadata": self.metadata,
                "network_interface": [given(network)],
                "scheduling": [spot | {"instance_termination_action": "STOP"}] if self.spot else None,
                "service_account": [{"email": self.account, "scopes": [_CLOUD_PLATFORM]}],
                "shielded_instance_config": [shielded],
            }
        )

    def disk_arguments(self, image: str, size: str, kind: str) -> dict[str, Any]:
        """The boot disk, by the names that the instance's and the template's blocks have for its fields."""
        source = f"{OS_IMAGE[1]}/{OS_IMAGE[0]}"
        return given({image: source, size: self.wanted.disk_size, kind: self.wanted.disk_type})


def given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are neither None nor an empty list."""
    return {name: value for name, value in arguments.items() if value is not None and value != []}


def _pairs(items: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in items.items())


def vm(spec: VmSpec, name: str, zone: str) -> Resource:
    """A VM that is managed by itself."""
    part = {PART_LABEL: spec.part}
    static = (f"--address={spec.address}",) if spec.address else ()
    create = ("compute", "instances", "create", name, f"--zone={zone}", *spec.flags(name, part), *static)
    disk = spec.disk_arguments("image", "size", "type")
    about = spec.arguments | {
        "name": name,
        "zone": zone,
        "labels": {**spec.marks, **part},
        "boot_disk": [{"initialize_params": [disk]}],
    }
    # Labels are no reason to end what runs there.
    marked = f"--update-labels={_pairs({**spec.marks, **part})}"
    relabel = ("compute", "instances", "update", name, f"--zone={zone}", "--clear-labels", marked)
    facts = gcloud(
        spec.project,
        "compute", "instances", "add-metadata", name, f"--zone={zone}", f"--metadata-from-file={FACTS_KEY}={name}.json",
    )  # fmt: skip
    return Resource(
        Kind.VM,
        f"{zone}/{name}",
        f"VM {name} in {zone}: {spec.says}",
        facts=spec.facts,
        create=(gcloud(spec.project, *create),),
        delete=found_vm(spec.project, name, zone, {}).delete,
        changes=(Change(frozenset({"labels"}), (gcloud(spec.project, *relabel), facts)),),
        files=spec.files(name),
        ends="running work ends",
        terraform=Block("google_compute_instance", spec.part, about),
    )


def found_vm(project: str, name: str, zone: str, facts: Mapping[str, str]) -> Resource:
    """A VM that is there; it can be removed and compared."""
    delete = gcloud(project, "compute", "instances", "delete", name, f"--zone={zone}")
    return Resource(Kind.VM, f"{zone}/{name}", f"VM {name} in {zone}", facts=facts, delete=(delete,))


def template(spec: VmSpec) -> Resource:
    """The template of a group's VMs; its name ends in its content's digest, since it cannot be changed."""
    name = template_name(spec)
    described = f"--description={spec.owner.mark}"
    words = ("compute", "instance-templates", "create", name, *spec.flags(name), described)
    about = spec.arguments | {
        # The provider makes the new template before it removes the former one, so their names differ.
        "name_prefix": f"{spec.owner.name(spec.part)}-",
        "description": spec.owner.mark,
        "disk": [{"boot": True, **spec.disk_arguments("source_image", "disk_size_gb", "disk_type")}],
        "lifecycle": {"create_before_destroy": True},
    }
    return Resource(
        Kind.TEMPLATE,
        name,
        f"instance template {name}",
        create=(gcloud(spec.project, *words),),
        delete=found_template(spec.project, name).delete,
        files=spec.files(name),
        terraform=Block("google_compute_instance_template", spec.part, about),
    )


def found_template(project: str, name: str) -> Resource:
    """A template that is there; it can be removed."""
    delete = gcloud(project, "compute", "instance-templates", "delete", name)
    return Resource(Kind.TEMPLATE, name, f"instance template {name}", delete=(delete,))


def template_name(spec: VmSpec) -> str:
    """The template's name, which follows from its content."""
    return spec.owner.name(f"{spec.part}-{digest(json.dumps([spec.facts, spec.user_data, spec.flags('')]))}")


@dataclass(frozen=True)
class GroupSpec:
    """A managed instance group: `place` is a zone, or a region if `regional`."""

    project: str
    owner: Owner
    name: str
    place: str
    regional: bool
    size: int
    template: str
    facts: Mapping[str, str]
    surge: int = 1
    unavailable: int = 0
    says: str = ""


def group(spec: GroupSpec) -> Resource:
    """Workers that share one identity and are revoked together. Its facts are those of its VMs, and its size."""
    where = f"--{'region' if spec.regional else 'zone'}={spec.place}"

    def command(*words: str) -> Command:
        return gcloud(spec.project, "compute", "instance-groups", "managed", *words, where)

    rate = (f"--max-surge={spec.surge}", f"--max-unavailable={spec.unavailable}")
    # Without this a regional group refuses a surge of 0, since it would move VMs between zones meanwhile.
    still = ("--instance-redistribution-type=none",) if spec.regional else ()
    replace = (
        command("rolling-action", "start-update", spec.name, f"--version=template={spec.template}", *rate),
        # Only then is the former template free to be removed.
        command("wait-until", spec.name, "--version-target-reached"),
    )
    resize = (command("resize", spec.name, f"--size={spec.size}"),)
    create = (
        f"--template={spec.template}",
        f"--size={spec.size}",
        f"--base-instance-name={spec.name}",
        f"--description={spec.owner.mark}",
        *still,
    )
    return Resource(
        Kind.GROUP,
        f"{spec.place}/{spec.name}",
        f"instance group {spec.name} in {spec.place}: {spec.size} VMs, each {spec.says}".removesuffix(", each "),
        facts={**spec.facts, "size": str(spec.size), "template": spec.template},
        create=(command("create", spec.name, *create),),
        delete=(command("delete", spec.name),),
        # No VM is replaced that would then be removed, and none is made from the former template.
        changes=(
            Change(frozenset({"size"}), resize, direction="down"),
            Change(frozenset(), replace, rolling=True),
            Change(frozenset({"size"}), resize, direction="up"),
        ),
        ends="running work ends",
        terraform=Block(
            f"google_compute_{'region_' if spec.regional else ''}instance_group_manager", "worker", _arguments(spec)
        ),
    )


def _arguments(spec: GroupSpec) -> dict[str, Any]:
    policy: dict[str, Any] = {
        "type": "PROACTIVE",
        "minimal_action": "REPLACE",
        "max_surge_fixed": spec.surge,
        "max_unavailable_fixed": spec.unavailable,
    }
    return {
        "project": spec.project,
        "name": spec.name,
        "region" if spec.regional else "zone": spec.place,
        "description": spec.owner.mark,
        "base_instance_name": spec.name,
        "target_size": spec.size,
        "version": [{"instance_template": spec.template}],
        "update_policy": [policy | ({"instance_redistribution_type": "NONE"} if spec.regional else {})],
    }


def metadata_of(item: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a VM or a template's properties, as the API lists it."""
    entries: Iterable[Mapping[str, str]] = item.get("metadata", {}).get("items", ())
    return {entry["key"]: entry.get("value", "") for entry in entries}
