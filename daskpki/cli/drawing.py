"""How certificates and times are drawn for people: pure functions from values to lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from daskpki.cli.output import facts, table
from daskpki.credentials.expiry import remaining_seconds


def certificate_table(documents: Sequence[Mapping[str, Any]], now: datetime) -> list[str]:
    """One line a certificate: who, state, serial and when it ends."""
    return table(("who", "state", "serial", "expires"), [certificate_row(entry, now) for entry in documents])


def certificate_row(entry: Mapping[str, Any], now: datetime) -> tuple[str, str, str, str]:
    """Who, state, serial and when it ends."""
    return f"{entry['role']}/{entry['name']}", entry["state"], entry["serial"], remaining(entry["notAfter"], now)


def certificate_facts(document: Mapping[str, Any], now: datetime) -> list[str]:
    """One certificate in full."""
    return facts(
        {
            "identity": document["identity"],
            "state": document["state"],
            "serial": document["serial"],
            "sha256": document["fingerprint"],
            "not before": document["notBefore"],
            "not after": f"{document['notAfter']} ({remaining(document['notAfter'], now)})",
            "further names": ", ".join(document["names"]),
            "key": document["keyType"],
            "issuer": f"CA generation {document['issuer']}",
            "stored as version": document["version"],
            "revoked": document.get("revokedAt"),
            "reason": document.get("reason"),
        }
    )


def remaining(not_after: str, now: datetime) -> str:
    """`in 29 days`, `in 5 hours`, `in 20 minutes`, `12 days ago`."""
    return remaining_seconds(int((datetime.fromisoformat(not_after) - now).total_seconds()))


def day(seconds: int) -> str:
    """The day of a moment in seconds since the epoch, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


def minute(seconds: int) -> str:
    """The same to the minute."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def fingerprint_lines(fingerprint: str) -> str:
    """A SHA-256 fingerprint as OpenSSL prints it: upper-case pairs joined by colons."""
    digits = fingerprint.upper()
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
