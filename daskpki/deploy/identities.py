"""Who may do what: services, service accounts, and the grants that each account needs and no more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from daskpki.deploy.names import account_email, mark
from daskpki.deploy.resource import NO_FILES, Command, Lasting, gcloud

ACCESSOR = "roles/secretmanager.secretAccessor"
IMAGE_READER = "roles/artifactregistry.reader"


@dataclass(frozen=True)
class Services:
    """The APIs that are switched on; never off again, since others may use them."""

    project: str
    apis: frozenset[str]

    @property
    def key(self) -> tuple[str, str]:
        """See Resource."""
        return "services", self.project

    @property
    def title(self) -> str:
        """See Resource."""
        return f"services {', '.join(sorted(self.apis))}"

    @property
    def facts(self) -> Mapping[str, str]:
        """See Resource."""
        return {"enabled": ", ".join(sorted(self.apis))}

    @property
    def files(self) -> Mapping[str, str]:
        """See Resource."""
        return NO_FILES

    @property
    def create(self) -> Sequence[Command]:
        """See Resource."""
        return (gcloud(self.project, "services", "enable", *sorted(self.apis)),)

    def update(self, former: Mapping[str, str]) -> Sequence[Command]:  # noqa: ARG002 - enabling twice is no change
        """See Resource."""
        return self.create

    @property
    def delete(self) -> Sequence[Command]:
        """See Resource."""
        return ()


@dataclass(frozen=True)
class Account(Lasting):
    """The service account of one role, or of one isolated worker."""

    project: str
    cluster: str
    account: str

    @property
    def email(self) -> str:
        """Its address."""
        return account_email(self.project, self.account)

    @property
    def member(self) -> str:
        """As IAM policies name it."""
        return f"serviceAccount:{self.email}"

    @property
    def key(self) -> tuple[str, str]:
        """See Resource."""
        return "service account", self.email

    @property
    def title(self) -> str:
        """See Resource."""
        return f"service account {self.email}"

    @property
    def create(self) -> Sequence[Command]:
        """See Resource."""
        named = f"--display-name={self.account}"
        described = f"--description={mark(self.cluster)}"
        return (gcloud(self.project, "iam", "service-accounts", "create", self.account, named, described),)

    @property
    def delete(self) -> Sequence[Command]:
        """See Resource."""
        return (gcloud(self.project, "iam", "service-accounts", "delete", self.email),)


class _Grant(Lasting, ABC):
    """An account may do something somewhere: one binding of a policy, given and taken."""

    __slots__ = ()

    @property
    def create(self) -> Sequence[Command]:
        """See Resource."""
        return (self._change("add-iam-policy-binding"),)

    @property
    def delete(self) -> Sequence[Command]:
        """See Resource."""
        return (self._change("remove-iam-policy-binding"),)

    @abstractmethod
    def _change(self, verb: str) -> Command:
        """The command that does `verb` to the binding."""


@dataclass(frozen=True)
class SecretGrant(_Grant):
    """One account may read one secret."""

    project: str
    location: str | None
    secret: str
    member: str

    @property
    def key(self) -> tuple[str, str]:
        """See Resource."""
        return "grant", f"{self.secret} {self.member}"

    @property
    def title(self) -> str:
        """See Resource."""
        return f"grant: {self.member.partition(':')[2]} reads secret {self.secret}"

    def _change(self, verb: str) -> Command:
        where = (f"--location={self.location}",) if self.location else ()
        binding = (f"--member={self.member}", f"--role={ACCESSOR}", "--condition=None")
        return gcloud(self.project, "secrets", verb, self.secret, *where, *binding)


@dataclass(frozen=True)
class ProjectGrant(_Grant):
    """One account has one role in the project."""

    project: str
    role: str
    member: str

    @property
    def key(self) -> tuple[str, str]:
        """See Resource."""
        return "grant", f"{self.role} {self.member}"

    @property
    def title(self) -> str:
        """See Resource."""
        return f"grant: {self.member.partition(':')[2]} has {self.role} in the project"

    def _change(self, verb: str) -> Command:
        binding = (f"--member={self.member}", f"--role={self.role}", "--condition=None")
        return gcloud(self.project, "projects", verb, self.project, *binding)


@dataclass(frozen=True)
class ImageGrant(_Grant):
    """One account may pull from one repository of Artifact Registry, which may be in another project."""

    project: str
    location: str
    repository: str
    member: str

    @property
    def key(self) -> tuple[str, str]:
        """See Resource."""
        return "grant", f"{self.project}/{self.location}/{self.repository} {self.member}"

    @property
    def title(self) -> str:
        """See Resource."""
        return f"grant: {self.member.partition(':')[2]} pulls images from {self.project}/{self.repository}"

    def _change(self, verb: str) -> Command:
        binding = (f"--location={self.location}", f"--member={self.member}", f"--role={IMAGE_READER}")
        return gcloud(self.project, "artifacts", "repositories", verb, self.repository, *binding)
