"""A deployment as a Terraform configuration for the `google` provider, in JSON, with templates for cloud-init. Pure.

Terraform keeps its own record of existing resources, so this is the whole deployment and not a plan. Resources are
labelled as managed by Terraform, so `daskpki deploy` refuses to touch them. Only daskpki makes the CA and the
credentials, so no key ever gets into a Terraform state.

Every string in Terraform's JSON is a template, so `escaped` escapes all strings but a `Reference`.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Final

from daskpki import secret_names
from daskpki.deploy.apply import plan_from
from daskpki.deploy.blueprint import (
    ACCESSOR,
    IMAGE_READER,
    Grant,
    Part,
    container,
    grants,
    internal_address,
    parts,
    rules,
)
from daskpki.deploy.cloud_init import SCHEDULER_PORT, registry_of, render_user_data
from daskpki.deploy.compute import OS_IMAGE, PART_LABEL, labels, metadata
from daskpki.deploy.iam import Kind, apis
from daskpki.deploy.settings import IMAGE, WIDEST, Deployment, account_id
from daskpki.grants import OPERATOR_PERMISSIONS, OPERATOR_ROLE_TITLE

# An empty list of ranges would let everybody in. `cidrnetmask` takes IPv4 alone, and `cidrsubnet` clears host bits.
_RANGES_RULE: Final = (
    "length(var.clients_from) > 0 && alltrue([for r in var.clients_from : try(can(cidrnetmask(r)) && "
    f'cidrsubnet(r, 0, 0) == r && tonumber(split("/", r)[1]) >= {WIDEST}, false)])'
)
# Together with `-scheduler`, at most the 30 characters that IAM allows for a service account.
_NAME_RULE: Final = "^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$"
_CLOUD_PLATFORM: Final = "https://www.googleapis.com/auth/cloud-platform"


class Reference(str):
    """Text in which Terraform expands `${...}`."""

    __slots__ = ()


def terraform_files(wanted: Deployment) -> dict[str, str]:
    """The configuration: file names and contents."""
    made = [
        command
        for step in plan_from(wanted)
        if step.resource.kind in (Kind.SERVICES, Kind.CREDENTIAL)
        for command in step.commands
    ]
    found: dict[str, dict[str, Any]] = {}
    for kind, label, arguments in _resources(wanted):
        found.setdefault(f"google_{kind}", {})[_identifier(label)] = escaped(_given(arguments))
    main = {
        "//": [
            "Run these first: they make the CA and the credentials, which Terraform never sees.",
            *map(shlex.join, made),
        ],
        "terraform": {"required_providers": {"google": {"source": "hashicorp/google", "version": ">= 6.0"}}},
        "provider": {"google": {"project": "${var.project}", "region": "${var.region}"}},
        "locals": {f"user_data_{_identifier(part.name)}": _call(wanted, part.name) for part in parts(wanted)},
        "resource": found,
    }
    documents = {"main": main, "variables": {"variable": _variables(wanted)}, "outputs": {"output": _outputs(wanted)}}
    return {f"{name}.tf.json": json.dumps(document, indent=2) + "\n" for name, document in documents.items()} | {
        f"cloud-init-{part.name}.yaml.tftpl": _template(wanted, part) for part in parts(wanted)
    }


def escaped(value: Any) -> Any:
    """Escape a value for Terraform's JSON, so that nothing in it is expanded but references."""
    if isinstance(value, str):
        return value if isinstance(value, Reference) else value.replace("${", "$${").replace("%{", "%%{")
    if isinstance(value, Mapping):
        return {escaped(name): escaped(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [escaped(one) for one in value]
    return value


def _resources(wanted: Deployment) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Type (without `google_`), label and arguments of each resource; arguments that are None or [] are left out."""
    project, description = _var("project"), f"managed-by=terraform daskpki-cluster={wanted.cluster}"
    names = ", ".join(f'"{api}"' for api in apis(wanted))
    each = {"for_each": Reference(f"${{toset([{names}])}}"), "service": Reference("${each.value}")}
    yield "project_service", "services", {"project": project, **each, "disable_on_destroy": False}
    about: dict[str, Any]
    for part in parts(wanted):
        if part.own:
            name = _name(wanted, account_id(wanted.cluster, part.name))
            about = {"project": project, "account_id": name, "display_name": name, "description": description}
            yield "service_account", part.name, about
    for part, grant in grants(wanted):
        yield _grant(wanted, part, grant)
    if not wanted.private:
        name = _name(wanted, wanted.owner.name("scheduler"))
        about = {"project": project, "name": name, "region": _var("region"), "description": description}
        yield "compute_address", "scheduler", about
    emails = {part.account: _email(part) for part in parts(wanted)}
    host = wanted.network_owner
    for rule in rules(wanted):
        protocols: dict[str, list[str]] = {}
        for protocol, _, ports in (text.partition(":") for text in rule.ports.split(",")):
            protocols.setdefault(protocol, []).append(ports)
        about = {
            "project": host.project if host.guest else project,
            "name": _name(wanted, host.name(rule.name)),
            "network": _var("network"),
            "description": description,
            "direction": "INGRESS",
            "priority": rule.priority,
            "source_ranges": _var("clients_from") if rule.name == "clients" else rule.source_ranges,
            "source_service_accounts": [emails[account] for account in rule.source_accounts],
            "target_service_accounts": [emails[account] for account in rule.targets],
            rule.action.lower(): [{"protocol": protocol, "ports": ports} for protocol, ports in protocols.items()],
        }
        yield "compute_firewall", rule.name, about
    for part in parts(wanted):
        yield from _machines(wanted, part, description)
    role = {"title": OPERATOR_ROLE_TITLE, "permissions": list(OPERATOR_PERMISSIONS)}
    yield "project_iam_custom_role", "operator", {"project": project, "role_id": "daskpkiOperator", **role}


def _grant(wanted: Deployment, part: Part, grant: Grant) -> tuple[str, str, dict[str, Any]]:
    account = f"google_service_account.{_identifier(part.name)}"
    member = Reference(f"${{{account}.member}}") if part.own else grant.member
    about = {"role": grant.role, "member": member}
    if grant.role == ACCESSOR:
        location = wanted.store.location
        prefix = secret_names.trust_id(wanted.cluster).removesuffix(secret_names.TRUST)
        what, _, name = grant.where.removeprefix(prefix).partition("_")
        label = f"{part.name}_{what}{'' if name in ('', what) else f'_{name}'}"
        kind = f"secret_manager_{'regional_' if location else ''}secret_iam_member"
        return kind, label, {"project": _var("project"), "location": location, "secret_id": grant.where, **about}
    if grant.role == IMAGE_READER:
        project, location, name = grant.where.split("/")
        where = _var("project") if project == wanted.project else project
        about |= {"project": where, "location": location, "repository": name}
        return "artifact_registry_repository_iam_member", f"{part.name}_images", about
    return "project_iam_member", f"{part.name}_{grant.role.rpartition('.')[2]}", {"project": _var("project"), **about}


def _machines(wanted: Deployment, part: Part, description: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The VM, or the template and the group."""
    alone = part.schedules or wanted.isolate_workers
    address = {"nat_ip": Reference("${google_compute_address.scheduler.address}")} if part.schedules else {}
    access = {"access_config": [] if wanted.private else [address]}
    spot = {"provisioning_model": "SPOT", "preemptible": True, "automatic_restart": False}
    marks = {**labels(wanted), **({PART_LABEL: part.name} if alone else {}), "managed-by": "terraform"}
    user_data = Reference(f"${{local.user_data_{_identifier(part.name)}}}")
    shielded = {"enable_secure_boot": True, "enable_vtpm": True, "enable_integrity_monitoring": True}
    common = {
        "project": _var("project"),
        "machine_type": _var("scheduler_machine_type" if part.command == "scheduler" else "machine_type"),
        "tags": wanted.tags,
        "labels": marks,
        "metadata": {**metadata(wanted), "user-data": user_data},
        "network_interface": [_given({"network": _var("network"), "subnetwork": _var("subnetwork"), **access})],
        "scheduling": [spot | {"instance_termination_action": "STOP"}] if wanted.spot and not part.schedules else None,
        "service_account": [{"email": _email(part), "scopes": [_CLOUD_PLATFORM]}],
        "shielded_instance_config": [shielded],
    }
    name, image = _name(wanted, wanted.owner.name(part.name)), f"{OS_IMAGE[1]}/{OS_IMAGE[0]}"
    if alone:
        size = {"image": image, "size": _var("disk_size"), "type": _var("disk_type")}
        about = {"name": name, "zone": _var("zone"), "boot_disk": [{"initialize_params": [size]}]}
        yield "compute_instance", part.name, {**common, **about}
        return
    disk = {"boot": True, "source_image": image, "disk_size_gb": _var("disk_size"), "disk_type": _var("disk_type")}
    # The provider makes the new template before it removes the former one, so their names differ.
    again = {"name_prefix": Reference(f"{name}-"), "lifecycle": {"create_before_destroy": True}}
    yield "compute_instance_template", part.name, {**common, **again, "description": description, "disk": [disk]}
    rate = {"max_surge_fixed": wanted.max_surge, "max_unavailable_fixed": wanted.max_unavailable}
    still = {"instance_redistribution_type": "NONE"} if wanted.regional else {}
    template = Reference("${google_compute_instance_template.worker.self_link_unique}")
    group = {
        "project": _var("project"),
        "name": name,
        **({"region": _var("region")} if wanted.regional else {"zone": _var("zone")}),
        "description": description,
        "base_instance_name": name,
        "target_size": _var("workers"),
        "version": [{"instance_template": template}],
        "update_policy": [{"type": "PROACTIVE", "minimal_action": "REPLACE", **rate, **still}],
    }
    yield f"compute_{'region_' if wanted.regional else ''}instance_group_manager", part.name, group


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are neither None nor empty."""
    return {name: value for name, value in arguments.items() if value not in (None, [], ())}


def _var(name: str) -> Reference:
    return Reference(f"${{var.{name}}}")


def _email(part: Part) -> str:
    own = Reference(f"${{google_service_account.{_identifier(part.name)}.email}}")
    return own if part.own else part.account


def _name(wanted: Deployment, full: str) -> str:
    """A resource's name with the common beginning as a variable; a name that was shortened stays as it is."""
    prefix = wanted.owner.name("")
    return Reference(f"${{var.name}}-{full.removeprefix(prefix)}") if full.startswith(prefix) else full


def _identifier(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _template(wanted: Deployment, part: Part) -> str:
    """The user-data of a part, with placeholders for variables."""
    text: str = escaped(render_user_data(container(wanted, part)))
    registry = registry_of(wanted.image)
    for literal, placeholder in (
        (f"--registries={registry}", "--registries=${registry}"),
        (wanted.image, "${image}"),
        (internal_address(wanted), "${scheduler}"),
        (f"DASKPKI_STORE=gsm://{wanted.project}", "DASKPKI_STORE=gsm://${project}"),
    ):
        text = text.replace(literal, placeholder)
    return text


def _call(wanted: Deployment, part: str) -> str:
    """The expression that fills in the part's template."""
    values = (
        'image = var.image, registry = split("/", var.image)[0], project = var.project, '
        f'scheduler = "{_scheduler(wanted)}"'
    )
    return f'${{templatefile("${{path.module}}/cloud-init-{part}.yaml.tftpl", {{ {values} }})}}'


def _scheduler(wanted: Deployment) -> str:
    """The scheduler's address inside its network, as a template; `example.com:p` becomes `p.example.com`."""
    domain = 'join(".", reverse(split(":", var.project)))'
    name = "node" if wanted.single else "scheduler"
    return f"tls://${{var.name}}-{name}.${{var.zone}}.c.${{{domain}}}.internal:{SCHEDULER_PORT}"


def _variables(wanted: Deployment) -> dict[str, Any]:
    grouped = wanted.workers > 0 and not wanted.isolate_workers
    found: dict[str, tuple[str, str, Any]] = {
        "project": ("string", "Project that has the secrets and runs the VMs.", wanted.project),
        "region": ("string", "Region of the zone.", wanted.region),
        "zone": ("string", "Zone of the VMs.", wanted.zone),
        "name": ("string", "Prefix of all resource names.", wanted.owner.name("").rstrip("-")),
        "network": ("string", "VPC network of the VMs.", wanted.network),
        "subnetwork": ("string", "Subnet of the VMs in full; null for the network's own.", wanted.subnet_path),
        "image": ("string", "Container image with daskpki in it, by version or digest.", wanted.image),
        "machine_type": ("string", "Machine type of the workers' VMs, or of the only one.", wanted.machine_type),
        "disk_size": ("number", "Boot disk in GB; null for the size of the OS image.", wanted.disk_size),
        "disk_type": ("string", "Boot disk type; null for Google's default.", wanted.disk_type),
        "scheduler_machine_type": ("string", "Machine type of the scheduler's VM.", wanted.scheduler_machine_type),
        "workers": ("number", "VMs of workers.", wanted.workers),
        "clients_from": ("list(string)", "IP ranges that may reach port 8786.", list(wanted.clients_from)),
    }
    unused = {"scheduler_machine_type": wanted.single, "workers": not grouped, "clients_from": not wanted.clients_from}
    rules = {
        "image": (f'can(regex("^{IMAGE}$", var.image))', "REGISTRY/PATH:TAG or REGISTRY/PATH@sha256:DIGEST."),
        "clients_from": (_RANGES_RULE, f"At least one IPv4 range such as 203.0.113.0/24, none wider than a /{WIDEST}."),
    }
    if re.search(_NAME_RULE, found["name"][2]):
        rules["name"] = (f'can(regex("{_NAME_RULE}", var.name))', "At most 20 of a-z, 0-9 and '-'.")
    checks = {
        name: {"validation": [{"condition": f"${{{condition}}}", "error_message": message}]}
        for name, (condition, message) in rules.items()
    }
    return {
        name: {"type": kind, "description": about, "default": default, **checks.get(name, {})}
        for name, (kind, about, default) in found.items()
        if not unused.get(name)
    }


def _outputs(wanted: Deployment) -> dict[str, Any]:
    address = f"tls://${{google_compute_address.scheduler.address}}:{SCHEDULER_PORT}"
    found: dict[str, tuple[str, Any]] = {
        "scheduler_internal": ("The scheduler's address inside the network.", _scheduler(wanted)),
        "service_accounts": ("The service account of each part.", {part.name: _email(part) for part in parts(wanted)}),
        "operator_role": ("The role for operators, who may administer secrets and read no leaf.",
                          "${google_project_iam_custom_role.operator.id}"),
        "scheduler": ("The scheduler's address for clients, as `daskpki login --scheduler` takes it.", address),
    }  # fmt: skip
    return {
        name: {"description": about, "value": value}
        for name, (about, value) in found.items()
        if name != "scheduler" or not wanted.private
    }
