"""IAM policies of secrets: reads them, changes them under their etag, and tests the caller's own permissions.

A policy is changed by reading it, editing it and setting it with the etag that was read. If somebody else was first, or
the reply was lost, it is read and edited again; an edit that finds its work done sets nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, NamedTuple

from daskpki.errors import ConflictError, UnavailableError
from daskpki.store.gsm.api import GsmApi, RetryPolicy

_WITH_CONDITIONS: Final = 3  # the policy version that shows conditions, and that keeps them when it is set


class Binding(NamedTuple):
    """One member's role on a secret, under a condition (a CEL expression; None for no condition)."""

    role: str
    member: str
    condition: str | None = None


class GsmPolicies:
    """The policies of the secrets in one project or location."""

    def __init__(self, api: GsmApi, policy: RetryPolicy) -> None:
        self._api = api
        self._policy = policy

    def read(self, secret: str) -> tuple[Binding, ...]:
        """Return every binding on the secret itself, sorted; NotFoundError, AccessDeniedError."""
        policy = self._get(secret)
        return tuple(
            sorted(
                Binding(binding.role, member, binding.condition.expression or None)
                for binding in policy.bindings
                for member in binding.members
            )
        )

    def grant(self, secret: str, role: str, member: str) -> bool:
        """Give the member the role, without a condition; return whether that changed anything. ConflictError."""
        return self._change(secret, partial(_add, role=role, member=member))

    def withdraw(self, secret: str, role: str, member: str) -> bool:
        """Take the role from the member, under whichever condition; return whether that changed anything."""
        return self._change(secret, partial(_remove, role=role, member=member))

    def permitted(self, secret: str, permissions: Iterable[str]) -> frozenset[str]:
        """Return those of the permissions that the caller has on the secret, by whatever policy."""
        request = {"resource": self._name(secret), "permissions": list(permissions)}
        return frozenset(self._api.call("test_iam_permissions", request, secret).permissions)

    def _change(self, secret: str, edit: Callable[[Any], bool]) -> bool:
        lost: Exception | None = None
        for _ in self._policy.attempts():
            policy = self._get(secret)
            if not edit(policy):
                return lost is not None
            policy.version = _WITH_CONDITIONS
            try:
                request = {"resource": self._name(secret), "policy": policy}
                self._api.call("set_iam_policy", request, f"the policy of {secret}", retried=False)
            except (ConflictError, UnavailableError) as error:  # another was first, or the answer was lost
                lost = error
            else:
                return True
        raise ConflictError(
            f"the policy of {secret} was changed by others each time", hint="run the command again"
        ) from lost

    def _get(self, secret: str) -> Any:
        options = {"requested_policy_version": _WITH_CONDITIONS}
        return self._api.call("get_iam_policy", {"resource": self._name(secret), "options": options}, secret)

    def _name(self, secret: str) -> str:
        return f"{self._api.url.parent}/secrets/{secret}"


def _add(policy: Any, role: str, member: str) -> bool:
    """Add the member to the role's unconditional binding; return whether it was not there."""
    for binding in policy.bindings:
        if binding.role == role and not binding.condition.expression:
            if member in binding.members:
                return False
            binding.members.append(member)
            return True
    policy.bindings.add(role=role, members=[member])
    return True


def _remove(policy: Any, role: str, member: str) -> bool:
    """Remove the member from all bindings of the role, and then empty bindings; return whether it was there."""
    found = False
    for binding in policy.bindings:
        if binding.role == role and member in binding.members:
            binding.members.remove(member)
            found = True
    kept = [binding for binding in policy.bindings if binding.members]
    del policy.bindings[:]
    policy.bindings.extend(kept)
    return found
