"""Find a certificate in the inventory by what a person has at hand: ROLE/NAME, serial, fingerprint; and describe it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from daskpki.errors import NotFoundError, UsageError
from daskpki.identity import Role, parse_slug
from daskpki.inventory import CertificateRecord, Inventory

_HEX: Final = re.compile(r"[0-9a-f]+\Z")
_MOST_COMPARED: Final = 20_000
_FINGERPRINT_DIGITS: Final = 64
_MAX_SERIAL_DIGITS: Final = 40  # RFC 5280, 4.1.2.2: at most 20 octets


def find(inventory: Inventory, text: str, *, guess: bool = False) -> CertificateRecord:
    """The certificate that `text` names; ROLE/NAME means the newest. NotFoundError, UsageError.

    With `guess`, a plain name counts where one role alone has it, unless it can be read as a serial (`ada`,
    `cafe`); without, it is only suggested, since what follows cannot be undone.
    """
    if guess and _is_plain_name(text) and len(named := _roles_of(inventory, text)) == 1:
        return named[0]
    found = inventory.current(*_slug(text)) if is_slug(text) else _by_number(inventory, text)
    if found is None:
        raise not_issued(inventory, text)
    return found


def not_issued(inventory: Inventory, text: str) -> NotFoundError:
    """The error for what was never issued, with what its name is nearly."""
    return NotFoundError(
        f"no certificate {text!r} was issued here",
        hint=_suggestion(inventory, text) or "daskpki list shows all there are",
    )


def _suggestion(inventory: Inventory, text: str) -> str | None:
    from difflib import get_close_matches  # for the error alone

    meant = [f"{entry.role}/{entry.name}" for entry in _roles_of(inventory, text)]
    if not meant:
        known = {f"{entry.role}/{entry.name}" for entry in islice(inventory.certificates(), _MOST_COMPARED)}
        wanted = [text] if "/" in text else [f"{role}/{text}" for role in Role]
        meant = [near for each in wanted for near in get_close_matches(each, sorted(known), n=1, cutoff=0.8)]
    return f"did you mean {' or '.join(meant)}?" if meant else None


def _roles_of(inventory: Inventory, name: str) -> list[CertificateRecord]:
    """The newest leaf of that name in each role that has one."""
    return [entry for role in Role if (entry := inventory.current(role.value, name)) is not None]


def _is_plain_name(text: str) -> bool:
    return not is_slug(text) and not _HEX.match(text)


def is_slug(text: str) -> bool:
    """Whether `text` is meant as ROLE/NAME rather than as a number."""
    return "/" in text or text in set(Role)


def _slug(text: str) -> tuple[str, str]:
    role, name = parse_slug(text)
    return role.value, name


def _by_number(inventory: Inventory, text: str) -> CertificateRecord | None:
    digits = text.lower().removeprefix("0x").replace(":", "").removeprefix("sha256")
    if not _HEX.match(digits) or len(digits) > _FINGERPRINT_DIGITS:
        raise UsageError(
            f"{text!r} is neither ROLE/NAME nor a serial nor a fingerprint",
            hint=_suggestion(inventory, text) or "for example client/alice, 3f9a21..., or 64 hexadecimal digits",
        )
    if len(digits) == _FINGERPRINT_DIGITS:
        return inventory.by_fingerprint(digits)
    return inventory.certificate(int(digits, 16)) if len(digits) <= _MAX_SERIAL_DIGITS else None


def numbered(inventory: Inventory, text: str) -> list[CertificateRecord]:
    """The certificate with that serial or fingerprint, if there is one; UsageError."""
    found = _by_number(inventory, text)
    return [] if found is None else [found]


def select(
    inventory: Inventory,
    *,
    now: datetime,
    role: str | None = None,
    name: str | None = None,
    states: frozenset[str] | None = None,
    before: datetime | None = None,
    among: Sequence[CertificateRecord] | None = None,
) -> Iterator[CertificateRecord]:
    """The certificates of that role, name and those states that end before that moment, streamed.

    `among` are all that are looked at, where they are known.
    """
    moment = now.timestamp()
    for entry in inventory.certificates(role=role, name=name) if among is None else among:
        if role not in (None, entry.role) or name not in (None, entry.name):
            continue
        if states is not None and entry.state(moment) not in states:
            continue
        if before is None or entry.not_after < before.timestamp():
            yield entry


def rfc3339(seconds: int) -> str:
    """A moment as JSON documents show it, in UTC."""
    return (
        f"{datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()}Z"  # strftime takes five times as long
    )


def describe(entry: CertificateRecord, trust_domain: str, now: datetime) -> dict[str, Any]:
    """A certificate as `--json` prints it; the names of its fields are part of the contract."""
    document = {
        "role": entry.role,
        "name": entry.name,
        "identity": f"spiffe://{trust_domain}/{entry.role}/{entry.name}",
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
