"""One resource on Google Cloud as data: what it is, how it is made, changed and removed, and who owns it. Pure.

Service accounts, firewall rules, addresses, templates and groups carry a mark in their description, VMs carry labels.
A resource with one of our names but without our mark belongs to somebody else and is never touched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

Command = tuple[str, ...]
"""A program and its arguments, as `execve` takes them: no shell ever sees it."""

NO_FILES: Final[Mapping[str, str]] = {}

_MAX_ACCOUNT: Final = 30  # IAM: 6 to 30 characters
_MAX_NAME: Final = 63  # RFC 1035, as Compute Engine asks
_DIGEST: Final = 8


class Kind(StrEnum):
    """The kinds of resources, in the order in which they are made."""

    SERVICES = "services"
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


class Grant(NamedTuple):
    """A service account's role on a secret, on a repository of images or in the project, whichever the role is for."""

    account: str
    role: str
    where: str

    @property
    def member(self) -> str:
        """The account as policies name it."""
        return f"serviceAccount:{self.account}"


class Resource(NamedTuple):
    """A resource, wanted or found. Two with the same `key` are the same one; their `facts` may differ.

    `update` returns the commands that change the differing facts, or None if it has to be replaced; `ends` names what
    is lost by that. A found resource may lack what only its creation needs; its `create` is then empty.
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


class Owner(NamedTuple):
    """The cluster that resources of `project` belong to; `guest` is the cluster's project if that is another one."""

    project: str
    cluster: str
    guest: str | None = None

    @property
    def mark(self) -> str:
        """The description that makes a resource ours."""
        # Clusters of the same name in two projects may share one network, so its rules name the project as well.
        project = f" project={self.guest}" if self.guest else ""
        return f"managed-by=daskpki daskpki-cluster={self.cluster}{project}"

    def name(self, part: str) -> str:
        """`daskpki-CLUSTER-PART`; a long name is cut and made unambiguous by a digest."""
        guest = f"{self.guest}-".replace(":", "-").replace(".", "-") if self.guest else ""
        return _fit(f"daskpki-{guest}{self.cluster}-{part}", _MAX_NAME)


def account_id(cluster: str, part: str) -> str:
    """The part of a service account's address before the `@`."""
    return _fit(f"daskpki-{cluster}-{part}", _MAX_ACCOUNT)


def account_email(project: str, account: str) -> str:
    """A service account's address; in a project of a domain, `example.com:p`, the order is reversed."""
    domain, _, name = project.rpartition(":")
    return f"{account}@{name}.{domain + '.' if domain else ''}iam.gserviceaccount.com"


def internal_host(project: str, zone: str, name: str) -> str:
    """The VM's zonal DNS name, which resolves inside its network and is known before the VM exists."""
    domain, _, rest = project.rpartition(":")
    return f"{name}.{zone}.c.{rest}{'.' + domain if domain else ''}.internal"


def digest(text: str) -> str:
    """Eight hexadecimal digits of the content's hash."""
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]


def _fit(name: str, limit: int) -> str:
    if len(name) <= limit:
        return name
    return f"{name[: limit - _DIGEST - 1].rstrip('-')}-{digest(name)}"
