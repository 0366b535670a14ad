"""Reads what is there, by `gcloud ... --format=json`: our resources by their mark, and others with such names.

The parsers are pure, from JSON to the same resources that a blueprint is made of. `observe` asks for one filtered list
of each type, several at a time, since each command takes a second; policies are read only once our accounts exist.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Final, NamedTuple

from daskpki import secret_names
from daskpki.deploy import compute, iam
from daskpki.deploy.cloud_init import registry_of
from daskpki.deploy.compute import FACTS_KEY, PART_LABEL, GroupSpec, Rule, metadata_of
from daskpki.deploy.gcloud import Run, read_json
from daskpki.deploy.iam import Repository
from daskpki.deploy.plan import Observed
from daskpki.deploy.resource import Command, Kind, Owner, Resource, gcloud
from daskpki.deploy.settings import Deployment
from daskpki.errors import NotFoundError
from daskpki.identity import Role
from daskpki.settings import GsmUrl

_AT_ONCE: Final = 8
_READ_BY_NODES: Final = (secret_names.TRUST, Role.SCHEDULER, Role.WORKER, secret_names.SECRET)

Json = Mapping[str, Any]
Tell = Callable[[str], None]


class Project(NamedTuple):
    """The projects to look at, and the marks of our resources; `network_project` differs for a Shared VPC."""

    store: GsmUrl
    cluster: str
    network_project: str

    @property
    def project(self) -> str:
        """The project of the VMs."""
        return self.store.project

    @property
    def owner(self) -> Owner:
        """Marks what is in the project."""
        return Owner(self.cluster)

    @property
    def network_owner(self) -> Owner:
        """Marks the firewall rules."""
        return Owner(self.cluster, None if self.network_project == self.project else self.project)


def project_of(wanted: Deployment) -> Project:
    """The projects of a deployment."""
    return Project(wanted.store, wanted.cluster, wanted.network_project)


def observe(run: Run, project: Project, wanted: Sequence[Resource] = (), tell: Tell = lambda _line: None) -> Observed:
    """Read all existing resources; `wanted` adds repositories and services to look at, `tell` reports progress."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        listed = _read(run, _lists(project), pool, tell)
        accounts, foreign_accounts = split_accounts(project, listed["service accounts"])
        placed, foreign, used = split_compute(project, listed)
        own = frozenset(f"serviceAccount:{one.name}" for one in accounts)
        members = own | used | {one.grant.member for one in wanted if one.grant}
        secrets = [item for item in listed["secrets"] if secret_names.is_ours(item.get("labels", {}), project.cluster)]
        images = {fact["image"] for fact in _facts(placed) if "image" in fact}
        # An account that is still to be made has no grants yet.
        unborn = {f"serviceAccount:{one.name}" for one in wanted if one.kind is Kind.ACCOUNT} - own
        places = _places(project, secrets, wanted, images) if members - unborn else {}
        policies = _read(run, {name: command for name, (command, _) in places.items()}, pool, tell)
    grants = [one for name, (_, parse) in places.items() for one in parse(policies[name], own, members)]
    ours = [
        *services(listed["services"], wanted),
        *accounts,
        *grants,
        *project_grants(project, listed["grants on the project"], own),
        *placed,
    ]
    ids = frozenset(item["name"].rpartition("/")[2] for item in secrets)
    return Observed({one.key: one for one in ours}, frozenset((*foreign_accounts, *foreign)), ids)


def _read(run: Run, commands: Mapping[str, Command], pool: ThreadPoolExecutor, tell: Tell) -> dict[str, Any]:
    """The answers to all commands, by name, in the order in which they were asked."""
    running = {pool.submit(read_json, run, command): name for name, command in commands.items()}
    found: dict[str, Any] = {}
    for number, future in enumerate(as_completed(running), start=1):
        found[running[future]] = future.result()
        tell(f"[{number}/{len(running)}] read {running[future]}")
    return found


def _lists(project: Project) -> dict[str, Command]:
    where = (f"--location={project.store.location}",) if project.store.location else ()
    by_label = f"labels.daskpki-cluster={project.cluster}"
    prefix = _prefix(project.owner)
    by_name = f"--filter=name~^{prefix}"
    rules = f"--filter=name~^{_prefix(project.network_owner)}"
    words: dict[str, tuple[str, ...]] = {
        "services": ("services", "list", "--enabled"),
        "service accounts": ("iam", "service-accounts", "list", f"--filter=email~^{prefix[:20]}"),
        "grants on the project": ("projects", "get-iam-policy", project.project),
        "secrets": ("secrets", "list", f"--filter={by_label}", *where),
        "addresses": ("compute", "addresses", "list", by_name),
        "machines": ("compute", "instances", "list", f"{by_name} OR {by_label}"),
        "templates": ("compute", "instance-templates", "list", by_name),
        "groups": ("compute", "instance-groups", "managed", "list", by_name),
    }
    found = {name: gcloud(project.project, *command) for name, command in words.items()}
    return found | {"firewall rules": gcloud(project.network_project, "compute", "firewall-rules", "list", rules)}


