"""Who may do what: roles, grants on projects and on secrets, and their conditions.

Grants on a secret are kept with the secret (`rpc_policies.py`); grants on a project are kept here. IAM cannot bind
to a version, so a version's grants are its secret's and its project's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from tests.emulator.conditions import holds
from tests.emulator.messages import Binding
from tests.emulator.names import Parent, SecretName, project_number
from tests.emulator.status import SERVICE, permission_denied

_SECRETS = "secretmanager.secrets."
_VERSIONS = "secretmanager.versions."
_READ_METADATA = {
    _SECRETS + "get",
    _SECRETS + "getIamPolicy",
    _SECRETS + "list",
    _VERSIONS + "get",
    _VERSIONS + "list",
}
_MANAGE_VERSIONS = {_VERSIONS + verb for verb in ("add", "destroy", "disable", "enable", "get", "list")}
_EVERYTHING = {
    *_READ_METADATA,
    *_MANAGE_VERSIONS,
    _VERSIONS + "access",
    *(_SECRETS + verb for verb in ("create", "delete", "setIamPolicy", "update")),
}

ROLES: dict[str, frozenset[str]] = {
    "roles/owner": frozenset(_EVERYTHING),
    "roles/secretmanager.admin": frozenset(_EVERYTHING),
    "roles/secretmanager.secretAccessor": frozenset({_VERSIONS + "access"}),
    "roles/secretmanager.secretVersionAdder": frozenset({_VERSIONS + "add"}),
    "roles/secretmanager.secretVersionManager": frozenset(_MANAGE_VERSIONS),
    "roles/secretmanager.viewer": frozenset(_READ_METADATA),
}


class Iam:
    """Grants on projects and the decision; thread-safe."""

    def __init__(self, *, enforced: bool) -> None:
        self.enforced = enforced
        self._roles = dict(ROLES)
        self._projects: dict[str, list[Binding]] = {}
        self._lock = threading.Lock()

    def grant(self, project: str, role: str, *members: str, condition: str = "") -> None:
        """Bind members to a role on a project, and enforce IAM from now on.

        Args:
            project: Its id or number.
            role: One of `ROLES`, or one of `define_role`.
            members: Such as `user:alice@example.com` or `serviceAccount:...`.
            condition: A CEL expression on `resource.name`, see `conditions.py`.
        """
        if role not in self._roles:
            raise ValueError(f"role {role!r} is none of {sorted(self._roles)}; define_role adds others")
        binding = Binding(role=role, members=members)
        if condition:
            holds(condition, _resource(""))
            binding.condition.expression = condition
        with self._lock:
            self.enforced = True
            self._projects.setdefault(project_number(project), []).append(binding)

    def grant_prefix(self, project: str, role: str, *members: str, prefix: str, location: str | None = None) -> None:
        """Bind on a project, for the global secrets, or those of a location, whose id begins with `prefix`."""
        name = SecretName(Parent(project, location), prefix)
        self.grant(project, role, *members, condition=f'resource.name.startsWith("{name}")')

    def withdraw(self, project: str, role: str, *members: str) -> None:
        """Remove members from all of a project's bindings of a role."""
        with self._lock:
            for binding in self._projects.get(project_number(project), []):
                if binding.role == role:
                    kept = [member for member in binding.members if member not in members]
                    del binding.members[:]
                    binding.members.extend(kept)

    def define_role(self, name: str, permissions: Iterable[str]) -> None:
        """Make a custom role known."""
        self._roles[name] = frozenset(permissions)

    def allows(self, principal: str, permission: str, name: str, secret_bindings: Sequence[Binding]) -> bool:
        """Whether any binding grants a permission on a resource.

        Args:
            principal: The caller, as an IAM member.
            permission: Such as `secretmanager.versions.access`.
            name: The resource's canonical name.
            secret_bindings: Those of the secret that it is or belongs to; none for a project.
        """
        if not self.enforced:
            return True
        with self._lock:
            bindings = [*secret_bindings, *self._projects.get(name.split("/")[1], [])]
            return any(self._grants(binding, principal, permission, name) for binding in bindings)

    def check(self, principal: str, permission: str, name: str, asked: str, secret_bindings: Sequence[Binding]) -> None:
        """Raise PERMISSION_DENIED, naming the resource as it was asked for, unless the permission is granted."""
        if not self.allows(principal, permission, name, secret_bindings):
            raise permission_denied(permission, asked)

    def _grants(self, binding: Binding, principal: str, permission: str, name: str) -> bool:
        members = {principal, "allUsers", "allAuthenticatedUsers"}
        return (
            permission in self._roles.get(binding.role, ())
            and not members.isdisjoint(binding.members)
            and holds(binding.condition.expression, _resource(name))
        )


def _resource(name: str) -> dict[str, str]:
    kind = "SecretVersion" if "/versions/" in name else "Secret"
    if "/secrets/" not in name:
        return {"name": name, "type": "cloudresourcemanager.googleapis.com/Project", "service": SERVICE}
    return {"name": name, "type": f"{SERVICE}/{kind}", "service": SERVICE}
