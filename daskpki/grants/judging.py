"""What is wrong with who may read what: rules over the policies of a cluster's secrets. Pure.

Too wide: everybody or a whole domain reads a secret; who holds a credential reads the CA's key; a person reads a
machine's credential; a member reads more credentials than one machine or person has (one scheduler's and one worker's
are a single VM's). Too narrow: a credential that nobody reads; a reader without what says whom to trust. What a policy
leaves open is said, too.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from daskpki import secret_names
from daskpki.identity import Role
from daskpki.settings import GsmUrl
from daskpki.store.gsm.iam import Binding

ACCESSOR: Final = "roles/secretmanager.secretAccessor"
READING: Final = frozenset({ACCESSOR, "roles/secretmanager.admin", "roles/owner"})
"""The predefined roles that let their members read payloads."""

TOO_WIDE: Final = "too wide"
TOO_NARROW: Final = "too narrow"
UNCLEAR: Final = "unclear"

_CREDENTIALS: Final = frozenset(Role)
_MACHINES: Final = (Role.SCHEDULER, Role.WORKER)
_PEOPLE: Final = ("user:", "group:")
_EVERYBODY: Final = ("allUsers", "allAuthenticatedUsers", "domain:", "projectViewer:", "projectEditor:")


class Secret(NamedTuple):
    """A secret of the cluster, by its labels: its kind and name, and the bindings on it."""

    id: str
    kind: str
    name: str
    bindings: Sequence[Binding]

    @property
    def slug(self) -> str:
        """As `daskpki grant` takes it."""
        return f"{self.kind}/{self.name}" if self.name else self.kind

    @property
    def readers(self) -> list[str]:
        """Who may read it, without condition."""
        return sorted({one.member for one in self.bindings if one.role in READING and one.condition is None})


class Place(NamedTuple):
    """Where the cluster is, for commands that mend something and can be run as they are printed."""

    url: GsmUrl
    cluster: str

    def grant(self, target: str, member: str, *options: str) -> str:
        """The command of ours that gives the member the target, or with `--revoke` takes it."""
        words = ["daskpki", "--store", str(self.url), "--cluster", self.cluster, "grant", target, "--to", member]
        return shlex.join([*words, *options])

    def unbind(self, secret: str, binding: Binding) -> str:
        """Google's command that takes away a role which `daskpki grant` never gives."""
        location = [f"--location={self.url.location}"] if self.url.location else []
        words = ["gcloud", "secrets", "remove-iam-policy-binding", secret, f"--project={self.url.project}", *location]
        return shlex.join([*words, f"--member={binding.member}", f"--role={binding.role}"])


class Finding(NamedTuple):
    """What is wrong with one secret, why, and the command that mends it (None where a decision is needed first)."""

    severity: str
    secret: str
    member: str | None
    reason: str
    mend: str | None = None


def judge(secrets: Sequence[Secret], place: Place) -> list[Finding]:
    """Everything that is wrong, what is too wide first."""
    found = [*_wide(secrets, place), *_several(secrets, place), *_narrow(secrets, place), *_unclear(secrets)]
    order = (TOO_WIDE, TOO_NARROW, UNCLEAR)
    return sorted(found, key=lambda finding: (order.index(finding.severity), finding.secret, finding.member or ""))


def _wide(secrets: Iterable[Secret], place: Place) -> Iterator[Finding]:
    """What is wrong with one grant, seen alone."""
    holders = {member for one in secrets if one.kind in _CREDENTIALS for member in one.readers}
    for secret in secrets:
        for member in secret.readers:
            if member.startswith(_EVERYBODY):
                yield Finding(
                    TOO_WIDE,
                    secret.id,
                    member,
                    "everybody, or a whole domain, reads it",
                    _removal(secret, member, place),
                )
            elif secret.kind in (secret_names.CA_KEY, secret_names.RECORDS) and member in holders:
                why = "who holds a credential also reads what only operators and issuers need"
                yield Finding(TOO_WIDE, secret.id, member, why, _removal(secret, member, place))
            elif secret.kind in _MACHINES and member.startswith(_PEOPLE):
                yield Finding(
                    TOO_WIDE, secret.id, member, "a person reads a machine's key", _removal(secret, member, place)
                )


def _several(secrets: Iterable[Secret], place: Place) -> Iterator[Finding]:
    """Members that read more credentials than one machine or person has."""
    for member, read in _by_member(secrets).items():
        kinds = [secret.kind for secret in read]
        if len(kinds) == 1 or sorted(kinds) == [Role.SCHEDULER, Role.WORKER]:
            continue
        for secret in read:
            others = ", ".join(one.slug for one in read if one is not secret)
            yield Finding(TOO_WIDE, secret.id, member, f"it reads {others} as well", _removal(secret, member, place))


def _by_member(secrets: Iterable[Secret]) -> Mapping[str, list[Secret]]:
    read: dict[str, list[Secret]] = {}
    for secret in secrets:
        if secret.kind in _CREDENTIALS:
            for member in secret.readers:
                if not member.startswith(_EVERYBODY):
                    read.setdefault(member, []).append(secret)
    return read


def _narrow(secrets: Sequence[Secret], place: Place) -> Iterator[Finding]:
    trusting = {member for secret in secrets if secret.kind == secret_names.TRUST for member in secret.readers}
    for secret in secrets:
        if secret.kind not in _CREDENTIALS:
            continue
        if not any(one.role in READING for one in secret.bindings):
            mend = place.grant(secret.slug, "MEMBER")
            yield Finding(TOO_NARROW, secret.id, None, "nobody was granted to read it", mend)
        for member in secret.readers:
            if member not in trusting:
                why = f"it does not read {secret_names.TRUST}"
                yield Finding(TOO_NARROW, secret.id, member, why, place.grant(secret.slug, member))


def _unclear(secrets: Iterable[Secret]) -> Iterator[Finding]:
    for secret in secrets:
        for one in secret.bindings:
            if one.condition is not None and one.role in READING:
                yield Finding(UNCLEAR, secret.id, one.member, f"it reads under the condition {one.condition}")
            elif "/roles/" in one.role:
                yield Finding(UNCLEAR, secret.id, one.member, f"the custom role {one.role} may let it read")


def _removal(secret: Secret, member: str, place: Place) -> str:
    """What takes the right away: `daskpki grant` for what it gives itself, gcloud for a role that it never gives."""
    held = [one for one in secret.bindings if one.member == member and one.role in READING and one.condition is None]
    for binding in held:
        if binding.role != ACCESSOR:
            return place.unbind(secret.id, binding)
    return place.grant(secret.slug, member, "--revoke")
