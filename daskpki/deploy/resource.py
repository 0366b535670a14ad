"""What every resource on Google Cloud can say of itself: what it is, and which `gcloud` commands make and remove it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

Command = tuple[str, ...]
"""A program and its arguments, as `execve` takes them: no shell ever sees it."""

NO_FACTS: Final[Mapping[str, str]] = {}
NO_FILES: Final[Mapping[str, str]] = {}

CREATED: Final = "create"
UPDATED: Final = "update"
DELETED: Final = "delete"


class Resource(Protocol):
    """One resource, wanted or found. Two of the same `key` are the same one; their `facts` may differ.

    A found resource may lack what only its creation needs; then it cannot be made anew (`create` is empty).
    """

    @property
    def key(self) -> tuple[str, str]:
        """Kind and name."""
        ...

    @property
    def title(self) -> str:
        """What it is, for people."""
        ...

    @property
    def facts(self) -> Mapping[str, str]:
        """What can be compared with what is there."""
        ...

    @property
    def files(self) -> Mapping[str, str]:
        """The files that the commands name, in the working directory: name and content, none of it secret."""
        ...

    @property
    def create(self) -> Sequence[Command]:
        """The commands that make it."""
        ...

    def update(self, former: Mapping[str, str]) -> Sequence[Command]:
        """The commands that give it these facts, when it has the `former` ones."""
        ...

    @property
    def delete(self) -> Sequence[Command]:
        """The commands that remove it; none where removing it could hurt others."""
        ...


def gcloud(project: str, *words: str) -> Command:
    """A `gcloud` command in a project, without questions."""
    return ("gcloud", *words, f"--project={project}", "--quiet")


class Lasting:
    """A resource without facts: it is there or not, and is never changed."""

    __slots__ = ()

    @property
    def facts(self) -> Mapping[str, str]:
        """See Resource."""
        return NO_FACTS

    @property
    def files(self) -> Mapping[str, str]:
        """See Resource."""
        return NO_FILES

    def update(self, former: Mapping[str, str]) -> Sequence[Command]:  # noqa: ARG002 - the port's signature
        """See Resource."""
        return ()
