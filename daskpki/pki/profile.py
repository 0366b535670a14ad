"""Certificate profiles: names and lifetimes of each kind, and the clause behind each limit.

Pure values, without the X.509 library: `check_request` decides, `daskpki.pki.issuer` signs, `daskpki.pki.verify`
checks the result again.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

from daskpki.errors import PolicyError, UsageError
from daskpki.identity import Identity, Role, parse_label
from daskpki.quoting import rfc3339

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

CA_LIFETIME: Final = 3650 * DAY
INTERMEDIATE_LIFETIME: Final = 1825 * DAY
CRL_LIFETIME: Final = 35 * DAY
ROOT_CRL_LIFETIME: Final = 365 * DAY

# Clocks of machines differ by minutes, and a CA is created moments before its first leaf.
LEAF_BACKDATE: Final = 5 * MINUTE
CA_BACKDATE: Final = HOUR

# CA/Browser Forum Baseline Requirements 6.3.2: 398 days at most, and 397 are recommended; browsers enforce it.
MAX_TTL: Final = 397 * DAY
# A shorter one would end before a machine with a slow clock has used it.
MIN_TTL: Final = 10 * MINUTE
DEFAULT_TTL: Final = {Role.SCHEDULER: 90 * DAY, Role.WORKER: 30 * DAY, Role.CLIENT: 30 * DAY}

MAX_SERIAL: Final = (1 << 127) - 1
"""RFC 5280, 4.1.2.2 allows 20 octets; every reader accepts 16, positive."""

# RFC 1035, 2.3.4: 255 octets on the wire are 253 characters.
_MAX_DNS_NAME: Final = 253
# No peer of a cluster has more, and a leaf with as many fits into a payload.
_MAX_NAMES: Final = 64
LOOPBACK: Final = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))

_UNITS: Final = {"d": DAY, "h": HOUR, "m": MINUTE}
_READ_UNITS: Final = {"y": 365 * DAY, "w": 7 * DAY, **_UNITS}
_TTL: Final = r"([1-9][0-9]{0,8})([ywdhm])\Z"


class Policy(NamedTuple):
    """Limits of the leaves that a CA issues. `permitted_dns` always includes the trust domain.

    `max_ttl` is in seconds; None means the profile's own limit alone.
    """

    trust_domain: str
    permitted_dns: tuple[str, ...]
    max_ttl: int | None = None

    @property
    def longest_ttl(self) -> int:
        """The limit that applies, in seconds."""
        return MAX_TTL if self.max_ttl is None else min(self.max_ttl, MAX_TTL)

    @property
    def settings(self) -> dict[str, Any]:
        """The limits as JSON for the log, which has another field for the trust domain."""
        return {"permit_dns": list(self.permitted_dns), "max_ttl": self.max_ttl}


class Grade(StrEnum):
    """Right of a client beyond those of its role, an extended key usage of its certificate."""

    ADMIN = "admin"
    """Run code in a sealed scheduler, and act with its rights."""


GRADE_OIDS: Final[Mapping[Grade, str]] = {
    Grade.ADMIN: "1.2.840.113556.1.8000.2554.47995.9665.20477.19203.37859.12302454.6309657"
}
"""A UUID of ours in Microsoft's arc for UUIDs in seven parts, which needs no registration.

2.25 (ITU-T X.667) has the whole UUID as one number of 128 bits, for which Go and GnuTLS refuse the certificate. All
readers take numbers below 2^28 (RFC 5280, appendix B).
"""


class LeafRequest(NamedTuple):
    """A request for a leaf; `dns` and `ips` are added to the identity's own.

    `ttl` is in seconds; None means the role's default. Only clients have `grades`.
    """

    identity: Identity
    dns: tuple[str, ...] = ()
    ips: tuple[IpAddress, ...] = ()
    ttl: int | None = None
    grades: tuple[Grade, ...] = ()


class Lifetime(NamedTuple):
    """The first and the last second of validity, since the epoch; both are inclusive (RFC 5280, 4.1.2.5)."""

    not_before: int
    not_after: int


def make_policy(trust_domain: str, permit_dns: Iterable[str] = (), *, max_ttl: int | None = None) -> Policy:
    """Make the policy of a new CA: the trust domain and further domains; UsageError names the value and the rule."""
    domains = tuple(dict.fromkeys(parse_subtree(domain) for domain in (trust_domain, *permit_dns)))
    if max_ttl is not None and not MIN_TTL <= max_ttl <= MAX_TTL:
        limits = f"{format_ttl(MIN_TTL)} to {format_ttl(MAX_TTL)}"
        raise UsageError(f"a maximum lifetime of {format_ttl(max_ttl)} is outside {limits}")
    return Policy(trust_domain, domains, max_ttl)


def parse_subtree(text: str) -> str:
    """Parse a domain for the CA's name constraints: a DNS name of at least two labels; UsageError."""
    name = parse_dns_name(text)
    if "." not in name:
        raise UsageError(f"domain {text!r} has one label: a constraint needs at least two", hint=f"{text}.internal")
    return name


def parse_dns_name(text: str) -> str:
    """Parse a DNS name in lower case without a wildcard (RFC 5280, 4.2.1.6); UsageError."""
    if len(text) > _MAX_DNS_NAME:
        raise UsageError(f"DNS name {text[:40]!r}... is longer than {_MAX_DNS_NAME} characters (RFC 1035, 2.3.4)")
    if text.startswith("*"):
        raise UsageError(f"DNS name {text!r} is a wildcard, and a leaf names one peer only")
    labels = text.split(".")
    for label in labels:
        parse_label(label, f"DNS name {text!r}: label")
    if len(labels[-1]) < 2 or not labels[-1][-1].isalpha():  # noqa: PLR2004 - as in the rule
        rule = "its last label needs two characters or more, the last a letter, unlike an IP address (RFC 1123, 2.1)"
        raise UsageError(f"DNS name {text!r}: {rule}")
    return text


