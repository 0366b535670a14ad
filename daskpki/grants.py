"""Read access to a cluster's secrets (IAM): grants it, and finds grants that are too wide or too narrow.

Too wide: everybody or a whole domain reads a secret; a reader of a credential reads the CA's key; a person reads a
machine's credential; a member reads more credentials than one machine or person has (a single VM has one scheduler's
and one worker's). Too narrow: a credential without a reader; a reader without the trust document. Conditions and custom
roles, whose effect is unknown here, are reported as well. Rules and targets are pure; `Grants` reads and changes the
policies of a store on Secret Manager, `carry_grants` repeats them for a copied cluster. A local store has no grants.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from daskpki import secret_names
from daskpki.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    CorruptError,
    DaskpkiError,
    NotFoundError,
    PolicyError,
    UsageError,
)
from daskpki.identity import Role, parse_label, parse_slug
from daskpki.settings import GsmUrl, StoreUrl
from daskpki.store.gsm.iam import Binding
from daskpki.store.gsm.store import GsmStore

ACCESSOR: Final = "roles/secretmanager.secretAccessor"
READING: Final = frozenset({ACCESSOR, "roles/secretmanager.admin", "roles/owner"})
"""The predefined roles that let their members read payloads."""

OPERATOR_ROLE: Final = "daskpkiOperator"
OPERATOR_ROLE_TITLE: Final = "daskpki operator: administers secrets, reads no payload"
OPERATOR_PERMISSIONS: Final = (
    "secretmanager.locations.get",
    "secretmanager.locations.list",
    "secretmanager.secrets.create",
    "secretmanager.secrets.delete",
    "secretmanager.secrets.get",
    "secretmanager.secrets.getIamPolicy",
    "secretmanager.secrets.list",
    "secretmanager.secrets.update",
    "secretmanager.versions.add",
    "secretmanager.versions.destroy",
    "secretmanager.versions.disable",
    "secretmanager.versions.enable",
    "secretmanager.versions.get",
    "secretmanager.versions.list",
)
"""Permissions of operators in the project: `roles/secretmanager.admin` less reading payloads and setting policies."""

GRANTER_ROLE: Final = "daskpkiGranter"
"""The role for `daskpki grant` (docs/deploy/granter-role.yaml). A member that may set a policy can let itself read."""

UNSEEN: Final = "grants on the project, its folders and its organisation, which apply to every secret below them"
TOO_WIDE: Final = "too wide"
TOO_NARROW: Final = "too narrow"
UNCLEAR: Final = "unclear"

_READ: Final = "secretmanager.versions.access"
_CREDENTIALS: Final = frozenset(Role)
_MACHINES: Final = (Role.SCHEDULER, Role.WORKER)
_PEOPLE: Final = ("user:", "group:")
_EVERYBODY: Final = ("allUsers", "allAuthenticatedUsers", "domain:", "projectViewer:", "projectEditor:")
# Roles of these names are assumed to be ours; IAM itself tells whether they let the caller read.
_PUBLISHED: Final = (f"/roles/{OPERATOR_ROLE}", f"/roles/{GRANTER_ROLE}")
_MEMBER: Final = re.compile(
    r"(user|serviceAccount|group):[^\s@:]+@[a-z0-9.-]+\Z|(principal|principalSet)://iam\.googleapis\.com/\S+\Z"
)


class GrantTarget(NamedTuple):
    """Secrets to grant: `own` are the target's (none for trust alone), `shared` are others that its reader needs."""

    name: str
    own: tuple[str, ...]
    shared: tuple[str, ...]

    @property
    def secrets(self) -> tuple[str, ...]:
        """All secrets, shared ones first."""
        return (*self.shared, *self.own)


def parse_grant_target(text: str, cluster: str) -> GrantTarget:
    """Parse ROLE[/NAME], secret/NAME, trust, records (both logs) or cakey/GENERATION; UsageError."""
    shared = (secret_names.trust_id(cluster),)
    if text == secret_names.TRUST:
        return GrantTarget(text, (), shared)
    if text == secret_names.RECORDS:
        return GrantTarget(text, (secret_names.records_id(cluster), secret_names.events_id(cluster)), ())
    kind, slash, name = text.partition("/")
    if kind == secret_names.CA_KEY and re.fullmatch("[1-9][0-9]{0,8}", name):
        return GrantTarget(text, (secret_names.ca_key_id(cluster, int(name)),), ())
    if kind == secret_names.SECRET and slash:
        return GrantTarget(text, (secret_names.user_secret_id(cluster, parse_label(name, "name")),), ())
    role, name = parse_slug(text)
    return GrantTarget(f"{role}/{name}", (secret_names.credential_id(cluster, role, name),), shared)


