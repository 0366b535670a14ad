"""Compute Engine as resources: the scheduler's address, firewall rules by account, VMs, templates and groups. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from daskpki.deploy.blueprint import Part, Rule, container, parts, rules
from daskpki.deploy.cloud_init import render_user_data
from daskpki.deploy.iam import Command, Differences, Kind, Resource, Update, gcloud
from daskpki.deploy.settings import Deployment, Owner, digest

OS_IMAGE: Final = ("cos-stable", "cos-cloud")
"""Container-Optimized OS: the image family, and the project that publishes it."""

PART_LABEL: Final = "daskpki-part"
"""Label of the VMs that are managed one by one. The VMs of a group do not carry it."""

FACTS_KEY: Final = "daskpki-facts"
"""Metadata with a VM's properties, so that a plan can name each one that differs. Nothing in it is secret."""

_ENDS: Final = "running work ends"


def network(wanted: Deployment) -> Iterator[Resource]:
    """The scheduler's address, and the firewall rules."""
    if not wanted.private:
        yield address(wanted.owner, wanted.owner.name("scheduler"), wanted.region)
    for rule in rules(wanted):
        yield firewall(wanted.network_owner, rule._replace(name=wanted.network_owner.name(rule.name)))


def machines(wanted: Deployment) -> Iterator[Resource]:
    """The VMs, or the template and the group of the workers."""
    for part in parts(wanted):
        if part.schedules or wanted.isolate_workers:
            yield _vm(wanted, part)
        else:
            yield from _template_and_group(wanted, part)


def address(owner: Owner, name: str, region: str) -> Resource:
    """The scheduler's external address, which stays when its VM is replaced."""

    def command(verb: str, *options: str) -> tuple[Command, ...]:
        return (gcloud(owner.project, "compute", "addresses", verb, name, f"--region={region}", *options),)

    return Resource(
        Kind.ADDRESS,
        f"{region}/{name}",
        f"static external address {name} in {region}",
        create=command("create", f"--description={owner.mark}"),
        delete=command("delete"),
    )


def firewall(owner: Owner, rule: Rule) -> Resource:
    """The rule as a resource of the network's project."""
    sources = ", ".join((*rule.source_ranges, *(each.partition("@")[0] for each in rule.source_accounts)))
    targets = ", ".join(each.partition("@")[0] for each in rule.targets)
    says = f"lets {sources} reach {targets} on" if rule.action == "ALLOW" else f"keeps {sources} from {targets} on"
    named = {"--source-ranges": rule.source_ranges, "--source-service-accounts": rule.source_accounts}
    changeable = (
        f"--rules={rule.ports}",
        f"--priority={rule.priority}",
        f"--target-service-accounts={','.join(rule.targets)}",
        *(f"{option}={','.join(given)}" for option, given in named.items() if given),
    )
    fixed = (f"--network={rule.network}", "--direction=INGRESS", f"--action={rule.action}")

    def command(verb: str, *options: str) -> tuple[Command, ...]:
        return (gcloud(owner.project, "compute", "firewall-rules", verb, rule.name, *options),)

    def update(differences: Differences) -> Update | None:
        return None if {"network", "action"} & differences.keys() else Update(command("update", *changeable))

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
        create=command("create", *fixed, f"--description={owner.mark}", *changeable),
        delete=command("delete"),
        update=update,  # Compute Engine cannot change a rule's network and action
    )


def metadata(wanted: Deployment) -> dict[str, str]:
    """A VM's metadata beside its files: logins by IAM only, and the agents of Container-Optimized OS."""
    return {"enable-oslogin": "TRUE", **{f"google-{agent}-enabled": "true" for agent in wanted.agents}}


def labels(wanted: Deployment) -> dict[str, str]:
    """A VM's labels, ours and the given ones."""
    return {
        "managed-by": "daskpki",
        "daskpki-cluster": wanted.cluster,
        **dict(pair.split("=") for pair in wanted.labels),
    }


