"""A blueprint as a Terraform configuration for the `google` provider. Pure.

Terraform keeps its own record of what is there, so this is the whole blueprint and not a plan. The CA and the
credentials stay daskpki's to make: no key ever comes near a Terraform state.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from daskpki.deploy.hcl import Block, Expression, Value, heredoc, quoted, render
from daskpki.deploy.identities import ACCESSOR, IMAGE_READER, Account, ImageGrant, ProjectGrant, SecretGrant, Services
from daskpki.deploy.machines import OS_IMAGE, SPEC_LABEL, Group, Machine, Template, VmSpec
from daskpki.deploy.names import labels, mark
from daskpki.deploy.network import Address, Firewall
from daskpki.deploy.plan import Step
from daskpki.deploy.resource import Resource

_CLOUD_PLATFORM: Final = "https://www.googleapis.com/auth/cloud-platform"


def render_terraform(resources: Iterable[Resource], first: Iterable[Step]) -> str:
    """The configuration; `first` are the commands that have to come before it, as comments."""
    known = list(resources)
    refs = References(known)
    commands = [shlex.join(command) for step in first for command in step.commands]
    services = [shlex.join(command) for one in known if isinstance(one, Services) for command in one.create]
    head = [
        "# Run these first: they make the CA and the credentials, which Terraform never sees.",
        *services,
        *commands,
    ]
    blocks = [_TERRAFORM, *_locals(known), *(_block(one, refs) for one in known)]
    return "\n".join([head[0], *(f"#   {line}" for line in head[1:])]) + "\n\n" + render(blocks)


_TERRAFORM: Final = Block(
    "terraform",
    blocks=[
        Block("required_providers", attributes={"google": {"source": "hashicorp/google", "version": ">= 6.0"}}),
    ],
)


class References:
    """How one resource of a configuration is named in another."""

    def __init__(self, known: Iterable[Resource]) -> None:
        self._labels: dict[str, str] = {}
        for one in known:
            match one:
                case Account():
                    self._labels[one.email] = f"google_service_account.{label(one)}"
                case Address():
                    self._labels[one.name] = f"google_compute_address.{label(one)}"
                case Template():
                    self._labels[one.name] = f"google_compute_instance_template.{label(one)}"

    def of(self, name: str, attribute: str) -> Expression:
        """That attribute of the account, address or template of that name."""
        return Expression(f"{self._labels[name]}.{attribute}")


def label(one: Resource) -> str:
    """A resource's name within the configuration: kind and name as an identifier, accounts without their domain."""
    words = [word.removeprefix("serviceAccount:").partition("@")[0] for word in " ".join(one.key).split()]
    return re.sub(r"[^a-z0-9]+", "_", "_".join(words).lower()).strip("_")


def _locals(known: Iterable[Resource]) -> Iterator[Block]:
    for one in known:
        if isinstance(one, (Machine, Template)) and one.spec:
            yield Block("locals", attributes={_user_data(one): heredoc(one.spec.user_data)})


def _user_data(one: Machine | Template) -> str:
    return f"user_data_{label(one)}"


def _block(one: Resource, refs: References) -> Block:
    kind, attributes, blocks = _describe(one, refs)
    return Block("resource", (kind, label(one)), attributes, blocks)


Described = tuple[str, dict[str, Value], Sequence[Block]]


def _describe(one: Resource, refs: References) -> Described:  # noqa: PLR0911 - one for each kind
    match one:
        case Services():
            return _services(one)
        case Account():
            about = {
                "project": one.project,
                "account_id": one.account,
                "display_name": one.account,
                "description": mark(one.cluster),
            }
            return "google_service_account", dict(about), ()
        case SecretGrant() | ProjectGrant() | ImageGrant():
            return _grant(one, refs)
        case Address():
            about = {"project": one.project, "name": one.name, "region": one.region, "description": mark(one.cluster)}
            return "google_compute_address", dict(about), ()
        case Firewall():
            return _firewall(one, refs)
        case Machine(spec=VmSpec() as spec):
            return _machine(one, spec, refs)
        case Template(spec=VmSpec() as spec):
            return _template(one, spec, refs)
        case Group():
            return _group(one, refs)
    raise AssertionError(f"a blueprint has no {one.title}")


def _services(one: Services) -> Described:
    attributes: dict[str, Value] = {
        "for_each": Expression(f"toset([{', '.join(map(quoted, sorted(one.apis)))}])"),
        "project": one.project,
        "service": Expression("each.value"),
        "disable_on_destroy": False,
    }
    return "google_project_service", attributes, ()