def parse_member(text: str, *, revoke: bool = False) -> str:
    """Parse an IAM member; UsageError for another form. PolicyError for everybody or a domain, unless to `revoke`."""
    if text in ("allUsers", "allAuthenticatedUsers") or text.startswith("domain:"):
        if revoke:
            return text
        raise PolicyError(f"{text} is too wide: secrets are granted to single members", hint="name the member")
    if not _MEMBER.match(text):
        raise UsageError(
            f"{text!r} is not a member",
            hint="serviceAccount:NAME@PROJECT.iam.gserviceaccount.com, user:MAIL, group:MAIL",
        )
    return text


class Secret(NamedTuple):
    """A secret of the cluster: its kind and name by its id, and the bindings on it."""

    id: str
    kind: str
    name: str
    bindings: Sequence[Binding]

    @property
    def slug(self) -> str:
        """The target as `daskpki grant` takes it."""
        return f"{self.kind}/{self.name}" if self.name else self.kind

    @property
    def readers(self) -> list[str]:
        """Members that may read it without a condition."""
        return sorted({one.member for one in self.bindings if one.role in READING and one.condition is None})


class GrantCommands(NamedTuple):
    """Store and cluster, for the suggested commands."""

    url: GsmUrl
    cluster: str

    def grant(self, target: str, member: str, *options: str) -> str:
        """The `daskpki grant` command for the member and target, with these options."""
        words = ["daskpki", "--store", str(self.url), "--cluster", self.cluster, "grant", target, "--to", member]
        return shlex.join([*words, *options])

    def narrow(self) -> str:
        """Google's command that removes a too wide role from MEMBER, an operator."""
        words = ["gcloud", "projects", "remove-iam-policy-binding", self.url.project, "--member=MEMBER"]
        return shlex.join([*words, "--role=roles/secretmanager.admin"])

    def unbind(self, secret: str, binding: Binding) -> str:
        """Google's command that removes a role which `daskpki grant` never gives."""
        location = [f"--location={self.url.location}"] if self.url.location else []
        words = ["gcloud", "secrets", "remove-iam-policy-binding", secret, f"--project={self.url.project}", *location]
        return shlex.join([*words, f"--member={binding.member}", f"--role={binding.role}"])


class GrantFinding(NamedTuple):
    """A problem of one secret, its reason, and the command that fixes it (None if a decision is needed first)."""

    severity: str
    secret: str
    member: str | None
    reason: str
    mend: str | None = None


def judge(secrets: Sequence[Secret], place: GrantCommands) -> list[GrantFinding]:
    """Return all findings, too wide ones first."""
    found = [*_wide(secrets, place), *_several(secrets, place), *_narrow(secrets, place), *_unclear(secrets)]
    order = (TOO_WIDE, TOO_NARROW, UNCLEAR)
    return sorted(found, key=lambda finding: (order.index(finding.severity), finding.secret, finding.member or ""))


def _wide(secrets: Iterable[Secret], place: GrantCommands) -> Iterator[GrantFinding]:
    """Find problems of single grants."""
    holders = {member for one in secrets if one.kind in _CREDENTIALS for member in one.readers}
    for secret in secrets:
        for member in secret.readers:
            if member.startswith(_EVERYBODY):
                yield _too_wide(secret, member, "everybody, or a whole domain, reads it", place)
            elif secret.kind in (secret_names.CA_KEY, secret_names.RECORDS) and member in holders:
                why = "a reader of a credential also reads a secret that only operators and issuers need"
                yield _too_wide(secret, member, why, place)
            elif secret.kind in _MACHINES and member.startswith(_PEOPLE):
                yield _too_wide(secret, member, "a person reads a machine's key", place)


