"""Lookups in the inventory: the CAs by their state, and a certificate by ROLE/NAME, serial or fingerprint."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from datetime import datetime
from itertools import islice
from typing import Any, Final

from daskpki.errors import NotFoundError, UsageError
from daskpki.identity import Role, parse_slug
from daskpki.inventory import AuthorityRecord, CertificateRecord, Inventory
from daskpki.pki.trust_document import ACTIVE, NEXT, RETIRING
from daskpki.quoting import did_you_mean, rfc3339
from daskpki.records import CA_ACTIVATED, CA_CREATED, CA_RETIRING, RESERVED
from daskpki.settings import program

STATES: Final = {CA_CREATED: NEXT, CA_ACTIVATED: ACTIVE, CA_RETIRING: RETIRING}
"""The state in the trust document that follows from a generation's last event."""


def active_authority(inventory: Inventory, cluster: str) -> AuthorityRecord:
    """The generation that issues; NotFoundError when the cluster has no CA yet."""
    for authority in inventory.authorities():
        if authority.status == CA_ACTIVATED:
            return authority
    raise NotFoundError(f"cluster {cluster!r} has no CA in this store", hint=f"{program(cluster)} init-ca makes one")


def living_authorities(inventory: Inventory) -> list[AuthorityRecord]:
    """The generations in the trust document."""
    return [authority for authority in inventory.authorities() if authority.status in STATES]


def published_authorities(inventory: Inventory, adding: Collection[int | None] = ()) -> list[AuthorityRecord]:
    """The generations that the next trust document shows.

    A generation that `rotate-ca start` made is first shown by the command that is `adding` it; other commands leave it
    out until then. `adding` also has the generations that the previous document shows.
    """
    shown = inventory.published.get("authorities")
    return [
        entry
        for entry in living_authorities(inventory)
        if entry.status != CA_CREATED or shown is None or entry.generation in adding or str(entry.generation) in shown
    ]


def shows_authorities(inventory: Inventory, *, strictly: bool = True) -> bool:
    """True if the trust document that was published last has the CAs of the log, each in its state.

    Unless `strictly`, a CA that `rotate-ca start` made and did not publish may be missing.
    """
    living = living_authorities(inventory) if strictly else published_authorities(inventory)
    states = {str(entry.generation): STATES[entry.status] for entry in living}
    return bool(inventory.published.get("authorities") == states)


ABANDON_AFTER: Final = 600
"""Seconds after which an unconfirmed reservation counts as a command that died."""


def stale_reservations(inventory: Inventory, now: float) -> list[CertificateRecord]:
    """The leaves that nobody confirmed in time."""
    return [leaf for leaf in inventory.certificates(statuses=[RESERVED]) if leaf.reserved_at < now - ABANDON_AFTER]


_HEX: Final = re.compile(r"[0-9a-f]+\Z")
_MOST_COMPARED: Final = 20_000
"""Certificates whose names are compared for a suggestion: difflib takes 0.4 s for so many."""
_FINGERPRINT_DIGITS: Final = 64
_MAX_SERIAL_DIGITS: Final = 40  # RFC 5280, 4.1.2.2: at most 20 octets


def find(inventory: Inventory, text: str, *, guess: bool = False) -> CertificateRecord:
    """The certificate that `text` names; ROLE/NAME means the newest. NotFoundError, UsageError.

    With `guess`, a plain name counts if only one role has it, unless it can be read as a serial (`ada`, `cafe`).
    Otherwise it is only suggested, since commands such as revoke cannot be undone.
    """
    if is_slug(text):
        role, name = parse_slug(text)
        found = inventory.current(role.value, name)
    elif guess and not _HEX.match(text) and len(named := _roles_of(inventory, text)) == 1:
        found = named[0]
    else:
        found = _by_number(inventory, text)
    if found is None:
        raise not_issued(inventory, text)
    return found


def not_issued(inventory: Inventory, text: str) -> NotFoundError:
    """The error for a certificate that was never issued; its hint suggests similar names."""
    return NotFoundError(
        f"no certificate {text!r} was issued here",
        hint=_suggestion(inventory, text) or "daskpki list shows all there are",
    )


def _suggestion(inventory: Inventory, text: str) -> str | None:
    meant = [entry.slug for entry in _roles_of(inventory, text)]
    if not meant:
        known = {entry.slug for entry in islice(inventory.certificates(), _MOST_COMPARED)}
        return did_you_mean([text] if "/" in text else [f"{role}/{text}" for role in Role], known)
    return f"did you mean {' or '.join(meant)}?"


def _roles_of(inventory: Inventory, name: str) -> list[CertificateRecord]:
    """The newest leaf of that name in each role that has one."""
    return [entry for role in Role if (entry := inventory.current(role.value, name)) is not None]


def is_slug(text: str) -> bool:
    """True if `text` is meant as ROLE/NAME rather than as a number."""
    return "/" in text or text in set(Role)


def _by_number(inventory: Inventory, text: str) -> CertificateRecord | None:
    digits = text.lower().removeprefix("0x").replace(":", "").removeprefix("sha256")
    if not _HEX.match(digits) or len(digits) > _FINGERPRINT_DIGITS:
        raise UsageError(
            f"{text!r} is not ROLE/NAME, a serial or a fingerprint",
            hint=_suggestion(inventory, text) or "for example client/alice, 3f9a21..., or 64 hexadecimal digits",
        )
    if len(digits) == _FINGERPRINT_DIGITS:
        return inventory.by_fingerprint(digits)
    return inventory.certificate(int(digits, 16)) if len(digits) <= _MAX_SERIAL_DIGITS else None


def select(
    inventory: Inventory,
    *,
    now: datetime,
    roles: Collection[str] = (),
    name: str | None = None,
    states: Collection[str] = (),
    before: datetime | None = None,
) -> Iterator[CertificateRecord]:
    """Stream the certificates of these roles, of that name, in these states, that end before that moment.

    Empty values select all.
    """
    (role,) = roles if len(roles) == 1 else (None,)
    return (
        entry
        for entry in inventory.certificates(role=role, name=name)
        if (not roles or entry.role in roles)
        and (not states or entry.state(now.timestamp()) in states)
        and (before is None or entry.not_after < before.timestamp())
    )


def describe(entry: CertificateRecord, trust_domain: str, now: datetime) -> dict[str, Any]:
    """A certificate as `--json` prints it; the names of its fields are part of the contract."""
    document = {
        "role": entry.role,
        "name": entry.name,
        "identity": f"spiffe://{trust_domain}/{entry.slug}",
        "serial": f"{entry.serial:x}",
        "fingerprint": entry.fingerprint,
        "notBefore": rfc3339(entry.not_before),
        "notAfter": rfc3339(entry.not_after),
        "state": entry.state(now.timestamp()),
        "keyType": entry.key_type,
        "names": list(entry.sans),
        "issuer": entry.issuer,
        "version": entry.version,
    }
    if entry.revoked_at is not None:
        document |= {"revokedAt": rfc3339(entry.revoked_at), "reason": entry.reason or "unspecified"}
    return document
