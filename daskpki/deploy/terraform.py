"""A blueprint as a Terraform configuration for the `google` provider, in JSON, with templates for cloud-init. Pure.

Terraform keeps its own record of what is there, so this is the whole blueprint and not a plan. Resources say that they
are managed by Terraform, so `daskpki deploy` refuses to touch them. The CA and the credentials stay daskpki's to make:
no key ever comes near a Terraform state.

Every string in Terraform's JSON is a template, so `escaped` guards all that comes from settings; references are put in
after that.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any, Final

from daskpki import secret_names
from daskpki.deploy.apply import plan_from
from daskpki.deploy.blueprint import (
    account_of,
    address_name,
    container,
    internal_address,
    parts,
    resources,
    scheduler_part,
)
from daskpki.deploy.cloud_init import SCHEDULER_PORT, registry_of, render_user_data
from daskpki.deploy.resource import Block, Kind, Owner, Resource, account_email, account_id
from daskpki.deploy.settings import Deployment
from daskpki.grants import OPERATOR_PERMISSIONS, OPERATOR_ROLE_TITLE

_IMAGE_RULE: Final = "^[a-z0-9][a-z0-9._/:-]*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|@sha256:[0-9a-f]{64})$"
# With `-scheduler`, IAM's 30 characters for a service account.
_NAME_RULE: Final = "^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$"
_MAX_NAME: Final = 20


def terraform_files(wanted: Deployment) -> dict[str, str]:
    """The configuration: file names and contents."""
    found = {
        "main.tf.json": _main(wanted),
        "variables.tf.json": {"variable": _variables(wanted)},
        "outputs.tf.json": {"output": _outputs(wanted)},
    }
    templates = {f"cloud-init-{part.name}.yaml.tftpl": _template(wanted, part.name) for part in parts(wanted)}
    return {name: json.dumps(document, indent=2) + "\n" for name, document in found.items()} | templates


def escaped(value: Any) -> Any:
    """Escape a value for Terraform's JSON, so that nothing in it is expanded."""
    if isinstance(value, str):
        return value.replace("${", "$${").replace("%{", "%%{")
    if isinstance(value, Mapping):
        return {escaped(name): escaped(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [escaped(one) for one in value]
    return value


def _main(wanted: Deployment) -> dict[str, Any]:
    known = resources(wanted)
    references = _references(wanted)
    found: dict[str, dict[str, Any]] = {}
    for one in known:
        assert one.terraform is not None
        block = one.terraform
        body = _substituted(escaped(block.arguments), references) | _varied(wanted, block)
        found.setdefault(block.type, {})[_label(wanted, one)] = body
    first = [
        shlex.join(command)
        for step in plan_from(wanted)
        if step.kind in (Kind.SERVICES, "credential")
        for command in step.commands
    ]
    role = {
        "project": "${var.project}",
        "role_id": "daskpkiOperator",
        "title": OPERATOR_ROLE_TITLE,
        "permissions": list(OPERATOR_PERMISSIONS),
    }
    found["google_project_iam_custom_role"] = {"operator": role}
    return {
        "//": ["Run these first: they make the CA and the credentials, which Terraform never sees.", *first],
        "terraform": {"required_providers": {"google": {"source": "hashicorp/google", "version": ">= 6.0"}}},
        "provider": {"google": {"project": "${var.project}", "region": "${var.region}"}},
        "locals": {f"user_data_{_identifier(part.name)}": _call(wanted, part.name) for part in parts(wanted)},
        "resource": found,
    }


def _references(wanted: Deployment) -> dict[str, str]:
    """Literals and the references that replace them: variables, or other resources' attributes."""
    found = {
        wanted.project: "${var.project}",
        wanted.zone: "${var.zone}",
        wanted.region: "${var.region}",
        wanted.network: "${var.network}",
        address_name(wanted): "${google_compute_address.scheduler.address}",
    }
    for part in parts(wanted):
        own = account_email(wanted.project, account_id(wanted.cluster, part.name))
        if account_of(wanted, part) == own:
            account = f"google_service_account.{_identifier(part.name)}"
            found |= {own: f"${{{account}.email}}", f"serviceAccount:{own}": f"${{{account}.member}}"}
    for one in resources(wanted):
        if one.kind is Kind.TEMPLATE:
            found[one.name] = "${google_compute_instance_template.worker.self_link_unique}"
    return found


# Arguments that name the resource itself or describe it, in which no reference can stand.
_PLAIN: Final = frozenset(
    {"location", "name", "name_prefix", "base_instance_name", "account_id", "display_name", "description"}
)


def _substituted(value: Any, references: Mapping[str, str], name: str = "") -> Any:
    if isinstance(value, str):
        return value if name in _PLAIN else references.get(value, value)
    if isinstance(value, dict):
        return {key: _substituted(one, references, key) for key, one in value.items()}
    if isinstance(value, list):
        return [_substituted(one, references, name) for one in value]
    return value


def _varied(wanted: Deployment, block: Block) -> dict[str, Any]:
    """The arguments that follow from variables, and those by which Terraform owns the resource."""
    given = block.arguments
    prefix = Owner(wanted.cluster).name("")
    found: dict[str, Any] = {
        name: f"${{var.name}}-{given[name].removeprefix(prefix)}"
        for name in ("name", "name_prefix", "base_instance_name", "account_id", "display_name")
        if str(given.get(name, "")).startswith(prefix)
    }
    if "description" in given:
        found["description"] = f"managed-by=terraform daskpki-cluster={wanted.cluster}"
    if "labels" in given:
        found["labels"] = {**given["labels"], "managed-by": "terraform"}
    match block.type:
        case "google_project_service":
            apis = ", ".join(f'"{api}"' for api in given["for_each"])
            found |= {"for_each": f"${{toset([{apis}])}}", "service": "${each.value}"}
        case "google_compute_instance" | "google_compute_instance_template":
            scheduler = block.label == scheduler_part(wanted).name and not wanted.single
            found["machine_type"] = f"${{var.{'scheduler_' if scheduler else ''}machine_type}}"
            user_data = f"${{local.user_data_{_identifier(block.label)}}}"
            found["metadata"] = {**given["metadata"], "user-data": user_data}
            (interface,) = _substituted(escaped(given["network_interface"]), _references(wanted))
            found["network_interface"] = [{**interface, "subnetwork": "${var.subnetwork}"}]
            found |= _disk(given)
        case "google_compute_firewall" if block.label == "clients":
            found["source_ranges"] = "${var.clients_from}"
        case "google_compute_instance_group_manager" | "google_compute_region_instance_group_manager":
            found["target_size"] = "${var.workers}"
    return found


def _disk(given: Mapping[str, Any]) -> dict[str, Any]:
    """The boot disk with its size and type from variables; null leaves them to Google."""
    if "disk" in given:
        (disk,) = given["disk"]
        return {"disk": [{**disk, "disk_size_gb": "${var.disk_size}", "disk_type": "${var.disk_type}"}]}
    (initial,) = given["boot_disk"][0]["initialize_params"]
    return {"boot_disk": [{"initialize_params": [{**initial, "size": "${var.disk_size}", "type": "${var.disk_type}"}]}]}


def _label(wanted: Deployment, one: Resource) -> str:
    """A short name, unique among resources of the type."""
    assert one.terraform is not None
    if one.grant is None:
        return _identifier(one.terraform.label)
    whose = next(part.name for part in parts(wanted) if account_of(wanted, part) == one.grant.account)
    what = one.terraform.label.removeprefix(secret_names.trust_id(wanted.cluster).removesuffix(secret_names.TRUST))
    kind, _, name = what.rpartition(".")[2].partition("_")
    return _identifier(f"{whose}_{kind}{'' if name in ('', kind) else f'_{name}'}")


def _identifier(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _template(wanted: Deployment, part: str) -> str:
    """The user-data of a part, with placeholders for what variables say."""
    chosen = next(one for one in parts(wanted) if one.name == part)
    text: str = escaped(render_user_data(container(wanted, chosen)))
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
        f"scheduler = {_scheduler(wanted)}"
    )
    return f'${{templatefile("${{path.module}}/cloud-init-{part}.yaml.tftpl", {{ {values} }})}}'


def _scheduler(wanted: Deployment) -> str:
    """The scheduler's address inside its network, as an expression; a project of a domain is turned round."""
    domain = 'join(".", reverse(split(":", var.project)))'
    name = scheduler_part(wanted).name
    return f'"tls://${{var.name}}-{name}.${{var.zone}}.c.${{{domain}}}.internal:{SCHEDULER_PORT}"'


def _variables(wanted: Deployment) -> dict[str, Any]:
    image = _rule("image", _IMAGE_RULE, "REGISTRY/PATH:TAG or REGISTRY/PATH@sha256:DIGEST.")
    name = _rule("name", _NAME_RULE, "At most 20 of a-z, 0-9 and '-'.")
    found: dict[str, tuple[str, str, Any]] = {
        "project": ("string", "Project that has the secrets and runs the VMs.", wanted.project),
        "region": ("string", "Region of the zone.", wanted.region),
        "zone": ("string", "Zone of the VMs.", wanted.zone),
        "name": ("string", "What the names of all resources begin with.", Owner(wanted.cluster).name("").rstrip("-")),
        "network": ("string", "VPC network of the VMs.", wanted.network),
        "subnetwork": ("string", "Subnet of the VMs in full; null for the network's own.", wanted.subnet_path),
        "image": ("string", "Container image with daskpki in it, by version or digest.", wanted.image),
        "machine_type": ("string", "Machine type of the workers' VMs, or of the only one.", wanted.machine_type),
        "disk_size": ("number", "Boot disk in GB; null for the size of the OS image.", wanted.disk_size),
        "disk_type": ("string", "Boot disk type; null for Google's default.", wanted.disk_type),
    }
    if not wanted.single:
        about = "Machine type of the scheduler's VM."
        found["scheduler_machine_type"] = ("string", about, wanted.scheduler_machine_type)
    if wanted.workers and not wanted.isolate_workers:
        found["workers"] = ("number", "VMs of workers.", wanted.workers)
    if wanted.clients_from:
        about = "IP ranges whose clients may connect to port 8786."
        found["clients_from"] = ("list(string)", about, list(wanted.clients_from))
    rules = {"image": image} | ({"name": name} if len(found["name"][2]) <= _MAX_NAME else {})
    return {
        key: {"type": kind, "description": about, "default": default} | rules.get(key, {})
        for key, (kind, about, default) in found.items()
    }


def _rule(variable: str, pattern: str, message: str) -> dict[str, Any]:
    condition = f'${{can(regex("{pattern}", var.{variable}))}}'
    return {"validation": [{"condition": condition, "error_message": message}]}


def _outputs(wanted: Deployment) -> dict[str, Any]:
    references = _references(wanted)
    accounts = {part.name: account_of(wanted, part) for part in parts(wanted)}
    found: dict[str, tuple[str, Any]] = {
        "scheduler_internal": ("The scheduler's address inside the network.", _scheduler(wanted)[1:-1]),
        "service_accounts": (
            "The service account of each part.",
            {part: references.get(account, account) for part, account in accounts.items()},
        ),
        "operator_role": ("The role for operators, who may administer secrets and read no leaf.",
                          "${google_project_iam_custom_role.operator.id}"),
    }  # fmt: skip
    if not wanted.private:
        address = f"tls://${{google_compute_address.scheduler.address}}:{SCHEDULER_PORT}"
        found["scheduler"] = ("The scheduler's address for clients, as `daskpki login --scheduler` takes it.", address)
    return {name: {"description": about, "value": value} for name, (about, value) in found.items()}