def _several(secrets: Iterable[Secret], place: GrantCommands) -> Iterator[GrantFinding]:
    """Find members that read more credentials than one machine or person has."""
    readable: dict[str, list[Secret]] = {}
    for secret in secrets:
        for member in secret.readers if secret.kind in _CREDENTIALS else ():
            if not member.startswith(_EVERYBODY):
                readable.setdefault(member, []).append(secret)
    for member, read in readable.items():
        kinds = [secret.kind for secret in read]
        if len(kinds) == 1 or sorted(kinds) == [Role.SCHEDULER, Role.WORKER]:
            continue
        for secret in read:
            others = ", ".join(one.slug for one in read if one is not secret)
            yield _too_wide(secret, member, f"it reads {others} as well", place)


def _too_wide(secret: Secret, member: str, reason: str, place: GrantCommands) -> GrantFinding:
    """Make a finding; `daskpki grant` removes access that it gave, gcloud that by roles which it never gives."""
    ours = {ACCESSOR} if secret.kind in secret_names.KINDS else set()
    for one in secret.bindings:
        if one.member == member and one.role in READING - ours and one.condition is None:
            return GrantFinding(TOO_WIDE, secret.id, member, reason, place.unbind(secret.id, one))
    return GrantFinding(TOO_WIDE, secret.id, member, reason, place.grant(secret.slug, member, "--revoke"))


def _narrow(secrets: Sequence[Secret], place: GrantCommands) -> Iterator[GrantFinding]:
    trusting = {member for secret in secrets if secret.kind == secret_names.TRUST for member in secret.readers}
    for secret in secrets:
        if secret.kind not in _CREDENTIALS:
            continue
        if not any(one.role in READING for one in secret.bindings):
            mend = place.grant(secret.slug, "MEMBER")
            yield GrantFinding(TOO_NARROW, secret.id, None, "nobody may read it", mend)
        for member in secret.readers:
            if member not in trusting:
                why = "it cannot read the trust document"
                yield GrantFinding(TOO_NARROW, secret.id, member, why, place.grant(secret.slug, member))


def _unclear(secrets: Iterable[Secret]) -> Iterator[GrantFinding]:
    for secret in secrets:
        if secret.kind not in secret_names.KINDS:
            yield GrantFinding(UNCLEAR, secret.id, None, "its id has no known kind, so its grants were not judged")
        for one in secret.bindings:
            if one.condition is not None and one.role in READING:
                yield GrantFinding(UNCLEAR, secret.id, one.member, f"it reads under the condition {one.condition}")
            elif "/roles/" in one.role and not one.role.endswith(_PUBLISHED):
                yield GrantFinding(UNCLEAR, secret.id, one.member, f"the custom role {one.role} may let it read")


def check_applies(url: StoreUrl) -> GsmUrl:
    """Return the URL of a store with grants; UsageError for a store without them."""
    if not isinstance(url, GsmUrl):
        raise UsageError(
            f"{url} has no grants; only Secret Manager has them: everyone who unlocks a local store can read all of it",
            hint="--store gsm://PROJECT",
        )
    return url


