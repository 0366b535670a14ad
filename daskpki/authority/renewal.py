"""Renewals: which leaves are due, and the request for each. The log alone decides; no old key is read.

A leaf is due once two thirds of its life are past, also long after it has expired, and at once when its CA was dropped,
since then nobody trusts it. Two commands may renew at the same time: a reservation is made only if the leaf to be
replaced is still the newest of its name and, for `--due`, nobody else has one reserved.

Before another CA takes over, `check_issuable` asks whether it could issue every valid leaf.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

from daskpki.authority.lookup import ABANDON_AFTER, living_authorities
from daskpki.errors import PolicyError, UsageError
from daskpki.identity import Identity, Role
from daskpki.inventory import FROM_REQUEST, AuthorityRecord, CertificateRecord, Inventory
from daskpki.pki.certificates import lifetime, load_certificate
from daskpki.pki.profile import (
    DEFAULT_TTL,
    LEAF_BACKDATE,
    MIN_TTL,
    Grade,
    LeafRequest,
    Lifetime,
    check_request,
    is_near_end,
    leaf_lifetime,
)
from daskpki.records import ISSUED, RELEASED, RESERVED

if TYPE_CHECKING:  # reports read due dates, and issue nothing
    from daskpki.authority.issuance import RenewalFilter


def is_due(life: CertificateRecord | Lifetime, now: float) -> bool:
    """True if two thirds of a certificate's life are past."""
    return is_near_end(life.not_before, life.not_after, now)


_IN_FORCE: Final = (ISSUED, RELEASED)


def renewable(inventory: Inventory) -> Iterator[CertificateRecord]:
    """The leaves that a renewal may replace: the newest of each name, not revoked, with a key that the CA made."""
    for entry in inventory.certificates(statuses=_IN_FORCE):
        if not entry.superseded and entry.key_type != FROM_REQUEST:
            yield entry


def due(inventory: Inventory, now: datetime) -> list[CertificateRecord]:
    """The leaves to renew now, earliest end first."""
    living = {known.generation for known in living_authorities(inventory)}
    found = [entry for entry in renewable(inventory) if is_due(entry, now.timestamp()) or entry.issuer not in living]
    return sorted(found, key=lambda entry: entry.not_after)


def issuing_ends(inventory: Inventory) -> dict[int, int]:
    """End of the certificate that each CA generation issues with, in seconds since the epoch."""
    known = [entry for entry in inventory.authorities() if entry.certificate]
    return {entry.generation: lifetime(load_certificate(entry.issuing_der)).not_after for entry in known}


def request_for(entry: CertificateRecord, trust_domain: str, issuer_end: int) -> LeafRequest:
    """The request with identity, names, grades and lifetime of the replaced leaf, whose CA expires at `issuer_end`.

    A leaf that expires with its CA was shortened; this happens to default lifetimes only (`pki.profile.leaf_lifetime`).
    """
    role = Role(entry.role)
    asked = entry.not_after - (entry.not_before + LEAF_BACKDATE) + 1
    return LeafRequest(
        Identity(trust_domain, role, entry.name),
        dns=tuple(_named(entry.sans, "dns")),
        ips=tuple(ipaddress.ip_address(address) for address in _named(entry.sans, "ip")),
        grades=tuple(map(Grade, _named(entry.sans, "grade"))),
        ttl=None if asked == DEFAULT_TTL[role] or entry.not_after == issuer_end else max(asked, MIN_TTL),
    )


def _named(sans: Iterable[str], kind: str) -> Iterator[str]:
    return (san.removeprefix(f"{kind}:") for san in sans if san.startswith(f"{kind}:"))


def still_due(entries: Iterable[CertificateRecord], now: datetime, *, give_way: bool) -> RenewalFilter:
    """Make the filter that decides at the reservation whether a leaf that was found due still needs renewal.

    With `give_way`, a name that another command reserved in the last ten minutes is left to that command.
    """
    serials = {(entry.role, entry.name): entry.serial for entry in entries}
    since = now.timestamp() - ABANDON_AFTER

    def wanted(inventory: Inventory, request: LeafRequest) -> bool:
        role, name = request.identity.role.value, request.identity.name
        newest = inventory.current(role, name)
        if newest is None or newest.serial != serials[role, name] or newest.status not in _IN_FORCE:
            return False
        reserved = inventory.certificates(role=role, name=name, statuses=[RESERVED]) if give_way else ()
        return not any(entry.reserved_at >= since for entry in reserved)

    return wanted


def check_issuable(
    entries: Iterable[CertificateRecord], target: AuthorityRecord, now: datetime, ends: Mapping[int, int]
) -> None:
    """Raise PolicyError for the first leaf that `target` could not renew; leaves issued for a request are skipped.

    `ends` are those of `renewal.issuing_ends`.
    """
    policy = target.policy
    issuer = lifetime(load_certificate(target.issuing_der))
    for entry in entries:
        if entry.key_type == FROM_REQUEST:
            continue
        request = request_for(entry, policy.trust_domain, ends[entry.issuer])
        try:
            check_request(request, policy)
            leaf_lifetime(request, policy, issuer, int(now.timestamp()))
        except (PolicyError, UsageError) as error:
            remedy = f"daskpki revoke {entry.slug} --reason superseded; then run this again"
            raise PolicyError(
                f"CA {target.generation} could not renew {entry.slug}, so nothing was changed: {error}",
                hint=f"once nobody needs it any more: {remedy}",
            ) from error
