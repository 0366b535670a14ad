"""Reads existing resources by `gcloud ... --format=json`: ours by their mark, and others with names like ours.

The parsers are pure, from JSON to the same resources that a plan is made of. `observe` asks for one filtered list of
each type, several at a time, since each command takes a second; policies are read only once our accounts exist.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Final

from daskpki import secret_names
from daskpki.deploy import compute, iam
from daskpki.deploy.blueprint import ACCESSOR, IMAGE_READER, Grant, Rule, repository_of
from daskpki.deploy.cloud_init import registry_of
from daskpki.deploy.compute import FACTS_KEY, PART_LABEL, Group
from daskpki.deploy.gcloud import Run, read_json
from daskpki.deploy.iam import Command, Kind, Resource, gcloud
from daskpki.deploy.plan import Observed
from daskpki.deploy.settings import Deployment, Owner, Site
from daskpki.errors import NotFoundError
from daskpki.identity import Role

_AT_ONCE: Final = 8
_READ_BY_NODES: Final = (secret_names.TRUST, Role.SCHEDULER, Role.WORKER, secret_names.SECRET)

Json = Mapping[str, Any]
Facts = Mapping[str, str]
Tell = Callable[[str], None]


def observe(run: Run, site: Site, wanted: Sequence[Resource] = (), tell: Tell = lambda _line: None) -> Observed:
    """Read all existing resources; `wanted` adds repositories and services to look at, `tell` reports progress."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        listed = _read(run, _lists(site), pool, tell)
        ours, foreign, used = _split(site, listed)
        accounts, unborn = ({one.name for one in found if one.kind is Kind.ACCOUNT} for found in (ours, wanted))
        known = accounts | used | {one.grant.account for one in wanted if one.grant}
        secrets = [item for item in listed["secrets"] if secret_names.is_ours(item.get("labels", {}), site.cluster)]
        ids = frozenset(_last(item["name"]) for item in secrets)
        by_nodes = {one for one in ids if secret_names.kind_and_name(site.cluster, one)[0] in _READ_BY_NODES}
        # An account that is still to be made has no grants yet.
        places = _places(by_nodes, wanted, ours) if known - (unborn - accounts) else set()
        commands = {f"grants on {where}": iam.read_policy(site, role, where) for role, where in sorted(places)}
        policies = _read(run, commands, pool, tell)
    grants = [
        Grant(account, role, where)
        for role, where in places
        for found, account in _granted(policies[f"grants on {where}"])
        if found == role and account in (accounts if role == IMAGE_READER else known)
    ]
    # An account that existed before keeps its roles in the project.
    on_project = _granted(listed["grants on the project"])
    grants += [Grant(account, role, site.project) for role, account in on_project if account in accounts]
    enabled = {item["config"]["name"] for item in listed["services"]}
    for one in wanted:
        # Other services are not ours to judge.
        if one.kind is Kind.SERVICES and (on := enabled & set(one.facts["enabled"].split(", "))):
            ours.append(iam.services(one.name, on))
    return Observed({one.key: one for one in (*ours, *(iam.grant(site, one) for one in grants))}, foreign, ids)


def _read(run: Run, commands: Mapping[str, Command], pool: ThreadPoolExecutor, tell: Tell) -> dict[str, Any]:
    """The answers to all commands, by name."""
    running = {pool.submit(read_json, run, command): name for name, command in commands.items()}
    found: dict[str, Any] = {}
    for number, future in enumerate(as_completed(running), start=1):
        found[running[future]] = future.result()
        tell(f"[{number}/{len(running)}] read {running[future]}")
    return found


def _owner(site: Site, words: str) -> Owner:
    return site.network_owner if words == "compute firewall-rules" else site.owner


def _lists(site: Site) -> dict[str, Command]:
    project, by_label = site.project, f"labels.daskpki-cluster={site.cluster}"
    where = (f"--location={site.store.location}",) if site.store.location else ()
    found = {
        "services": gcloud(project, "services", "list", "--enabled"),
        "grants on the project": iam.read_policy(site, "", project),
        "secrets": gcloud(project, "secrets", "list", f"--filter={by_label}", *where),
    }
    for words in _PARSERS:
        owner = _owner(site, words)
        prefix = owner.name("")[:40]  # short enough that no name is cut within it
        by = f"email~^{prefix[:20]}" if words == "iam service-accounts" else f"name~^{prefix}"
        by += f" OR {by_label}" if words == "compute instances" else ""
        found[words] = gcloud(owner.project, *words.split(), "list", f"--filter={by}")
    return found


def _split(
    site: Site, listed: Mapping[str, Sequence[Json]]
) -> tuple[list[Resource], frozenset[tuple[Kind, str]], set[str]]:
    """Our resources, the keys of others with names like ours, and the accounts that our resources use."""
    templates = {item["name"]: facts_of(item.get("properties", {})) for item in listed["compute instance-templates"]}
    ours: list[Resource] = []
    foreign: set[tuple[Kind, str]] = set()
    for words, parse in _PARSERS.items():
        owner = _owner(site, words)
        for item in listed[words]:
            marks = item.get("labels", {})
            # The VMs of a group carry its labels but not the part; they are neither ours to remove nor in the way.
            managed = secret_names.is_ours(marks, site.cluster) and PART_LABEL in marks
            resource = parse(owner, item, templates)
            if managed if words == "compute instances" else item.get("description") == owner.mark:
                ours.append(resource)
            else:
                foreign.add(resource.key)
    used = {facts.get("service account", "") for facts in (*(one.facts for one in ours), *templates.values())}
    targets = {email for one in ours for email in one.facts.get("targets", "").split(",")}
    return ours, frozenset(foreign), (used | targets) - {""}