class Grants:
    """The grants of one cluster."""

    def __init__(self, store: GsmStore, cluster: str) -> None:
        self._secrets = store.secrets
        self._policies = store.policies
        self._cluster = cluster
        self._place = GrantCommands(store.place, cluster)

    def give(self, target: GrantTarget, member: str) -> dict[str, bool]:
        """Let the member read the whole target; return by secret whether that changed its policy.

        NotFoundError before any change if a secret is missing.
        """
        secrets = self._present(target)
        if len(secrets) < len(target.secrets):
            self.make_events()
            secrets = self._present(target)
        return {secret: self._policies.grant(secret, ACCESSOR, member) for secret in secrets}

    def take(self, target: GrantTarget, member: str) -> dict[str, bool]:
        """Remove the member's access; return by secret whether that changed its policy.

        Shared secrets stay readable for a member that reads another credential.
        """
        others = [one for one in self.of() if one.id not in target.own] if target.own else []
        bound = [binding for one in others if one.kind in _CREDENTIALS for binding in one.bindings]
        reads_another = any(binding.member == member and binding.role in READING for binding in bound)
        shared = () if reads_another else target.shared
        return {
            secret: self._policies.withdraw(secret, ACCESSOR, member)
            for secret in sorted(self._present(target), key=lambda secret: secret in target.shared)
            if secret in (*target.own, *shared)
        }

    def make_events(self) -> None:
        """Create the log of user secrets, empty, before the first `secret set`, so that its readers can be granted.

        An account with the granter role may not create secrets; it has to grant again once the log exists.
        """
        labels = secret_names.labels(self._cluster, secret_names.EVENTS)
        with suppress(AlreadyExistsError, AccessDeniedError):
            self._secrets.create(secret_names.events_id(self._cluster), labels=labels)

    def of(self, target: GrantTarget | None = None) -> list[Secret]:
        """List the secrets of the target, or of the whole cluster, with their bindings."""
        chosen = None if target is None else set(target.secrets)
        return [
            Secret(info.id, *secret_names.kind_and_name(self._cluster, info.id), self._policies.read(info.id))
            for info in self._secrets.select({"daskpki-cluster": self._cluster})
            if chosen is None or info.id in chosen
        ]

    def check(self) -> list[GrantFinding]:
        """Return all findings of the cluster, and those secrets of nodes that the caller can read."""
        secrets = self.of()
        return [*judge(secrets, self._place), *self._own_reach(secrets)]

    def _own_reach(self, secrets: Sequence[Secret]) -> list[GrantFinding]:
        """Find secrets of nodes that the caller can read: grants further up are not visible, but their effect is."""
        granted = [one for one in secrets if one.kind in _MACHINES and self._policies.permitted(one.id, [_READ])]
        why = (
            "you can read it, perhaps by roles/secretmanager.admin on the project; to add credentials, "
            f"projects/{self._place.url.project}/roles/{OPERATOR_ROLE} is enough"
        )
        return [GrantFinding(TOO_WIDE, one.id, None, why, self._place.narrow()) for one in granted]

    def _present(self, target: GrantTarget) -> list[str]:
        """List the target's secrets; raises unless each exists and is ours. The log of user secrets may be missing."""
        present = []
        for secret in target.secrets:
            try:
                secret_names.check_ours(secret, self._secrets.describe(secret).labels)
            except NotFoundError as error:
                if secret == secret_names.events_id(self._cluster):
                    continue
                raise NotFoundError(str(error), hint=self._way_out(target, secret)) from error
            present.append(secret)
        return present

    def _way_out(self, target: GrantTarget, secret: str) -> str:
        """The command that creates the missing secret."""
        role, _, name = target.name.partition("/")
        if role == secret_names.SECRET and secret in target.own:
            return f"daskpki secret set {name}"
        if role in tuple(Role) and secret in target.own:
            return f"daskpki issue {role} --name {name}"
        if role == secret_names.CA_KEY:
            return "daskpki doctor names the CA's generations"
        return "daskpki init-ca makes it"


SecretGrant = tuple[str, Binding]
"""A secret, and a binding on it."""


def carry_grants(source: GsmStore, target: GsmStore, cluster: str) -> tuple[list[SecretGrant], list[SecretGrant]]:
    """Repeat the source's grants in the target, and verify them; the secrets must exist.

    Returns the grants that are now in the target's policies, and those that were not copied.

    Raises:
        NotFoundError: the target lacks one of the secrets.
        AccessDeniedError: the caller may not read the source's policies, or not set the target's.
        CorruptError: a new grant is missing in the target's policy.
    """
    found = [(one.id, binding) for one in Grants(source, cluster).of() for binding in one.bindings]
    carried = [grant for grant in found if is_carried(grant[1])]
    if any(secret == secret_names.events_id(cluster) for secret, _ in carried):
        Grants(target, cluster).make_events()
    for secret, binding in carried:
        target.policies.grant(secret, binding.role, binding.member)
    for secret, binding in carried:
        if binding not in target.policies.read(secret):
            raise CorruptError(f"{binding.member} was granted {secret} in {target.url}, but its policy lacks the grant")
    return carried, [grant for grant in found if grant not in carried]


def is_carried(binding: Binding) -> bool:
    """True if the binding is one that `daskpki grant` creates."""
    try:
        parse_member(binding.member)
    except DaskpkiError:
        return False
    return binding.role == ACCESSOR and binding.condition is None