def _grant(one: SecretGrant | ProjectGrant | ImageGrant, refs: References) -> Described:
    where = {"project": one.project}
    member = {"member": refs.of(one.member.partition(":")[2], "member")}
    match one:
        case SecretGrant(location=None):
            return (
                "google_secret_manager_secret_iam_member",
                {**where, "secret_id": one.secret, "role": ACCESSOR, **member},
                (),
            )
        case SecretGrant(location=str() as location):
            kind = "google_secret_manager_regional_secret_iam_member"
            return kind, {**where, "location": location, "secret_id": one.secret, "role": ACCESSOR, **member}, ()
        case ProjectGrant():
            return "google_project_iam_member", {**where, "role": one.role, **member}, ()
        case ImageGrant():
            place = {"location": one.location, "repository": one.repository, "role": IMAGE_READER}
            return "google_artifact_registry_repository_iam_member", {**where, **place, **member}, ()
    raise AssertionError(one)


def _firewall(one: Firewall, refs: References) -> Described:
    emails = {"source_service_accounts": one.source_accounts, "target_service_accounts": one.targets}
    attributes: dict[str, Value] = {
        "project": one.project,
        "name": one.name,
        "network": one.network,
        "description": mark(one.cluster),
        "direction": "INGRESS",
        "priority": one.priority,
    }
    if one.source_ranges:
        attributes["source_ranges"] = list(one.source_ranges)
    for name, found in emails.items():
        if found:
            texts = [refs.of(email, "email").text for email in found]
            attributes[name] = Expression(f"[{', '.join(texts)}]")
    return "google_compute_firewall", attributes, [_rule(one.action, rule) for rule in _by_protocol(one.rules).items()]


def _by_protocol(rules: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for rule in rules.split(","):
        protocol, _, ports = rule.partition(":")
        found.setdefault(protocol, []).append(ports)
    return found


def _rule(action: str, rule: tuple[str, list[str]]) -> Block:
    protocol, ports = rule
    return Block(action.lower(), attributes={"protocol": protocol, "ports": ports})


def _machine(one: Machine, spec: VmSpec, refs: References) -> Described:
    attributes: dict[str, Value] = {
        "project": one.project,
        "name": one.name,
        "zone": one.zone,
        "machine_type": spec.machine_type,
        "tags": list(spec.tags),
        "labels": {**labels(spec.cluster), SPEC_LABEL: one.digest},
        "metadata": _metadata(one, spec),
    }
    disk = Block("boot_disk", blocks=[Block("initialize_params", attributes={"image": _os_image()})])
    return "google_compute_instance", attributes, [disk, *_shared(spec, refs)]


def _os_image() -> str:
    family, publisher = OS_IMAGE
    return f"{publisher}/{family}"


def _template(one: Template, spec: VmSpec, refs: References) -> Described:
    attributes: dict[str, Value] = {
        "project": one.project,
        "name": one.name,
        "description": mark(one.cluster),
        "machine_type": spec.machine_type,
        "tags": list(spec.tags),
        "labels": labels(spec.cluster),
        "metadata": _metadata(one, spec),
    }
    disk = Block("disk", attributes={"boot": True, "source_image": _os_image()})
    after = Block("lifecycle", attributes={"create_before_destroy": True})
    return "google_compute_instance_template", attributes, [disk, *_shared(spec, refs), after]


def _metadata(one: Machine | Template, spec: VmSpec) -> dict[str, Value]:
    return {**dict(spec.metadata), "user-data": Expression(f"local.{_user_data(one)}")}


def _shared(spec: VmSpec, refs: References) -> list[Block]:
    network: dict[str, Value] = {"network": spec.network}
    if spec.subnet:
        network["subnetwork"] = spec.subnet
    nat: dict[str, Value] = {"nat_ip": refs.of(spec.address, "address")} if spec.address else {}
    return [
        Block("network_interface", attributes=network, blocks=[Block("access_config", attributes=nat)] * spec.external),
        Block(
            "service_account",
            attributes={"email": refs.of(spec.account, "email"), "scopes": [_CLOUD_PLATFORM]},
        ),
        Block(
            "shielded_instance_config",
            attributes={"enable_secure_boot": True, "enable_vtpm": True, "enable_integrity_monitoring": True},
        ),
    ]


def _group(one: Group, refs: References) -> Described:
    attributes: dict[str, Value] = {
        "project": one.project,
        "name": one.name,
        "zone": one.zone,
        "description": mark(one.cluster),
        "base_instance_name": one.name,
        "target_size": one.size,
    }
    version = Block("version", attributes={"instance_template": refs.of(one.template, "self_link_unique")})
    policy = Block("update_policy", attributes={"type": "PROACTIVE", "minimal_action": "REPLACE", "max_surge_fixed": 1})
    return "google_compute_instance_group_manager", attributes, [version, policy]