def _facts(wanted: Deployment, part: Part) -> dict[str, str]:
    """Properties that a plan compares, by names for people."""
    box = container(wanted, part)
    size = f"{wanted.disk_size} GB" if wanted.disk_size else "as large as the OS image (10 GB)"
    static = f"static {wanted.owner.name('scheduler')}" if part.schedules else "one that changes"
    return {
        "machine type": part.machine_type,
        "image": box.image,
        "boot disk": f"{size}, {wanted.disk_type}" if wanted.disk_type else size,
        "external address": "none" if wanted.private else static,
        "network": wanted.network,
        "subnet": wanted.subnet_path or "",
        "service account": part.account,
        "spot": "yes" if wanted.spot and not part.schedules else "no",
        "labels": ",".join(sorted(wanted.labels)),
        "tags": ",".join(wanted.tags),
        "agents": ", ".join(wanted.agents),
        "arguments": " ".join((box.command, *box.arguments)),
        "open ports": ", ".join(box.ports),
        **box.environment,
        # Differs with the version of daskpki that wrote the user-data.
        "boot script": digest(
            render_user_data(box._replace(cluster="", image="", environment={}, arguments=(), ports=()))
        ),
    }


def _description(facts: Mapping[str, str]) -> str:
    """The VM in the words of a plan."""
    spot = ", spot" if facts["spot"] == "yes" else ""
    where = f"boot disk {facts['boot disk']}, external address {facts['external address']}"
    return f"{facts['machine type']}{spot}, {facts['image']}, {where}"


def _files(wanted: Deployment, part: Part, name: str) -> dict[str, str]:
    """The files that become metadata, none of them secret."""
    facts = json.dumps(_facts(wanted, part), sort_keys=True) + "\n"
    return {f"{name}.yaml": render_user_data(container(wanted, part)), f"{name}.json": facts}


def _flags(wanted: Deployment, part: Part, name: str, marks: Mapping[str, str]) -> tuple[str, ...]:
    """The options of `gcloud compute instances create` and `instance-templates create` alike."""
    spot = ("--provisioning-model=SPOT", "--instance-termination-action=STOP")
    return (
        f"--machine-type={part.machine_type}",
        f"--image-family={OS_IMAGE[0]}",
        f"--image-project={OS_IMAGE[1]}",
        *([f"--boot-disk-size={wanted.disk_size}GB"] if wanted.disk_size else []),
        *([f"--boot-disk-type={wanted.disk_type}"] if wanted.disk_type else []),
        f"--service-account={part.account}",
        "--scopes=cloud-platform",
        "--shielded-secure-boot",
        "--shielded-vtpm",
        "--shielded-integrity-monitoring",
        f"--network={wanted.network}",
        *([f"--subnet={wanted.subnet_path}"] if wanted.subnet_path else []),
        *(["--no-address"] if wanted.private else []),
        *(spot if wanted.spot and not part.schedules else ()),
        *([f"--tags={','.join(wanted.tags)}"] if wanted.tags else []),
        f"--labels={_pairs(marks)}",
        f"--metadata={_pairs(metadata(wanted))}",
        f"--metadata-from-file=user-data={name}.yaml,{FACTS_KEY}={name}.json",
    )


def _pairs(items: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in items.items())


def _vm(wanted: Deployment, part: Part) -> Resource:
    """A VM that belongs to no group."""
    name, facts, marks = wanted.owner.name(part.name), _facts(wanted, part), {**labels(wanted), PART_LABEL: part.name}
    static = (f"--address={wanted.owner.name('scheduler')}",) if part.schedules and not wanted.private else ()

    def command(verb: str, *options: str) -> Command:
        return gcloud(wanted.project, "compute", "instances", verb, name, f"--zone={wanted.zone}", *options)

    relabel = (
        command("update", "--clear-labels", f"--update-labels={_pairs(marks)}"),
        command("add-metadata", f"--metadata-from-file={FACTS_KEY}={name}.json"),
    )
    found = found_vm(wanted.owner, name, wanted.zone, facts)
    return found._replace(
        title=f"{found.title}: {_description(facts)}",
        create=(command("create", *_flags(wanted, part, name, marks), *static),),
        # Labels are no reason to end what runs there.
        update=lambda differences: Update(relabel) if differences.keys() == {"labels"} else None,
        files=_files(wanted, part, name),
        ends=_ENDS,
    )


