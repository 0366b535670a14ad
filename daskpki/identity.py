"""Identities of certificates: role, name and trust domain, and the rules for their names.

An identity is the SPIFFE ID `spiffe://TRUST_DOMAIN/ROLE/NAME` in the URI SAN of a leaf; its DNS name is
`NAME.ROLE.TRUST_DOMAIN`. Names and clusters are DNS labels (RFC 1123, 2.1); anything else is refused with the rule.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

from daskpki.errors import UsageError
from daskpki.quoting import shown

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_LABEL_RULE = "a DNS label: 1 to 63 of a-z, 0-9 and '-', not beginning or ending with '-'"
# SPIFFE-ID, 2.1: at most 255 bytes. The DNS name NAME.ROLE.TRUST_DOMAIN has to fit RFC 1035's 253 as well.
_MAX_TRUST_DOMAIN = 253 - len(".scheduler.") - 63


class Role(StrEnum):
    """Roles of certificates; there is no fourth one (a service is a client with a name)."""

    SCHEDULER = "scheduler"
    WORKER = "worker"
    CLIENT = "client"


def parse_role(text: str) -> Role:
    """Parse a role; UsageError names the three."""
    try:
        return Role(text)
    except ValueError:
        roles = ", ".join(Role)
        raise UsageError(f"{shown(text)} is not a role", hint=f"roles are {roles}") from None


def parse_label(text: str, what: str) -> str:
    """Return `text` if it is a DNS label; `what` ("name", "cluster") is for the message of the UsageError."""
    if not _LABEL.match(text):
        raise UsageError(f"{what} {shown(text)} is not {_LABEL_RULE}", hint=_suggestion(text))
    return text


def _suggestion(text: str) -> str | None:
    label = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-")
    return f"{shown(label)} would do" if label and _LABEL.match(label) else None


def parse_trust_domain(text: str) -> str:
    """Return `text` if it is a trust domain: DNS labels joined by dots; raises UsageError."""
    if len(text) > _MAX_TRUST_DOMAIN:
        raise UsageError(f"trust domain {shown(text)} is longer than {_MAX_TRUST_DOMAIN} characters")
    for label in text.split("."):
        if not _LABEL.match(label):
            raise UsageError(f"trust domain {shown(text)}: {shown(label)} is not {_LABEL_RULE}")
    return text


def default_trust_domain(cluster: str) -> str:
    """The trust domain of a cluster for which `init-ca` got no --trust-domain."""
    return f"{cluster}.daskpki.internal"


class Identity(NamedTuple):
    """Role and name within a trust domain. Decisions compare role *and* trust domain."""

    trust_domain: str
    role: Role
    name: str

    @property
    def uri(self) -> str:
        """The SPIFFE ID, as it stands in the URI SAN."""
        return f"spiffe://{self.trust_domain}/{self.role.value}/{self.name}"

    @property
    def dns(self) -> str:
        """The DNS SAN under the constrained domain."""
        return f"{self.name}.{self.role.value}.{self.trust_domain}"

    @property
    def slug(self) -> str:
        """ROLE/NAME, as commands print and take it."""
        return f"{self.role.value}/{self.name}"


def parse_identity(uri: str) -> Identity:
    """Parse a SPIFFE ID; raises UsageError for another form than `spiffe://TRUST_DOMAIN/ROLE/NAME`."""
    scheme, _, rest = uri.partition("://")
    parts = rest.split("/")
    if scheme != "spiffe" or len(parts) != 3:  # noqa: PLR2004 - trust domain, role, name
        raise UsageError(f"{shown(uri)} is not an identity", hint="identities are spiffe://TRUST_DOMAIN/ROLE/NAME")
    domain, role, name = parts
    return Identity(parse_trust_domain(domain), parse_role(role), parse_label(name, "name"))


def parse_slug(text: str) -> tuple[Role, str]:
    """Parse ROLE/NAME, or ROLE alone for scheduler and worker, whose name defaults to the role; UsageError."""
    role_text, slash, name = text.partition("/")
    role = parse_role(role_text)
    if not slash:
        return role, default_name(role)
    return role, parse_label(name, "name")


def default_name(role: Role) -> str:
    """Return a role's default name; UsageError for a client, which needs a name."""
    if role is Role.CLIENT:
        raise UsageError("a client needs a name", hint="for example client/alice, or --name alice")
    return role.value
