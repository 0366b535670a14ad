"""IAM policies of secrets: read, changed under their etag, and asked what the caller itself may do.

A policy is changed by reading it, editing it and setting it with the etag that was read. When somebody else was first,
or the answer was lost, it is read and edited again: an edit that finds its work done sets nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from daskpki.errors import ConflictError, UnavailableError
from daskpki.store.gsm.api import GsmApi, RetryPolicy

_WITH_CONDITIONS: Final = 3  # the policy version that shows conditions, and that keeps them when it is set


class Binding(NamedTuple):
    """One member has one role on a secret, under a condition (a CEL expression, None for always)."""

    role: str
    member: str
    condition: str | None = None


class GsmPolicies:
    """The policies of the secrets at one place."""

    def __init__(self, api: GsmApi, patience: RetryPolicy) -> None:
        self._api = api
        self._patience = patience

    def read(self, secret: str) -> tuple[Binding, ...]:
        """Every binding on the secret itself, sorted; NotFoundError, AccessDeniedError."""
        policy = self._get(secret)
        return tuple(
            sorted(
                Binding(binding.role, member, binding.condition.expression or None)
                for binding in policy.bindings
                for member in binding.members
            )
        )

    def grant(self, secret: str, role: str, member: str) -> bool:
        """Give the member the role, always; whether that changed anything. ConflictError after many lost races."""
        return self._change(secret, role, member, present=True)

    def withdraw(self, secret: str, role: str, member: str) -> bool:
        """Take the role from the member, under whichever condition; whether that changed anything."""
        return self._change(secret, role, member, present=False)

    def permitted(self, secret: str, permissions: Iterable[str]) -> frozenset[str]:
        """Those of the permissions that the caller has on the secret, by whatever policy."""
        request = {"resource": self._name(secret), "permissions": list(permissions)}
        return frozenset(self._api.call("test_iam_permissions", request, secret).permissions)

    def _change(self, secret: str, role: str, member: str, *, present: bool) -> bool:
        lost: Exception | None = None
        for _ in self._patience.attempts():
            policy = self._get(secret)
            edit = _add if present else _remove
            if not edit(policy, role, member):
                return lost is not None
            policy.version = _WITH_CONDITIONS
            try:
                request = {"resource": self._name(secret), "policy": policy}
                self._api.call("set_iam_policy", request, f"the policy of {secret}", patient=False)
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
    """Add the member to the role's unconditional binding; whether it was not there."""
    for binding in policy.bindings:
        if binding.role == role and not binding.condition.expression:
            if member in binding.members:
                return False
            binding.members.append(member)
            return True
    policy.bindings.add(role=role, members=[member])
    return True


def _remove(policy: Any, role: str, member: str) -> bool:
    """Remove the member from all bindings of the role, and the bindings that are then empty."""
    found = False
    for binding in policy.bindings:
        if binding.role == role and member in binding.members:
            binding.members.remove(member)
            found = True
    kept = [binding for binding in policy.bindings if binding.members]
    del policy.bindings[:]
    policy.bindings.extend(kept)
    return found
