"""How long the CA and every leaf still have, judged by the log. Pure.

A leaf is due once two thirds of its life are past, by the same rule as `daskpki renew --due`. What is in order is
summed up in one finding, since a cluster may have thousands of leaves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from daskpki.authority.renewal import is_due
from daskpki.doctor.finding import Finding, error, note, ok, warning
from daskpki.inventory import EXPIRED, FROM_REQUEST, SUPERSEDED, CertificateRecord
from daskpki.pki.profile import Lifetime, show
from daskpki.records import ISSUED

_ROTATE: Final = "daskpki rotate-ca start"


def check_authority(generation: int, lifetime: Lifetime, now: float) -> Finding:
    """The end of a CA's certificate, which leaves cannot outlive."""
    subject = f"CA generation {generation}"
    begin, end = lifetime
    if now > end:
        return error(subject, f"its certificate expired at {show(end)}, and every leaf with it", _ROTATE)
    if now >= begin + (end - begin) * 2 / 3:
        return warning(subject, f"two thirds of its life are past; it ends at {show(end)}", _ROTATE)
    return ok(subject, f"valid until {show(end)}")


def check_leaves(entries: Iterable[CertificateRecord], living: Collection[int], now: float) -> Iterator[Finding]:
    """What expired or comes from a CA that is not among the living, what is due, and older leaves that still count."""
    valid: list[CertificateRecord] = []
    older: dict[str, list[CertificateRecord]] = {}
    for entry in entries:
        state = entry.state(now)
        if state == SUPERSEDED:
            if entry.issuer in living:
                older.setdefault(_slug(entry), []).append(entry)
        elif state == EXPIRED and not entry.superseded:
            yield error(_subject(entry), f"expired at {show(entry.not_after)}", _renew(entry), topic="expired")
        elif state == ISSUED and entry.issuer not in living:
            reason = f"comes from CA {entry.issuer}, which was dropped, so nobody trusts it"
            yield error(_subject(entry), reason, _renew(entry), topic="of a dropped CA")
        elif state == ISSUED and is_due(entry, now):
            reason = f"past two thirds of its life; it ends at {show(entry.not_after)}"
            yield warning(_subject(entry), reason, _renew(entry), topic="due")
        elif state == ISSUED:
            valid.append(entry)
    yield from _in_order(valid)
    yield from (_still_valid(slug, entries) for slug, entries in older.items())


def _in_order(valid: list[CertificateRecord]) -> Iterator[Finding]:
    if valid:
        first = min(valid, key=lambda entry: entry.not_after)
        yield ok("certificates", f"{len(valid)} in order; the first to end is {_slug(first)}, {show(first.not_after)}")


def _still_valid(slug: str, entries: list[CertificateRecord]) -> Finding:
    serials = ", ".join(f"{entry.serial:x}" for entry in entries)
    number = "an older certificate is" if len(entries) == 1 else f"{len(entries)} older certificates are"
    last = max(entry.not_after for entry in entries)
    return note(
        f"certificate {slug}",
        f"{number} valid besides the newest, until {show(last)} (serial {serials})",
        f"once nobody uses it any more: daskpki revoke {entries[0].serial:x} --reason superseded",
        topic="older certificates",
    )


def _slug(entry: CertificateRecord) -> str:
    return f"{entry.role}/{entry.name}"


def _subject(entry: CertificateRecord) -> str:
    return f"certificate {_slug(entry)}"


def _renew(entry: CertificateRecord) -> str:
    if entry.key_type == FROM_REQUEST:
        return "its holder runs daskpki request, and you daskpki sign"
    return f"daskpki renew {_slug(entry)}"
