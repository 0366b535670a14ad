"""The RPCs on a secret's IAM policy, each a pure function of catalogue and request."""

from __future__ import annotations

import hashlib

from tests.emulator.conditions import holds
from tests.emulator.iam import ROLES
from tests.emulator.messages import Pb, Policy
from tests.emulator.model import Catalogue, copy_of
from tests.emulator.names import parse_secret
from tests.emulator.status import ApiError, invalid

_MEMBER_KINDS = ("user", "serviceAccount", "group", "domain", "principal", "principalSet", "deleted")


def get_iam_policy(catalogue: Catalogue, request: Pb) -> Pb:
    """A secret's policy; conditions are shown only to those who ask for version 3."""
    policy = copy_of(catalogue.secret(parse_secret(request.resource)).policy)
    if request.options.requested_policy_version < 3:
        _hide_conditions(policy)
    return policy


def set_iam_policy(catalogue: Catalogue, request: Pb) -> Pb:
    """Replace a secret's policy; an etag that is given must be the present one (409 ABORTED)."""
    stored = catalogue.secret(parse_secret(request.resource))
    if request.policy.etag and request.policy.etag != stored.policy.etag:
        raise ApiError(
            "ABORTED",
            "There were concurrent policy changes. Please retry the whole read-modify-write with exponential backoff.",
        )
    _check_policy(request.policy)
    policy = copy_of(request.policy)
    policy.version = 3 if any(binding.condition.expression for binding in policy.bindings) else 1
    policy.etag = hashlib.sha256(catalogue.next_etag().encode()).digest()[:8]
    stored.policy = policy
    return copy_of(policy)


def _check_policy(policy: Policy) -> None:
    for binding in policy.bindings:
        if binding.role not in ROLES and "/roles/" not in binding.role:
            raise invalid(f"Role {binding.role} is not supported for this resource.")
        if binding.condition.expression and policy.version < 3:
            raise invalid("A policy with conditions must have version 3.")
        holds(binding.condition.expression, {"name": "", "type": "", "service": ""})
        for member in binding.members:
            if member not in ("allUsers", "allAuthenticatedUsers") and member.split(":")[0] not in _MEMBER_KINDS:
                raise invalid(f"Invalid argument: member {member} is not of a known type.")


def _hide_conditions(policy: Policy) -> None:
    for binding in policy.bindings:
        if binding.HasField("condition"):
            digest = hashlib.sha256(binding.condition.expression.encode()).hexdigest()[:20]
            binding.role += f"_withcond_{digest}"
            binding.ClearField("condition")
    policy.version = min(policy.version, 1)
