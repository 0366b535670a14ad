"""Carry a cluster's grants over to its copy in another place of Secret Manager.

Only what `daskpki grant` gives is carried: the right to read one secret, without a condition, to a member that it would
give it to. Whatever else a policy says (a role of another kind, a condition, everybody) was somebody's own decision
about that place; it is told and not carried. Grants of the target's own stay.
"""

from __future__ import annotations

from typing import NamedTuple

from daskpki.errors import CorruptError, DaskpkiError
from daskpki.grants.granting import Grants
from daskpki.grants.judging import ACCESSOR
from daskpki.grants.targets import parse_member
from daskpki.store.gsm.iam import Binding
from daskpki.store.gsm.store import GsmStore


class Grant(NamedTuple):
    """A binding on a secret."""

    secret: str
    binding: Binding


class Carried(NamedTuple):
    """What the target's policies hold now, verified, and what was left behind."""

    carried: tuple[Grant, ...]
    left: tuple[Grant, ...]


def carry_grants(source: GsmStore, target: GsmStore, cluster: str) -> Carried:
    """Give in the target what the source gives, and read it again; the secrets have to be there.

    Raises:
        NotFoundError: the target lacks one of the secrets.
        AccessDeniedError: the caller may not read the source's policies, or not set the target's.
        CorruptError: a grant that was given is not in the target's policy.
    """
    found = [Grant(one.id, binding) for one in Grants(source, cluster).of() for binding in one.bindings]
    carried = tuple(grant for grant in found if is_carried(grant.binding))
    for secret, binding in carried:
        target.policies.grant(secret, binding.role, binding.member)
    for secret, binding in carried:
        if binding not in target.policies.read(secret):
            raise CorruptError(f"{binding.member} was let read {secret} in {target.url}, and its policy lacks that")
    return Carried(carried, tuple(grant for grant in found if grant not in carried))


def is_carried(binding: Binding) -> bool:
    """Whether `daskpki grant` would give just that."""
    try:
        parse_member(binding.member)
    except DaskpkiError:
        return False
    return binding.role == ACCESSOR and binding.condition is None
