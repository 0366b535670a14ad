"""Services, service accounts and grants as resources. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from daskpki.deploy.blueprint import ACCESSOR, IMAGE_READER, grants, parts, repository_of
from daskpki.deploy.resource import Command, Grant, Kind, Owner, Resource, Update, account_email, account_id, gcloud
from daskpki.deploy.settings import Deployment, Site


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
    """Where grants of the role are: the project, gcloud's words for the kind of resource, its name, and options."""
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
