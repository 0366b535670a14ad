"""The versions of secrets: what every reader of `latest` stumbles over, and what lies about readable. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from daskpki.doctor.finding import Finding, error, note, warning
from daskpki.inventory import CertificateRecord
from daskpki.store.port import DESTROYED, ENABLED, Version

MANY: Final = 20
"""Versions of one secret that are paid for, beyond which something does not clean up."""

Remedy = Callable[[str, str, Sequence[int]], "str | None"]
"""The command for a verb (enable, destroy), a secret and version numbers; None where the store has none."""


def check_newest(secret: str, versions: Sequence[Version], remedy: Remedy, anew: str | None) -> Iterator[Finding]:
    """`latest` is the highest number in any state, so one that is not enabled stops every reader.

    `anew` is the command that adds a version, None where only a backup has what was in it.
    """
    newest = max(versions, key=lambda version: version.number, default=None)
    if newest is None:
        yield error(secret, "it has no version: nothing was ever put in", anew)
    elif newest.state == DESTROYED:
        reason = f"its newest version, {newest.number}, is destroyed: every reader fails"
        yield error(secret, reason, anew or "restore it from a backup")
    elif newest.state != ENABLED:
        yield error(
            secret,
            f"its newest version, {newest.number}, is disabled: every reader fails",
            remedy("enable", secret, [newest.number]),
        )


def check_recorded(secret: str, versions: Sequence[Version], entry: CertificateRecord | None) -> Iterator[Finding]:
    """The newest version is the one that the log confirms; any other was added by a command that died, or by others."""
    newest = max((version.number for version in versions), default=None)
    recorded = None if entry is None else entry.version
    if newest is not None and newest != recorded:
        slug = f"{entry.role}/{entry.name}" if entry else "ROLE/NAME"
        yield warning(
            secret,
            f"its newest version, {newest}, is not the one that the log confirms ({recorded or 'none'}): a command "
            "died before it was done, or somebody else added it",
            f"daskpki renew {slug}" if entry else None,
        )


def check_superseded(secret: str, versions: Sequence[Version], remedy: Remedy) -> Iterator[Finding]:
    """Old keys that whoever may read the secret can still read by number."""
    numbers = sorted(version.number for version in versions if version.state == ENABLED)[:-1]
    if numbers:
        listed = ", ".join(map(str, numbers))
        yield note(
            secret,
            f"superseded and still readable: version {listed}",
            remedy("destroy", secret, numbers),
            topic="old versions",
        )


def check_number(secret: str, versions: Sequence[Version]) -> Iterator[Finding]:
    """Every version that is not destroyed is paid for, and counts against nobody's needs."""
    active = [version for version in versions if version.state != DESTROYED]
    if len(active) > MANY:
        yield warning(secret, f"{len(active)} versions are active, each of them paid for by the month")
