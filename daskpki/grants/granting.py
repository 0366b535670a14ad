"""Giving, taking and listing grants on the secrets of one cluster in Secret Manager."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from daskpki import secret_names
from daskpki.errors import NotFoundError, UsageError
from daskpki.grants.judging import ACCESSOR, READING, TOO_WIDE, Finding, Place, Secret, judge
from daskpki.grants.targets import Target
from daskpki.identity import Role
from daskpki.settings import GsmUrl, LocalUrl
from daskpki.store.gsm.store import GsmStore
from daskpki.store.limits import check_ours

UNSEEN: Final = "grants on the project, its folders and its organisation, which apply to every secret below them"
_READ: Final = "secretmanager.versions.access"


class Change(NamedTuple):
    """What happened to one secret's policy."""

    secret: str
    changed: bool


def check_applies(url: GsmUrl | LocalUrl) -> GsmUrl:
    """The place of the grants; UsageError for a store that has none."""
    if isinstance(url, LocalUrl):
        raise UsageError(
            f"grants do not apply to {url}: a local store has no IAM, whoever opens it opens all of it",
            hint="--store gsm://PROJECT",
        )
    return url


class Grants:
    """The grants of one cluster."""

    def __init__(self, store: GsmStore, cluster: str) -> None:
        self._secrets = store.secrets
        self._policies = store.policies
        self._cluster = cluster
        self._place = Place(store.place, cluster)

    def give(self, target: Target, member: str) -> Sequence[Change]:
        """Let the member read all of the target; NotFoundError before any change when there is no such secret."""
        self._check(target)
        return [Change(secret, self._policies.grant(secret, ACCESSOR, member)) for secret in target.secrets]

    def take(self, target: Target, member: str) -> Sequence[Change]:
        """Let the member read it no more; what is shared only stays for one who reads another credential."""
        self._check(target)
        own = [Change(target.own, self._policies.withdraw(target.own, ACCESSOR, member))] if target.own else []
        if target.own and self._reads_another(target, member):
            return own
        return [*own, *(Change(one, self._policies.withdraw(one, ACCESSOR, member)) for one in target.shared)]

    def of(self, target: Target | None = None) -> list[Secret]:
        """The secrets of the target, or of the whole cluster, with who may do what."""
        chosen = None if target is None else set(target.secrets)
        return [
            Secret(
                info.id, info.labels["daskpki-kind"], info.labels.get("daskpki-name", ""), self._policies.read(info.id)
            )
            for info in self._secrets.select({"daskpki-cluster": self._cluster})
            if chosen is None or info.id in chosen
        ]

    def check(self) -> list[Finding]:
        """What is too wide or too narrow in the cluster; also whether the caller reads what only nodes should."""
        secrets = self.of()
        return [*judge(secrets, self._place), *self._own_reach(secrets)]

    def _own_reach(self, secrets: Sequence[Secret]) -> list[Finding]:
        """Grants further up are not seen, but their effect on the caller is."""
        granted = [one for one in secrets if one.kind in (Role.SCHEDULER, Role.WORKER) and self._reads_itself(one)]
        why = "you read it, though an operator needs to add credentials only (perhaps by a grant on the project)"
        return [Finding(TOO_WIDE, one.id, None, why) for one in granted]

    def _reads_itself(self, secret: Secret) -> bool:
        return bool(self._policies.permitted(secret.id, [_READ]))

    def _check(self, target: Target) -> None:
        """Every secret exists and is daskpki's."""
        for secret in target.secrets:
            try:
                check_ours(secret, self._secrets.describe(secret).labels)
            except NotFoundError as error:
                raise NotFoundError(str(error), hint=self._way_out(target, secret)) from error

    def _way_out(self, target: Target, secret: str) -> str:
        """The command that makes what is missing, which without a CA is no credential."""
        role, _, name = target.name.partition("/")
        if role == secret_names.SECRET and secret == target.own:
            return f"daskpki secret set {name}"
        if role in tuple(Role) and secret == target.own:
            return f"daskpki issue {role} --name {name}"
        if role == secret_names.CA_KEY:
            return "daskpki doctor names the CA's generations"
        return f"daskpki --cluster {self._cluster} init-ca makes it"

    def _reads_another(self, target: Target, member: str) -> bool:
        return any(one.kind in tuple(Role) and one.id != target.own and _reads(one, member) for one in self.of())


def _reads(secret: Secret, member: str) -> bool:
    return any(one.member == member and one.role in READING for one in secret.bindings)