def _prefix(owner: Owner) -> str:
    """Common prefix of the cluster's resource names, short enough that no name is cut within it."""
    return owner.name("")[:40]


Policies = Callable[[Any, frozenset[str], frozenset[str]], Iterator[Resource]]
"""Grants of a policy, to our accounts and to all that our VMs use."""


def _places(
    project: Project, secrets: Iterable[Json], wanted: Sequence[Resource], images: Iterable[str]
) -> dict[str, tuple[Command, Policies]]:
    """The policies to read: for each the command, and what makes grants of its answer."""
    location = project.store.location
    where = (f"--location={location}",) if location else ()
    found: dict[str, tuple[Command, Policies]] = {}
    for item in secrets:
        if item["labels"].get("daskpki-kind") in _READ_BY_NODES:
            secret = item["name"].rpartition("/")[2]
            command = gcloud(project.project, "secrets", "get-iam-policy", secret, *where)
            found[f"grants on {secret}"] = (command, _secret_grants(project, secret))
    named = [one.grant.where.split("/") for one in wanted if one.grant and one.grant.role == iam.IMAGE_READER]
    repositories = {Repository(*words) for words in named} | {
        repository for image in images if (repository := iam.repository_of(image))
    }
    for repository in sorted(repositories):
        words = ("artifacts", "repositories", "get-iam-policy", repository.name, f"--location={repository.location}")
        found[f"grants on {repository.location}/{repository.name}"] = (
            gcloud(repository.project, *words),
            _image_grants(repository),
        )
    return found


def _secret_grants(project: Project, secret: str) -> Policies:
    def parse(policy: Any, _own: frozenset[str], members: frozenset[str]) -> Iterator[Resource]:
        for member in granted(policy, iam.ACCESSOR, members):
            yield iam.secret_grant(project.project, project.store.location, secret, member)

    return parse


def _image_grants(repository: Repository) -> Policies:
    def parse(policy: Any, own: frozenset[str], _members: frozenset[str]) -> Iterator[Resource]:
        for member in granted(policy, iam.IMAGE_READER, own):
            yield iam.image_grant(repository, member)

    return parse


def project_grants(project: Project, policy: Any, own: frozenset[str]) -> Iterator[Resource]:
    """Roles of our accounts in the project; an account that existed before keeps what it has there."""
    bindings = policy.get("bindings", ()) if isinstance(policy, Mapping) else ()
    for role in {binding["role"] for binding in bindings}:
        for member in granted(policy, role, own):
            yield iam.project_grant(project.project, role, member)


def granted(policy: Any, role: str, members: frozenset[str]) -> Iterator[str]:
    """Those of the members to whom an unconditional binding of the policy gives the role."""
    bindings = policy.get("bindings", ()) if isinstance(policy, Mapping) else ()
    for binding in bindings:
        if binding["role"] == role and "condition" not in binding:
            yield from (member for member in binding.get("members", ()) if member in members)


def services(listed: Iterable[Json], wanted: Sequence[Resource]) -> Iterator[Resource]:
    """Those of the wanted services that are on; the others are not ours to judge."""
    enabled = {item["config"]["name"] for item in listed}
    for one in wanted:
        if one.kind is Kind.SERVICES and (on := enabled & set(one.facts["enabled"].split(", "))):
            yield iam.services(one.name, on)


def split_accounts(project: Project, listed: Iterable[Json]) -> tuple[list[Resource], list[tuple[Kind, str]]]:
    """Our service accounts, and the keys of the others."""
    ours, foreign = [], []
    for item in listed:
        account = iam.service_account(project.project, project.owner, item["email"].partition("@")[0])
        if item.get("description") == project.owner.mark and item["email"] == account.name:
            ours.append(account)
        else:
            foreign.append((Kind.ACCOUNT, item["email"]))
    return ours, foreign


def split_compute(
    project: Project, listed: Mapping[str, Sequence[Json]]
) -> tuple[list[Resource], list[tuple[Kind, str]], set[str]]:
    """Our resources of Compute Engine, the keys of the others, and the members that ours name."""
    templates = {item["name"]: facts_of(item.get("properties", {})) for item in listed["templates"]}
    parsers: dict[str, tuple[Owner, Callable[[Json], Resource]]] = {
        "addresses": (project.owner, lambda item: _address(project, item)),
        "firewall rules": (project.network_owner, lambda item: _rule(project, item)),
        "machines": (project.owner, lambda item: _vm(project, item)),
        "templates": (project.owner, lambda item: compute.found_template(project.project, item["name"])),
        "groups": (project.owner, lambda item: _group(project, item, templates)),
    }
    ours: list[Resource] = []
    foreign: list[tuple[Kind, str]] = []
    for kind, (owner, parse) in parsers.items():
        for item in listed[kind]:
            resource = parse(item)
            owned = _is_vm_of_ours(project, item) if kind == "machines" else item.get("description") == owner.mark
            if owned:
                ours.append(resource)
            else:
                foreign.append(resource.key)
    emails = {facts["service account"] for facts in (*_facts(ours), *templates.values()) if "service account" in facts}
    targets = {email for one in ours if one.kind is Kind.FIREWALL for email in one.facts["targets"].split(",") if email}
    return ours, foreign, {f"serviceAccount:{email}" for email in (*emails, *targets)}


