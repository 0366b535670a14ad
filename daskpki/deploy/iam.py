"""Resources on Google Cloud as data, and the services, service accounts and grants among them. Pure.

Service accounts, firewall rules, addresses, templates and groups carry a mark in their description, VMs carry labels.
A resource with one of our names but without our mark belongs to somebody else and is never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from daskpki.deploy.blueprint import ACCESSOR, IMAGE_READER, Grant, grants, parts, repository_of
from daskpki.deploy.settings import Deployment, Owner, Site, account_email, account_id

Command = tuple[str, ...]
"""A program and its arguments, as `execve` takes them: no shell ever sees it."""

NO_FILES: Final[Mapping[str, str]] = {}


class Kind(StrEnum):
    """The kinds of resources, in the order in which they are made."""

    SERVICES = "services"
    CREDENTIAL = "credential"
    ACCOUNT = "service account"
    GRANT = "grant"
    ADDRESS = "static address"
    FIREWALL = "firewall rule"
    VM = "VM"
    TEMPLATE = "instance template"
    GROUP = "instance group"


Differences = Mapping[str, tuple[str, str]]
"""By fact: the value that was found, and the wanted one."""


class Update(NamedTuple):
    """Commands that give an existing resource the wanted facts; if `rolling`, VM by VM."""

    commands: tuple[Command, ...]
    rolling: bool = False


class Resource(NamedTuple):
    """A resource, wanted or found. Two with the same `key` are the same one; their `facts` may differ.

    `update` returns the commands that change the differing facts, or None if the resource has to be replaced; `ends`
    says what stops when it is replaced or removed. A found resource may lack the facts that only its creation needs;
    its `create` is then empty.
    """

    kind: Kind
    name: str
    title: str
    facts: Mapping[str, str] = {}
    create: tuple[Command, ...] = ()
    delete: tuple[Command, ...] = ()
    update: Callable[[Differences], Update | None] = lambda _differences: None
    files: Mapping[str, str] = NO_FILES
    ends: str = ""
    grant: Grant | None = None

    @property
    def key(self) -> tuple[Kind, str]:
        """Its identity within a deployment."""
        return self.kind, self.name


def gcloud(project: str, *words: str) -> Command:
    """A `gcloud` command in a project, without prompts."""
    return ("gcloud", *words, f"--project={project}", "--quiet")


def apis(wanted: Deployment) -> Iterator[str]:
    """The APIs that the deployment uses in its project."""
    repository = repository_of(wanted.image) or ""
    artifacts = ["artifactregistry"] * repository.startswith(f"{wanted.project}/")
    for name in sorted(("cloudresourcemanager", "compute", "iam", "secretmanager", *wanted.agents, *artifacts)):
        yield f"{name}.googleapis.com"


def services(project: str, names: Iterable[str]) -> Resource:
    """The APIs to switch on. They are never switched off, since others may use them."""
    ordered = sorted(names)
    enable = (gcloud(project, "services", "enable", *ordered),)
    return Resource(
        Kind.SERVICES,
        project,
        f"services {', '.join(ordered)}",
        facts={"enabled": ", ".join(ordered)},
        create=enable,
        update=lambda _differences: Update(enable),
    )


def service_account(owner: Owner, account: str) -> Resource:
    """The service account of one part of the cluster."""
    email = account_email(owner.project, account)
    named = (f"--display-name={account}", f"--description={owner.mark}")
    return Resource(
        Kind.ACCOUNT,
        email,
        f"service account {email}",
        create=(gcloud(owner.project, "iam", "service-accounts", "create", account, *named),),
        delete=(gcloud(owner.project, "iam", "service-accounts", "delete", email),),
    )


def _policy(site: Site, role: str, where: str) -> tuple[str, tuple[str, ...], str, tuple[str, ...]]:
    """Locate the policy with grants of the role: project, gcloud's words for the resource's kind, its name, options."""
    if role == ACCESSOR:
        location = site.store.location
        return site.project, ("secrets",), where, (f"--location={location}",) if location else ()
    if role == IMAGE_READER:
        project, location, name = where.split("/")
        return project, ("artifacts", "repositories"), name, (f"--location={location}",)
    return site.project, ("projects",), where, ()


def read_policy(site: Site, role: str, where: str) -> Command:
    """The command that reads the policy in which grants of the role are."""
    project, words, name, options = _policy(site, role, where)
    return gcloud(project, *words, "get-iam-policy", name, *options)


def grant(site: Site, one: Grant) -> Resource:
    """A grant as a resource: one account has one role in one place."""
    project, words, name, options = _policy(site, one.role, one.where)
    # Policies of repositories know no conditions.
    binding = (f"--member={one.member}", f"--role={one.role}", *(["--condition=None"] * (one.role != IMAGE_READER)))

    def command(verb: str) -> tuple[Command, ...]:
        return (gcloud(project, *words, f"{verb}-iam-policy-binding", name, *options, *binding),)

    titles = {ACCESSOR: f"reads secret {name}", IMAGE_READER: f"pulls images from {project}/{name}"}
    return Resource(
        Kind.GRANT,
        f"{one.role} {one.where} {one.member}",
        titles.get(one.role, f"has {one.role} in the project"),
        create=command("add"),
        delete=command("remove"),
        grant=one,
    )


def identities(wanted: Deployment) -> Iterator[Resource]:
    """Services, accounts and grants of a deployment."""
    yield services(wanted.project, apis(wanted))
    for part in parts(wanted):
        if part.own:
            yield service_account(wanted.owner, account_id(wanted.cluster, part.name))
    for _, one in grants(wanted):
        yield grant(wanted, one)
