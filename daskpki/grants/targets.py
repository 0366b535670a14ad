"""What a grant is for and to whom, as a command names them. Pure.

`worker` and `client/alice` are credentials, which are of no use without the secrets that say whom to trust; `trust` is
those alone, `records` and `cakey/GENERATION` what operators and issuers read, `secret/NAME` one of the other secrets.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from daskpki import secret_names
from daskpki.errors import PolicyError, UsageError
from daskpki.identity import parse_label, parse_slug

_MEMBER: Final = re.compile(
    r"(user|serviceAccount|group):[^\s@:]+@[a-z0-9.-]+\Z|(principal|principalSet)://iam\.googleapis\.com/\S+\Z"
)
_EVERYBODY: Final = ("allUsers", "allAuthenticatedUsers")


class Target(NamedTuple):
    """What is granted: `own` is the secret itself, None for trust alone; `shared` what its reader needs as well."""

    name: str
    own: str | None
    shared: tuple[str, ...]

    @property
    def secrets(self) -> tuple[str, ...]:
        """All of them, what others share first."""
        return (*self.shared, *([self.own] if self.own else []))


def parse_target(text: str, cluster: str) -> Target:
    """ROLE[/NAME], secret/NAME, trust, records or cakey/GENERATION; UsageError."""
    shared = (secret_names.trust_id(cluster),)
    if text == secret_names.TRUST:
        return Target(text, None, shared)
    if text == secret_names.RECORDS:
        return Target(text, secret_names.records_id(cluster), ())
    kind, slash, name = text.partition("/")
    if kind == secret_names.CA_KEY and re.fullmatch("[1-9][0-9]{0,8}", name):
        return Target(text, secret_names.ca_key_id(cluster, int(name)), ())
    if kind == secret_names.SECRET and slash:
        return Target(text, secret_names.user_secret_id(cluster, parse_label(name, "name")), ())
    role, name = parse_slug(text)
    return Target(f"{role}/{name}", secret_names.credential_id(cluster, role, name), shared)


def parse_member(text: str, *, revoke: bool = False) -> str:
    """An IAM member; UsageError for other forms. PolicyError for everybody and whole domains, unless to revoke."""
    if text in _EVERYBODY or text.startswith("domain:"):
        if revoke:
            return text
        raise PolicyError(f"{text} is more than a cluster's secrets are ever granted to", hint="name who needs them")
    if not _MEMBER.match(text):
        raise UsageError(
            f"{text!r} is not a member",
            hint="serviceAccount:NAME@PROJECT.iam.gserviceaccount.com, user:MAIL, group:MAIL",
        )
    return text