def _facts(found: Iterable[Resource]) -> list[Mapping[str, str]]:
    return [one.facts for one in found if one.kind in (Kind.VM, Kind.GROUP)]


def facts_of(item: Json) -> dict[str, str]:
    """Properties of a VM from our metadata; values that the API itself reports take precedence."""
    try:
        facts = json.loads(metadata_of(item).get(FACTS_KEY, "{}"))
    except ValueError:
        return {}
    if not isinstance(facts, dict):
        return {}
    found = {str(name): str(value) for name, value in facts.items()}
    if found and "machineType" in item:
        found["machine type"] = _last(item["machineType"])
    return found


def _is_vm_of_ours(project: Project, item: Json) -> bool:
    """The VMs of a group carry its labels but not the part; they are neither ours to remove nor in the way."""
    marks = item.get("labels", {})
    return secret_names.is_ours(marks, project.cluster) and PART_LABEL in marks


def _address(project: Project, item: Json) -> Resource:
    return compute.address(project.project, project.owner, item["name"], _last(item.get("region", "global")))


def _rule(project: Project, item: Json) -> Resource:
    action, rules = ("ALLOW", item["allowed"]) if "allowed" in item else ("DENY", item.get("denied", ()))
    texts = [
        f"{rule['IPProtocol']}:{port}" if port else rule["IPProtocol"]
        for rule in rules
        for port in rule.get("ports", [None])
    ]
    network = item["network"].partition("projects/")[2]
    shared = f"projects/{network}" if project.network_project != project.project else _last(item["network"])
    rule = Rule(
        item["name"], shared, action, ",".join(texts), int(item["priority"]),
        tuple(item.get("targetServiceAccounts", ())),
        tuple(item.get("sourceRanges", ())), tuple(item.get("sourceServiceAccounts", ())),
    )  # fmt: skip
    return compute.firewall(project.network_project, project.network_owner, rule)


def _vm(project: Project, item: Json) -> Resource:
    return compute.found_vm(project.project, item["name"], _last(item["zone"]), facts_of(item))


def _group(project: Project, item: Json, templates: Mapping[str, Mapping[str, str]]) -> Resource:
    template = _last(item.get("instanceTemplate") or item["versions"][0]["instanceTemplate"])
    spec = GroupSpec(
        project.project, project.owner, item["name"], _last(item.get("zone") or item["region"]), "zone" not in item,
        int(item.get("targetSize", 0)), template, templates.get(template, {}),
    )  # fmt: skip
    return compute.group(spec)


def _last(url: str) -> str:
    return url.rpartition("/")[2]


def check_egress(run: Run, wanted: Deployment) -> None:
    """Raise NotFoundError where VMs without an external address could not reach Secret Manager and the registry.

    Such a VM would boot, wait for its credential until its deadline, and start again for ever.
    """
    project, region = wanted.network_project, wanted.region
    subnets = read_json(run, gcloud(project, "compute", "networks", "subnets", "list", f"--regions={region}"))
    name = wanted.subnet.rpartition("/")[2] if wanted.subnet else None
    in_network = [one for one in subnets if _last(one["network"]) == wanted.network_name]
    usable = [one for one in in_network if _last(one["region"]) == region and name in (None, one["name"])]
    if not usable:
        raise NotFoundError(
            f"network {wanted.network_name} has no {f'subnet {name}' if name else 'subnet'} in {region}",
            hint=f"gcloud compute networks subnets list --network={wanted.network_name} --project={project}",
        )
    google_only = registry_of(wanted.image) is not None
    if google_only and any(one.get("privateIpGoogleAccess") for one in usable):
        return
    routers = read_json(run, gcloud(project, "compute", "routers", "list", f"--regions={region}"))
    if any(one.get("nats") and _last(one["network"]) == wanted.network_name for one in routers):
        return
    subnet = usable[0]["name"]
    if google_only:
        raise NotFoundError(
            f"subnet {subnet} in {region} has neither Private Google Access nor Cloud NAT, so VMs without an external "
            "address could not reach Secret Manager",
            hint=f"gcloud compute networks subnets update {subnet} --region={region} --project={project} "
            "--enable-private-ip-google-access",
        )
    raise NotFoundError(
        f"network {wanted.network_name} in {region} has no Cloud NAT, so VMs without an external address could not "
        f"pull {wanted.image}, which is not in a registry of Google's",
        hint="push the image to Artifact Registry, or set up Cloud NAT",
    )
