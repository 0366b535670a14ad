"""The steps from the existing to the wanted resources, in order, and the plan in words. Pure.

Everything with our mark that is not wanted is removed. So settings can shrink a cluster, and a plan for no resources at
all destroys it. A resource with one of our names but without our mark is never touched: `NotOursError`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

from daskpki import secret_names
from daskpki.deploy import compute, iam
from daskpki.deploy.blueprint import parts
from daskpki.deploy.iam import NO_FILES, Command, Differences, Kind, Resource
from daskpki.deploy.settings import Deployment
from daskpki.errors import NotFoundError, NotOursError
from daskpki.identity import Role, default_name


class Action(StrEnum):
    """Change of a resource."""

    CREATE = "create"
    UPDATE = "update"
    ROLL = "replace one after another"
    REPLACE = "replace"
    DELETE = "delete"


_SIGNS: Final = {
    Action.CREATE: ("+", "created"),
    Action.UPDATE: ("~", "changed in place"),
    Action.ROLL: ("-/+", "replaced one after another"),
    Action.REPLACE: ("-/+", "replaced"),
    Action.DELETE: ("-", "removed"),
}

_ENDING: Final = (Action.ROLL, Action.REPLACE, Action.DELETE)
"""Changes that end what runs on a VM."""

_SETTLING: Final = (Kind.GRANT, Kind.ACCOUNT, Kind.VM, Kind.TEMPLATE)
"""Kinds whose creation fails for a while after their prerequisites were made: IAM and services act with a delay."""

# Grants go first, while the VMs still say which repository their image came from: an interrupted teardown that is run
# again would otherwise leave them behind.
_REMOVAL: Final = (
    Kind.GRANT, Kind.GROUP, Kind.TEMPLATE, Kind.VM, Kind.FIREWALL, Kind.ADDRESS, Kind.ACCOUNT, Kind.SERVICES,
)  # fmt: skip


class Step(NamedTuple):
    """One change of a resource: the `commands` that make it, and those that `undo` it."""

    action: Action
    resource: Resource
    changes: Differences
    commands: Sequence[Command]
    undo: Sequence[Command]

    @property
    def files(self) -> Mapping[str, str]:
        """The files that the commands name."""
        return NO_FILES if self.action is Action.DELETE else self.resource.files

    @property
    def ends(self) -> str:
        """The work on a VM that the change ends; empty if it ends none."""
        return self.resource.ends if self.action in _ENDING else ""

    @property
    def settles(self) -> bool:
        """True if it may fail at first, since a resource that it needs is new."""
        return self.action is not Action.DELETE and self.resource.kind in _SETTLING

    @property
    def line(self) -> str:
        """The step in one line, without its sign."""
        _, word = _SIGNS[self.action]
        grant = self.resource.grant
        whom = f" (grant to {grant.account})" if grant else ""
        why = f" ({', '.join(self.changes)})" if self.action in (Action.ROLL, Action.REPLACE) else ""
        ends = f"; {self.ends}" if self.ends else ""
        return f"{word}{why}: {self.resource.title}{whom}{ends}"


def resources(wanted: Deployment) -> Sequence[Resource]:
    """All resources of a deployment, each after those that it needs."""
    return (*iam.identities(wanted), *compute.network(wanted), *compute.machines(wanted))


class Observed(NamedTuple):
    """Existing state: our resources, the keys of foreign ones with names like ours, and the ids of our secrets."""

    ours: Mapping[tuple[Kind, str], Resource] = {}
    foreign: frozenset[tuple[Kind, str]] = frozenset()
    secrets: frozenset[str] = frozenset()


NOTHING: Final = Observed()


def plan(wanted: Iterable[Resource], observed: Observed, first: Iterable[Step] = ()) -> Sequence[Step]:
    """The steps from `observed` to `wanted`; raises NotOursError before any of them.

    Args:
        wanted: The wanted resources, each after those that it needs.
        observed: The existing resources.
        first: Steps that come after the services, and before the grants on the secrets that these steps make.
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
    # Without a command that deletes it, a resource stays.
    surplus = [resource for key, resource in observed.ours.items() if key not in keep and resource.delete]
    surplus.sort(key=lambda one: (_REMOVAL.index(one.kind), one.name))
    services = [step for step in changes if step.resource.kind is Kind.SERVICES]
    rest = [step for step in changes if step.resource.kind is not Kind.SERVICES]
    removals = [Step(Action.DELETE, one, {}, one.delete, one.create) for one in surplus]
    return (*services, *first, *rest, *removals)


def _approach(wanted: Resource, found: Resource | None) -> Iterator[Step]:
    if found is None:
        yield Step(Action.CREATE, wanted, {}, wanted.create, wanted.delete)
        return
    names = dict.fromkeys((*wanted.facts, *found.facts))
    both = {name: (found.facts.get(name, ""), wanted.facts.get(name, "")) for name in names}
    differences = {name: (before, after) for name, (before, after) in both.items() if before != after}
    if not differences:
        return
    # A template's name means nothing to people, and the facts beside it show what differs.
    told = {name: change for name, change in differences.items() if name != "template" or len(differences) == 1}
    if update := wanted.update(differences):
        action = Action.ROLL if update.rolling else Action.UPDATE
        back = found.update({name: (after, before) for name, (before, after) in differences.items()})
        yield Step(action, wanted, told, update.commands, back.commands if back else ())
    else:
        undo = (*wanted.delete, *found.create) if found.create else ()
        yield Step(Action.REPLACE, wanted, told, (*found.delete, *wanted.create), undo)