def parse_ip(text: str) -> IpAddress:
    """Parse an IP address of a leaf; UsageError."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise UsageError(f"{text!r} is not an IP address", hint="for example 10.0.0.5; names go to --dns") from None
    if getattr(address, "scope_id", None):
        raise UsageError(f"IP address {text!r} has a scope, which a certificate cannot name")
    return address


def parse_ttl(text: str) -> int:
    """Parse a lifetime such as `90d`, `2w`, `1y` (365 days), `12h` or `30m` to seconds; UsageError."""
    match = re.match(_TTL, text)
    if not match:
        raise UsageError(f"{text!r} is not a lifetime", hint="a number and y, w, d, h or m, such as 90d, 2w or 12h")
    return int(match[1]) * _READ_UNITS[match[2]]


def format_ttl(seconds: int) -> str:
    """Format a lifetime as the shortest text that `parse_ttl` reads; seconds (`s`) if no unit fits."""
    for unit, size in _UNITS.items():
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def is_near_end(begin: float, end: float, now: float) -> bool:
    """True if two thirds of a life are past: then a certificate is due for renewal."""
    return now >= begin + (end - begin) * 2 / 3


def is_within(name: str, domain: str) -> bool:
    """True if a DNS name lies in the subtree `domain` (RFC 5280, 4.2.1.10: labels may be added on the left)."""
    return name == domain or name.endswith(f".{domain}")


def check_dns(name: str, permitted: Iterable[str]) -> None:
    """Raise PolicyError unless `name` lies in one of the permitted subtrees."""
    domains = tuple(permitted)
    if not any(is_within(name, domain) for domain in domains):
        raise PolicyError(
            f"DNS name {name} is outside the CA's name constraints ({', '.join(domains)})",
            hint="only a new CA permits more: init-ca --permit-dns D, or daskpki rotate-ca start --permit-dns D",
        )


def leaf_names(request: LeafRequest) -> tuple[tuple[str, ...], tuple[IpAddress, ...]]:
    """Return the leaf's DNS names and IP addresses, the identity's own first, without repetitions."""
    loopback = LOOPBACK if request.identity.role is Role.SCHEDULER else ()
    dns = tuple(dict.fromkeys((request.identity.dns, *request.dns)))
    return dns, tuple(dict.fromkeys((*loopback, *request.ips)))


def check_request(request: LeafRequest, policy: Policy) -> None:
    """Raise PolicyError if the policy does not allow the request, UsageError for malformed names.

    `leaf_lifetime` checks the lifetime.
    """
    identity = request.identity
    if identity.trust_domain != policy.trust_domain:
        raise PolicyError(f"{identity.uri} is outside the CA's trust domain {policy.trust_domain}")
    if request.grades and identity.role is not Role.CLIENT:
        raise PolicyError(f"{identity.slug} asks for grade {request.grades[0].value}, which clients alone have")
    dns, ips = leaf_names(request)
    if len(dns) + len(ips) > _MAX_NAMES:
        raise PolicyError(f"{identity.slug} asks for {len(dns) + len(ips)} names, more than {_MAX_NAMES}")
    for name in dns:
        check_dns(parse_dns_name(name), policy.permitted_dns)


def leaf_lifetime(request: LeafRequest, policy: Policy, issuer: Lifetime, now: int) -> Lifetime:
    """Return the leaf's validity: backdated, within the issuer's validity, no longer than the policy allows.

    A requested lifetime counts from now, its last second included: 90d end 90 days less one second from now, and
    backdating is added. A default lifetime is cut at the issuer's end; a requested one is refused with PolicyError.
    """
    if not issuer.not_before <= now <= issuer.not_after:
        raise PolicyError(
            f"the CA is valid from {rfc3339(issuer.not_before)} to {rfc3339(issuer.not_after)}; "
            f"it is now {rfc3339(now)}",
            hint="if it has expired, daskpki rotate-ca start makes the next; else check this machine's clock",
        )
    not_before = max(now - LEAF_BACKDATE, issuer.not_before)
    if request.ttl is None:
        ttl = min(DEFAULT_TTL[request.identity.role], policy.longest_ttl)
        return Lifetime(not_before, min(now + ttl - 1, issuer.not_after))
    _check_ttl(request.ttl, policy)
    not_after = now + request.ttl - 1
    if not_after > issuer.not_after:
        ends = f"{rfc3339(not_after)}, after the CA's end {rfc3339(issuer.not_after)}"
        raise PolicyError(
            f"a lifetime of {format_ttl(request.ttl)} ends {ends}",
            hint="ask for less, leave it to the default, or roll the CA over (rotate-ca)",
        )
    return Lifetime(not_before, not_after)


def _check_ttl(ttl: int, policy: Policy) -> None:
    if ttl > policy.longest_ttl:
        clause = "init-ca --max-ttl" if policy.longest_ttl < MAX_TTL else "CA/B Forum BR 6.3.2"
        limit = format_ttl(policy.longest_ttl)
        raise PolicyError(f"a lifetime of {format_ttl(ttl)} is over the maximum of {limit} ({clause})")
    if ttl < MIN_TTL:
        raise PolicyError(f"a lifetime of {format_ttl(ttl)} is under the minimum of {format_ttl(MIN_TTL)}")
