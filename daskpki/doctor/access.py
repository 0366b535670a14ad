"""Who may read which secret, by the policies of the secrets themselves: too wide, too narrow. Pure.

What a node needs is `access` on its own credential, on the trust document and on the CRL's pieces, and nothing else.
Policies of the project, its folders and the organisation grant from above, and are not seen here: so "too narrow" is
said only of a secret whose own policy names others, and the last finding says what was not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from daskpki.doctor.finding import Finding, error, note, ok, warning
from daskpki.identity import Role
from daskpki.settings import GsmUrl

READERS: Final = frozenset({"roles/secretmanager.secretAccessor", "roles/secretmanager.admin", "roles/owner"})
"""Predefined roles that read payloads; what a custom role holds is not known here."""
ACCESSOR: Final = "roles/secretmanager.secretAccessor"
_PUBLIC: Final = ("allUsers", "allAuthenticatedUsers")
_MANY: Final = ("domain:", "projectOwner:", "projectEditor:", "projectViewer:", "principalSet:")


class Grant(NamedTuple):
    """One member of one binding; a conditional one may hold for a while only."""

    role: str
    member: str
    conditional: bool = False


class Guarded(NamedTuple):
    """A secret of the cluster: its id, what it holds (a label's value, such as `worker`), and the grants on it."""

    id: str
    kind: str
    grants: Sequence[Grant]

    @property
    def readers(self) -> list[str]:
        """Who may read its payload, by its own policy."""
        return [grant.member for grant in self.grants if grant.role in READERS]


def check_access(secrets: Sequence[Guarded], url: GsmUrl) -> Iterator[Finding]:
    """The findings about a cluster's secrets, and what could not be seen."""
    wide = [finding for secret in secrets for finding in _too_wide(secret, url)]
    shared = list(_shared(secrets, url))
    narrow = list(_too_narrow(secrets, url))
    yield from (*wide, *shared, *narrow)
    if not wide and not shared and not narrow:
        yield ok("grants", f"{len(secrets)} policies: no credential is read by two, no CA key by a node")
    yield note(
        "grants",
        f"not seen: policies of project {url.project}, its folders and the organisation, which may grant more",
        f"gcloud projects get-ancestors-iam-policy {url.project}",
    )


def _too_wide(secret: Guarded, url: GsmUrl) -> Iterator[Finding]:
    for grant in secret.grants:
        if grant.role in READERS and (grant.member in _PUBLIC or grant.member.startswith(_MANY)):
            who = "everybody" if grant.member in _PUBLIC else f"all of {grant.member}"
            yield error(secret.id, f"{who} may read it ({grant.role})", revocation(secret.id, grant, url))
    if secret.kind in set(Role) and len(set(secret.readers)) > 1:
        readers = ", ".join(sorted(set(secret.readers)))
        extra = next(grant for grant in secret.grants if grant.role in READERS)
        yield warning(
            secret.id,
            f"one identity, and several may take it: {readers}",
            f"leave one of them: {revocation(secret.id, extra, url)}",
        )


def _shared(secrets: Sequence[Guarded], url: GsmUrl) -> Iterator[Finding]:
    """A member that reads credentials of two roles, or a credential and the CA's key."""
    for member, owned in sorted(_credentials_by_reader(secrets).items()):
        roles = {secret.kind for secret in owned}
        if len(roles) > 1:
            names = ", ".join(secret.id for secret in owned)
            extra = _grant_of(owned[-1], member)
            yield error(member, f"reads credentials of several roles ({names})", revocation(owned[-1].id, extra, url))
        for key in secrets:
            if key.kind == "cakey" and member in key.readers:
                reason = f"reads the CA's key ({key.id}) besides its own credential: it can make any identity"
                yield error(member, reason, revocation(key.id, _grant_of(key, member), url))


def _too_narrow(secrets: Sequence[Guarded], url: GsmUrl) -> Iterator[Finding]:
    """Who reads a credential reads trust and pieces as well, or its boot ends with a missing grant."""
    for shared in secrets:
        if shared.kind in ("trust", "revoked") and not set(shared.readers) & set(_PUBLIC):
            for member in sorted(set(_credentials_by_reader(secrets)) - set(shared.readers)):
                yield warning(
                    member,
                    f"reads a credential, but not {shared.id} (unless a grant from above says so): its boot would fail",
                    f"{_gcloud('add', shared.id, url)} --member={member} --role={ACCESSOR}",
                )


def _credentials_by_reader(secrets: Sequence[Guarded]) -> Mapping[str, list[Guarded]]:
    found: dict[str, list[Guarded]] = {}
    for secret in secrets:
        if secret.kind in set(Role):
            for member in dict.fromkeys(secret.readers):
                found.setdefault(member, []).append(secret)
    return found


def _grant_of(secret: Guarded, member: str) -> Grant:
    return next(grant for grant in secret.grants if grant.member == member and grant.role in READERS)


def revocation(secret: str, grant: Grant, url: GsmUrl) -> str:
    """The command that takes a grant back."""
    every = " --all" if grant.conditional else ""
    return f"{_gcloud('remove', secret, url)} --member={grant.member} --role={grant.role}{every}"


def _gcloud(verb: str, secret: str, url: GsmUrl) -> str:
    place = f" --location={url.location}" if url.location else ""
    return f"gcloud secrets {verb}-iam-policy-binding {secret} --project={url.project}{place}"
