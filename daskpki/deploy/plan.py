"""From what is wanted and what is there to the steps between: what to make, change and remove, in order. Pure.

Whatever is ours (by its mark) and not wanted is removed, so settings can shrink a cluster, and wanting nothing destroys
it. What has one of our names but not our mark is never touched: `NotOursError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from daskpki.deploy.resource import CREATED, DELETED, NO_FACTS, NO_FILES, UPDATED, Command, Resource
from daskpki.errors import NotOursError

RETRIED: Final = ("grant", "service account", "VM", "instance template")
"""Kinds whose making fails for a while after what they need was made: IAM and services take their time."""


class Step(NamedTuple):
    """One change: the `commands` that make it, those that `undo` it, and the `files` that the commands name."""

    action: str
    kind: str
    title: str
    changes: Mapping[str, tuple[str, str]]
    commands: Sequence[Command]
    undo: Sequence[Command]
    files: Mapping[str, str] = NO_FILES

    @property
    def settles(self) -> bool:
        """Whether it may fail at first, because what it needs was made only just before."""
        return self.action == CREATED and self.kind in RETRIED


@dataclass(frozen=True)
class Observed:
    """What is there: our resources, the titles and keys of others that bear such names, and the secrets' ids."""

    ours: Mapping[tuple[str, str], Resource] = field(default_factory=dict)
    foreign: frozenset[tuple[str, str]] = frozenset()
    secrets: frozenset[str] = frozenset()


NOTHING: Final = Observed()


def plan(wanted: Iterable[Resource], observed: Observed, first: Iterable[Step] = ()) -> Sequence[Step]:
    """The steps from `observed` to `wanted`; raises NotOursError before any of them.

    Args:
        wanted: Each after what it needs.
        observed: What is there.
        first: Steps that have to come before grants on what they make, and behind the services.
    """
    ordered = list(wanted)
    for resource in ordered:
        if resource.key in observed.foreign:
            kind, name = resource.key
            raise NotOursError(
                f"{kind} {name} exists and is not daskpki's", hint="rename or remove it, or use another --cluster"
            )
    changes = [step for resource in ordered for step in _approach(resource, observed.ours.get(resource.key))]
    keep = {resource.key for resource in ordered}
    surplus = [resource for key, resource in observed.ours.items() if key not in keep]
    services = [step for step in changes if step.kind == "services"]
    rest = [step for step in changes if step.kind != "services"]
    return (*services, *first, *rest, *_removals(surplus))


def _approach(wanted: Resource, found: Resource | None) -> Iterator[Step]:
    if found is None:
        yield _step(CREATED, wanted, NO_FACTS, wanted.create, wanted.delete)
    elif found.facts != wanted.facts:
        yield _step(UPDATED, wanted, found.facts, wanted.update(found.facts), found.update(wanted.facts))


def _removals(surplus: Iterable[Resource]) -> Iterator[Step]:
    """In the opposite order of making; what has no command to remove it stays."""
    for resource in sorted(surplus, key=_rank, reverse=True):
        if resource.delete:
            yield _step(DELETED, resource, resource.facts, resource.delete, resource.create)


_ORDER: Final = (
    "services", "service account", "grant", "address", "firewall rule", "VM", "instance template", "instance group",
)  # fmt: skip


def _rank(resource: Resource) -> tuple[int, str]:
    kind, name = resource.key
    return _ORDER.index(kind), name


def _step(
    action: str, resource: Resource, former: Mapping[str, str], commands: Sequence[Command], undo: Sequence[Command]
) -> Step:
    kind, _ = resource.key
    files = resource.files if action != DELETED else NO_FILES
    return Step(action, kind, resource.title, _differences(action, resource, former), commands, undo, files)


def _differences(action: str, resource: Resource, former: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    if action != UPDATED:
        return {}
    return {
        name: (former.get(name, ""), value) for name, value in resource.facts.items() if former.get(name, "") != value
    }
