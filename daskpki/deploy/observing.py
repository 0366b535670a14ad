"""Reading what is there, by `gcloud ... --format=json`: our resources by their mark, and others that bear such names.

The parsers are pure, from JSON to the same resources that a blueprint is made of; `observe` reads, a few commands at a
time, since each takes a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from daskpki import secret_names
from daskpki.deploy.gcloud import Run, read_json
from daskpki.deploy.identities import ACCESSOR, IMAGE_READER, Account, ImageGrant, ProjectGrant, SecretGrant, Services
from daskpki.deploy.machines import SPEC_LABEL, Group, Machine, Template
from daskpki.deploy.names import account_email, mark
from daskpki.deploy.network import Address, Firewall
from daskpki.deploy.plan import Observed
from daskpki.deploy.resource import Resource, gcloud
from daskpki.identity import Role
from daskpki.settings import GsmUrl

_AT_ONCE: Final = 4
_READ_BY_NODES: Final = (secret_names.TRUST, Role.SCHEDULER, Role.WORKER, secret_names.SECRET)

Json = Mapping[str, Any]


class Scene(NamedTuple):
    """Where to look, and whose things are ours."""

    store: GsmUrl
    cluster: str

    @property
    def project(self) -> str:
        """The project."""
        return self.store.project

    def owns(self, item: Json) -> bool:
        """Whether the mark is on it."""
        return bool(item.get("description") == mark(self.cluster))


def observe(run: Run, scene: Scene, wanted: Sequence[Resource] = ()) -> Observed:
    """Everything that is there; `wanted` says which repositories and services to look at."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        read = {name: pool.submit(read_json, run, command) for name, command in _lists(scene).items()}
        listed = {name: future.result() for name, future in read.items()}
        accounts, foreign_accounts = split_accounts(scene, listed["accounts"])
        members = frozenset(account.member for account in accounts)
        secrets = [item for item in listed["secrets"] if secret_names.is_ours(item.get("labels", {}), scene.cluster)]
        policies = pool.map(lambda place: (place, read_json(run, place.command)), _places(scene, secrets, wanted))
        grants = [grant for place, policy in policies for grant in place.grants(policy, members)]
    ours: list[Resource] = [
        *services(listed["services"], wanted),
        *accounts,
        *grants,
        *project_grants(scene, listed["project"], members),
    ]
    placed, foreign = split_compute(scene, listed)
    found = {resource.key: resource for resource in (*ours, *placed)}
    ids = frozenset(item["name"].rpartition("/")[2] for item in secrets)
    return Observed(found, frozenset((*foreign_accounts, *foreign)), ids)


def _lists(scene: Scene) -> dict[str, tuple[str, ...]]:
    where = (f"--location={scene.store.location}",) if scene.store.location else ()
    mine = f"--filter=labels.daskpki-cluster={scene.cluster}"
    words = {
        "services": ("services", "list", "--enabled"),
        "accounts": ("iam", "service-accounts", "list"),
        "project": ("projects", "get-iam-policy", scene.project),
        "secrets": ("secrets", "list", mine, *where),
        "addresses": ("compute", "addresses", "list"),
        "rules": ("compute", "firewall-rules", "list"),
        "machines": ("compute", "instances", "list"),
        "templates": ("compute", "instance-templates", "list"),
        "groups": ("compute", "instance-groups", "managed", "list"),
    }
    return {name: gcloud(scene.project, *command) for name, command in words.items()}


class SecretPlace(NamedTuple):
    """A secret whose policy is read."""

    scene: Scene
    secret: str

    @property
    def command(self) -> tuple[str, ...]:
        """What reads the policy."""
        location = self.scene.store.location
        where = (f"--location={location}",) if location else ()
        return gcloud(self.scene.project, "secrets", "get-iam-policy", self.secret, *where)

    def grants(self, policy: Json | list[Any], members: frozenset[str]) -> Iterator[Resource]:
        """Our accounts' grants in it."""
        for member in granted(policy, ACCESSOR, members):
            yield SecretGrant(self.scene.project, self.scene.store.location, self.secret, member)


class RepositoryPlace(NamedTuple):
    """A repository of images whose policy is read."""

    project: str
    location: str
    repository: str

    @property
    def command(self) -> tuple[str, ...]:
        """What reads the policy."""
        words = ("artifacts", "repositories", "get-iam-policy", self.repository, f"--location={self.location}")
        return gcloud(self.project, *words)

    def grants(self, policy: Json | list[Any], members: frozenset[str]) -> Iterator[Resource]:
        """Our accounts' grants in it."""
        for member in granted(policy, IMAGE_READER, members):
            yield ImageGrant(self.project, self.location, self.repository, member)


