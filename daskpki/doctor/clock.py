"""This machine's clock against the one on the other side of the store. Pure."""

from __future__ import annotations

from typing import Final

from daskpki.doctor.finding import Finding, error, note, ok, warning

_NOTICEABLE: Final = 5.0
_HARMFUL: Final = 60.0
"""Seconds from which a fresh certificate may not be valid yet here, or a boot waits for the clock."""
_REMEDY: Final = "chronyc makestep, and see that a time server is reachable"


def check_clock(ahead: float | None) -> Finding:
    """`ahead` is by how many seconds this clock is ahead of the other, None when there was none to compare with."""
    subject = "clock"
    if ahead is None:
        return note(subject, "not compared: nothing that answers here tells its time")
    direction = "ahead of" if ahead > 0 else "behind"
    reason = f"this machine's clock is {abs(ahead):.0f} s {direction} Secret Manager's"
    if abs(ahead) > _HARMFUL:
        return error(subject, reason, _REMEDY)
    if abs(ahead) > _NOTICEABLE:
        return warning(subject, reason, _REMEDY)
    return ok(subject, "agrees with Secret Manager's")