def _places(secrets: Iterable[str], wanted: Sequence[Resource], ours: Sequence[Resource]) -> set[tuple[str, str]]:
    """Roles and resources whose policies have to be read: the nodes' secrets, and the repositories of images."""
    named = {one.grant.where for one in wanted if one.grant and one.grant.role == IMAGE_READER}
    pulled = {repository_of(one.facts["image"]) for one in ours if "image" in one.facts}
    return {(ACCESSOR, secret) for secret in secrets} | {(IMAGE_READER, one) for one in named | pulled if one}


def _granted(policy: Any) -> Iterator[tuple[str, str]]:
    """Role and account of each unconditional binding to a service account."""
    for binding in policy.get("bindings", ()) if isinstance(policy, Mapping) else ():
        for member in binding.get("members", ()) if "condition" not in binding else ():
            kind, _, account = member.partition(":")
            if kind == "serviceAccount":
                yield binding["role"], account


def facts_of(item: Json) -> dict[str, str]:
    """Properties of a VM from our metadata; values that the API itself reports take precedence."""
    entries = {entry["key"]: entry.get("value", "") for entry in item.get("metadata", {}).get("items", ())}
    try:
        facts = json.loads(entries.get(FACTS_KEY, "{}"))
    except ValueError:
        return {}
    if not isinstance(facts, dict):
        return {}
    found = {str(name): str(value) for name, value in facts.items()}
    if found and "machineType" in item:
        found["machine type"] = _last(item["machineType"])
    return found


def _rule(owner: Owner, item: Json, _templates: Mapping[str, Facts]) -> Resource:
    action, rules = ("ALLOW", item["allowed"]) if "allowed" in item else ("DENY", item.get("denied", ()))
    texts = [
        f"{rule['IPProtocol']}:{port}" if port else rule["IPProtocol"]
        for rule in rules
        for port in rule.get("ports", [None])
    ]
    path = f"projects/{item['network'].partition('projects/')[2]}"
    rule = Rule(
        item["name"], path if owner.guest else _last(path), action, ",".join(texts), int(item["priority"]),
        tuple(item.get("targetServiceAccounts", ())),
        tuple(item.get("sourceRanges", ())), tuple(item.get("sourceServiceAccounts", ())),
    )  # fmt: skip
    return compute.firewall(owner, rule)


def _group(owner: Owner, item: Json, templates: Mapping[str, Facts]) -> Resource:
    template = _last(item.get("instanceTemplate") or item["versions"][0]["instanceTemplate"])
    place, size = _last(item.get("zone") or item["region"]), int(item.get("targetSize", 0))
    found = Group(item["name"], place, "zone" not in item, size, template, templates.get(template, {}))
    return compute.group(owner, found)


_PARSERS: Final[Mapping[str, Callable[[Owner, Json, Mapping[str, Facts]], Resource]]] = {
    "iam service-accounts": lambda owner, item, _: iam.service_account(owner, item["email"].partition("@")[0]),
    "compute addresses": lambda owner, item, _: compute.address(
        owner, item["name"], _last(item.get("region", "global"))
    ),
    "compute firewall-rules": _rule,
    "compute instances": lambda owner, item, _: compute.found_vm(
        owner, item["name"], _last(item["zone"]), facts_of(item)
    ),
    "compute instance-templates": lambda owner, item, _: compute.found_template(owner, item["name"]),
    "compute instance-groups managed": _group,
}
"""Parsers for the types that carry our mark, by gcloud's words; the last argument has the facts of all templates."""


def _last(url: str) -> str:
    return url.rpartition("/")[2]


def check_egress(run: Run, wanted: Deployment) -> None:
    """Raise NotFoundError where VMs without an external address could not reach Secret Manager and the registry.

    Such a VM would boot, wait for its credential until its deadline, and start again for ever.
    """
    project, region = wanted.network_owner.project, wanted.region
    network = _last(wanted.network)
    subnets = read_json(run, gcloud(project, "compute", "networks", "subnets", "list", f"--regions={region}"))
    name = wanted.subnet.rpartition("/")[2] if wanted.subnet else None
    in_network = [one for one in subnets if _last(one["network"]) == network]
    usable = [one for one in in_network if _last(one["region"]) == region and name in (None, one["name"])]
    if not usable:
        raise NotFoundError(
            f"network {network} has no {f'subnet {name}' if name else 'subnet'} in {region}",
            hint=f"gcloud compute networks subnets list --network={network} --project={project}",
        )
    google_only = registry_of(wanted.image) is not None
    if google_only and any(one.get("privateIpGoogleAccess") for one in usable):
        return
    routers = read_json(run, gcloud(project, "compute", "routers", "list", f"--regions={region}"))
    if any(one.get("nats") and _last(one["network"]) == network for one in routers):
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
        f"network {network} in {region} has no Cloud NAT, so VMs without an external address could not "
        f"pull {wanted.image}, which is not in a registry of Google's",
        hint="push the image to Artifact Registry, or set up Cloud NAT",
    )
