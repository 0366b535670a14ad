"""Services, service accounts, and exactly the grants that each account needs. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from daskpki.deploy.resource import Block, Change, Command, Grant, Kind, Owner, Resource, account_email, gcloud

ACCESSOR: Final = "roles/secretmanager.secretAccessor"
IMAGE_READER: Final = "roles/artifactregistry.reader"
LOG_WRITER: Final = "roles/logging.logWriter"
METRIC_WRITER: Final = "roles/monitoring.metricWriter"

_ARTIFACT: Final = re.compile(r"([a-z0-9-]+)-docker\.pkg\.dev/([a-z0-9.:-]+)/([a-z0-9._-]+)/")


class Repository(NamedTuple):
    """A repository of images in Artifact Registry."""

    project: str
    location: str
    name: str


def repository_of(image: str) -> Repository | None:
    """The repository that an image is pulled from; None for other registries, which ask for no grant."""
    found = _ARTIFACT.match(image)
    return Repository(found[2], found[1], found[3]) if found else None


def services(project: str, apis: Iterable[str]) -> Resource:
    """The APIs to switch on. They are never switched off, since others may use them."""
    ordered = sorted(apis)
    enable = (gcloud(project, "services", "enable", *ordered),)
    enabled = frozenset({"enabled"})
    each = {"for_each": ordered, "project": project, "service": "each.value", "disable_on_destroy": False}
    return Resource(
        Kind.SERVICES,
        project,
        f"services {', '.join(ordered)}",
        facts={"enabled": ", ".join(ordered)},
        create=enable,
        changes=(Change(enabled, enable),),
        terraform=Block("google_project_service", "services", each),
    )


def service_account(project: str, owner: Owner, account: str, part: str = "") -> Resource:
    """The service account of one part of the cluster."""
    email = account_email(project, account)
    named = (f"--display-name={account}", f"--description={owner.mark}")
    about = {"project": project, "account_id": account, "display_name": account, "description": owner.mark}
    return Resource(
        Kind.ACCOUNT,
        email,
        f"service account {email}",
        create=(gcloud(project, "iam", "service-accounts", "create", account, *named),),
        delete=(gcloud(project, "iam", "service-accounts", "delete", email),),
        terraform=Block("google_service_account", part, about),
    )


def secret_grant(project: str, location: str | None, secret: str, member: str) -> Resource:
    """One account may read one secret."""
    where = (f"--location={location}",) if location else ()
    kind = "google_secret_manager_regional_secret_iam_member" if location else "google_secret_manager_secret_iam_member"
    at = {"location": location} if location else {}
    return _grant(
        Grant(member, ACCESSOR, secret),
        f"reads secret {secret}",
        lambda verb: gcloud(project, "secrets", verb, secret, *where, *_binding(member, ACCESSOR), "--condition=None"),
        Block(kind, secret, {"project": project, **at, "secret_id": secret, "role": ACCESSOR, "member": member}),
    )


def project_grant(project: str, role: str, member: str) -> Resource:
    """One account has one role in the project."""
    return _grant(
        Grant(member, role, project),
        f"has {role} in the project",
        lambda verb: gcloud(project, "projects", verb, project, *_binding(member, role), "--condition=None"),
        Block("google_project_iam_member", role, {"project": project, "role": role, "member": member}),
    )


def image_grant(repository: Repository, member: str) -> Resource:
    """One account may pull from one repository, which may be in another project."""
    project, location, name = repository
    words = ("artifacts", "repositories")
    about = {"project": project, "location": location, "repository": name, "role": IMAGE_READER, "member": member}
    return _grant(
        Grant(member, IMAGE_READER, "/".join(repository)),
        f"pulls images from {project}/{name}",
        lambda verb: gcloud(project, *words, verb, name, f"--location={location}", *_binding(member, IMAGE_READER)),
        Block("google_artifact_registry_repository_iam_member", "images", about),
    )


def _binding(member: str, role: str) -> tuple[str, str]:
    return f"--member={member}", f"--role={role}"


def _grant(grant: Grant, title: str, command: Callable[[str], Command], block: Block) -> Resource:
    return Resource(
        Kind.GRANT,
        f"{grant.role} {grant.where} {grant.member}",
        title,
        create=(command("add-iam-policy-binding"),),
        delete=(command("remove-iam-policy-binding"),),
        grant=grant,
        terraform=block,
    )