def _places(
    scene: Scene, secrets: Iterable[Json], wanted: Sequence[Resource]
) -> Sequence[SecretPlace | RepositoryPlace]:
    ids = [item["name"].rpartition("/")[2] for item in secrets if item["labels"].get("daskpki-kind") in _READ_BY_NODES]
    repositories = {
        RepositoryPlace(one.project, one.location, one.repository) for one in wanted if isinstance(one, ImageGrant)
    }
    return [*(SecretPlace(scene, secret) for secret in ids), *sorted(repositories)]


def granted(policy: Json | list[Any], role: str, members: frozenset[str]) -> Iterator[str]:
    """Those of the members whom an unconditional binding of the policy gives the role."""
    bindings = policy.get("bindings", ()) if isinstance(policy, Mapping) else ()
    for binding in bindings:
        if binding["role"] == role and "condition" not in binding:
            yield from (member for member in binding.get("members", ()) if member in members)


def services(listed: Iterable[Json], wanted: Sequence[Resource]) -> Iterator[Services]:
    """Those of the wanted services that are on; the others are not ours to judge."""
    enabled = {item["config"]["name"] for item in listed}
    found = (Services(one.project, one.apis & enabled) for one in wanted if isinstance(one, Services))
    yield from (one for one in found if one.apis)


def split_accounts(scene: Scene, listed: Iterable[Json]) -> tuple[list[Account], list[tuple[str, str]]]:
    """Our service accounts, and the keys of the others."""
    ours, foreign = [], []
    for item in listed:
        account = Account(scene.project, scene.cluster, item["email"].partition("@")[0])
        if scene.owns(item) and item["email"] == account_email(scene.project, account.account):
            ours.append(account)
        else:
            foreign.append(account.key)
    return ours, foreign


def project_grants(scene: Scene, policy: Json | list[Any], members: frozenset[str]) -> Iterator[ProjectGrant]:
    """Roles of our accounts in the project, whichever they are."""
    bindings = policy.get("bindings", ()) if isinstance(policy, Mapping) else ()
    for role in {binding["role"] for binding in bindings}:
        for member in granted(policy, role, members):
            yield ProjectGrant(scene.project, role, member)


def split_compute(scene: Scene, listed: Mapping[str, Iterable[Json]]) -> tuple[list[Resource], list[tuple[str, str]]]:
    """Our resources of Compute Engine, and the keys of the others."""
    ours: list[Resource] = []
    foreign: list[tuple[str, str]] = []
    for kind, parse in _COMPUTE.items():
        for item in listed[kind]:
            resource, owned = parse(scene, item)
            if owned:
                ours.append(resource)
            else:
                foreign.append(resource.key)
    return ours, foreign


def _address(scene: Scene, item: Json) -> tuple[Resource, bool]:
    return Address(scene.project, scene.cluster, item["name"], _last(item.get("region", "global"))), scene.owns(item)


def _rule(scene: Scene, item: Json) -> tuple[Resource, bool]:
    action, rules = ("ALLOW", item["allowed"]) if "allowed" in item else ("DENY", item.get("denied", ()))
    texts = [
        f"{rule['IPProtocol']}:{port}" if port else rule["IPProtocol"]
        for rule in rules
        for port in rule.get("ports", [None])
    ]
    rule = Firewall(
        scene.project, scene.cluster, item["name"], _last(item["network"]), action, ",".join(texts),
        int(item["priority"]), tuple(item.get("targetServiceAccounts", ())),
        tuple(item.get("sourceRanges", ())), tuple(item.get("sourceServiceAccounts", ())),
    )  # fmt: skip
    return rule, scene.owns(item)


def _vm(scene: Scene, item: Json) -> tuple[Resource, bool]:
    """The VMs of a group bear its labels but not the digest; they are neither ours to remove nor in the way."""
    marks = item.get("labels", {})
    owned = secret_names.is_ours(marks, scene.cluster) and SPEC_LABEL in marks
    return Machine(scene.project, item["name"], _last(item["zone"]), marks.get(SPEC_LABEL, "")), owned


def _template(scene: Scene, item: Json) -> tuple[Resource, bool]:
    return Template(scene.project, scene.cluster, item["name"]), scene.owns(item)


def _group(scene: Scene, item: Json) -> tuple[Resource, bool]:
    template = _last(item.get("instanceTemplate") or item["versions"][0]["instanceTemplate"])
    zone = _last(item.get("zone") or item["region"])
    group = Group(scene.project, scene.cluster, item["name"], zone, template, int(item.get("targetSize", 0)))
    return group, scene.owns(item)


_COMPUTE: Final = {
    "addresses": _address,
    "rules": _rule,
    "machines": _vm,
    "templates": _template,
    "groups": _group,
}


def _last(url: str) -> str:
    return url.rpartition("/")[2]