def prerequisites(wanted: Deployment, observed: Observed) -> Iterator[Step]:
    """The steps by which daskpki makes a missing CA and credentials; these are revoked rather than undone."""
    missing = [
        (role, name)
        for part in parts(wanted)
        for role, name in part.leaves
        if secret_names.credential_id(wanted.cluster, role, name) not in observed.secrets
    ]
    sealed = (f"--ca-passphrase-file={wanted.ca_passphrase_file}",) if wanted.ca_passphrase_file else ()
    daskpki = ("daskpki", f"--store={wanted.store}", f"--cluster={wanted.cluster}", *sealed)
    if secret_names.trust_id(wanted.cluster) not in observed.secrets:
        usual = [f"{role}" for role, name in missing if name == default_name(role)]
        chosen = (f"--with={','.join(usual)}",) if usual else ()
        yield _made(f"CA of cluster {wanted.cluster} in {wanted.store}", (*daskpki, "init-ca", *chosen))
        missing = [(role, name) for role, name in missing if name != default_name(role)]
    if any(role is Role.WORKER and name != default_name(role) for role, name in missing):
        count = f"--count={wanted.workers}"
        yield _made(f"credentials of {wanted.workers} workers", (*daskpki, "issue", "worker", count))
    for role, name in missing:
        if name == default_name(role):
            yield _made(f"credential {role}/{name}", (*daskpki, "issue", role))


def _made(title: str, command: Command) -> Step:
    return Step(Action.CREATE, Resource(Kind.CREDENTIAL, title, title), {}, (command,), ())


def check_mounted(wanted: Deployment, observed: Observed) -> None:
    """Raise NotFoundError for a secret that workers are to mount and that nobody has set."""
    for mount in wanted.mounts:
        if secret_names.user_secret_id(wanted.cluster, mount.name) not in observed.secrets:
            raise NotFoundError(
                f"cluster {wanted.cluster!r} in {wanted.store} has no secret {mount.name!r} to mount",
                hint=f"daskpki --store={wanted.store} --cluster={wanted.cluster} secret set {mount.name} --file FILE",
            )


def plan_lines(steps: Sequence[Step], *, commands: bool = False) -> Iterator[str]:
    """The plan for people, grants grouped by account; `commands` adds each step's commands and their undoing."""
    if not steps:
        yield "nothing to change"
    grants: dict[tuple[Action, str], list[str]] = {}
    for step in steps:
        if grant := step.resource.grant:
            grants.setdefault((step.action, grant.account), []).append(step.resource.title)
    for step in steps:
        sign, word = _SIGNS[step.action]
        grant = step.resource.grant
        if grant and not commands:
            if titles := grants.pop((step.action, grant.account), None):
                many = f"{len(titles)} grants" if len(titles) > 1 else "grant"
                yield f"{sign} {word}: {many} to {grant.account}"
                yield from (f"    {title}" for title in titles)
            continue
        yield f"{sign} {step.line}"
        yield from (f"    {name}: {a or 'none'} -> {b or 'none'}" for name, (a, b) in step.changes.items())
        if commands:
            yield from (f"    $ {shlex.join(command)}" for command in step.commands)
            yield from (f"    undo: {shlex.join(command)}" for command in step.undo)


def reach(wanted: Deployment) -> Iterator[str]:
    """Describe who can reach which port of the deployed cluster."""
    ranges = ", ".join(wanted.clients_from) or "no client (--clients-from opens it)"
    inside = "" if wanted.single else " and the workers' VMs"
    yield f"port 8786 (scheduler) is open to {ranges}{inside}"
    if wanted.iap:
        yield "ports 22 and 8786 are open through Identity-Aware Proxy to members whom IAM allows"
    if not wanted.single:
        yield "worker and nanny ports are reached by this cluster's VMs alone"
    if wanted.scheduler_account or wanted.worker_account:
        yield "existing service accounts get the secrets only: you grant logging, monitoring and pulling images"
    count = 0 if wanted.private else 1 + wanted.workers
    yield f"VMs with an external address: {count}" + ("" if wanted.private else " (--private gives none)")


def summary(steps: Sequence[Step]) -> str:
    """Count the steps of each kind, in words."""
    counts = {action: sum(step.action is action for step in steps) for action in Action}
    replaced = counts[Action.REPLACE] + counts[Action.ROLL]
    return (
        f"{counts[Action.CREATE]} to create, {counts[Action.UPDATE]} to change in place, {replaced} to replace, "
        f"{counts[Action.DELETE]} to remove"
    )


def plan_document(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The steps as `--json` prints them."""
    return [
        {
            "action": step.action.value,
            "kind": step.resource.kind.value,
            "what": step.resource.title,
            "account": step.resource.grant.account if step.resource.grant else None,
            "changes": {name: {"from": former, "to": wanted} for name, (former, wanted) in step.changes.items()},
            "ends": step.ends,
            "commands": [list(command) for command in step.commands],
            "undo": [list(command) for command in step.undo],
            "files": dict(step.files),
        }
        for step in steps
    ]