def found_vm(owner: Owner, name: str, zone: str, facts: Mapping[str, str]) -> Resource:
    """An existing VM, which can be removed and compared."""
    delete = gcloud(owner.project, "compute", "instances", "delete", name, f"--zone={zone}")
    return Resource(Kind.VM, f"{zone}/{name}", f"VM {name} in {zone}", facts=facts, delete=(delete,))


def found_template(owner: Owner, name: str) -> Resource:
    """An existing template, which can be removed."""
    delete = gcloud(owner.project, "compute", "instance-templates", "delete", name)
    return Resource(Kind.TEMPLATE, name, f"instance template {name}", delete=(delete,))


def _template_and_group(wanted: Deployment, part: Part) -> Iterator[Resource]:
    """The group of a part's VMs, and their template, whose name ends in a digest, since it cannot be changed."""
    owner, facts, marks = wanted.owner, _facts(wanted, part), labels(wanted)
    content = [facts, render_user_data(container(wanted, part)), _flags(wanted, part, "", marks)]
    name = owner.name(f"{part.name}-{digest(json.dumps(content))}")
    flags = (*_flags(wanted, part, name, marks), f"--description={owner.mark}")
    create = gcloud(wanted.project, "compute", "instance-templates", "create", name, *flags)
    yield found_template(owner, name)._replace(create=(create,), files=_files(wanted, part, name))
    place = wanted.region if wanted.regional else wanted.zone
    rate = (f"--max-surge={wanted.max_surge}", f"--max-unavailable={wanted.max_unavailable}")
    made = group(owner, Group(owner.name(part.name), place, wanted.regional, wanted.workers, name, facts), rate)
    yield made._replace(title=f"{made.title}, each {_description(facts)}")


class Group(NamedTuple):
    """A managed instance group: `place` is a zone, or a region if `regional`; `facts` are those of its VMs."""

    name: str
    place: str
    regional: bool
    size: int
    template: str
    facts: Mapping[str, str]


def group(owner: Owner, one: Group, rate: tuple[str, ...] = ()) -> Resource:
    """A group of workers with one identity, so revoked together; `rate` limits how many VMs are replaced at a time."""
    where = f"--{'region' if one.regional else 'zone'}={one.place}"

    def command(*words: str) -> Command:
        return gcloud(owner.project, "compute", "instance-groups", "managed", *words, where)

    create = (
        f"--template={one.template}",
        f"--size={one.size}",
        f"--base-instance-name={one.name}",
        f"--description={owner.mark}",
        # Without this a regional group refuses a surge of 0, since it would move VMs between zones meanwhile.
        *(["--instance-redistribution-type=none"] if one.regional else []),
    )

    def update(differences: Differences) -> Update:
        resize = (command("resize", one.name, f"--size={one.size}"),) if "size" in differences else ()
        replaced = (
            command("rolling-action", "start-update", one.name, f"--version=template={one.template}", *rate),
            # The former template cannot be removed before that.
            command("wait-until", one.name, "--version-target-reached"),
        )
        rolling = replaced if differences.keys() - {"size"} else ()
        # So no VM is replaced only to be removed, and no new one is made from the former template.
        shrinks = bool(resize) and one.size < int(differences["size"][0] or 0)
        return Update((*resize, *rolling) if shrinks else (*rolling, *resize), rolling=bool(rolling))

    return Resource(
        Kind.GROUP,
        f"{one.place}/{one.name}",
        f"instance group {one.name} in {one.place}: {one.size} VMs",
        facts={**one.facts, "size": str(one.size), "template": one.template},
        create=(command("create", one.name, *create),),
        delete=(command("delete", one.name),),
        update=update,
        ends=_ENDS,
    )
