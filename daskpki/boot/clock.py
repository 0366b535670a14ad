"""What time it is elsewhere: the Date header of a reply tells how wrong this machine's clock is."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE = re.compile(r"[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT\Z")


class Reading(NamedTuple):
    """Somebody else's clock: it said `time` (seconds since the epoch) when the monotonic clock here showed `at`."""

    time: float
    at: float

    def now(self, monotonic: float) -> float:
        """What that clock says when the monotonic clock here shows `monotonic`."""
        return self.time + monotonic - self.at


def parse_date(text: str) -> float | None:
    """Seconds since the epoch of a Date header (RFC 9110, 5.6.7, the form that servers send); None for anything else.

    By hand, since `email.utils` costs 19 ms to import and `time.strptime` follows the locale.
    """
    match = _DATE.match(text)
    if match is None or match[2] not in _MONTHS:
        return None
    day, year, hour, minute, second = (int(match[group]) for group in (1, 3, 4, 5, 6))
    try:
        return datetime(year, _MONTHS.index(match[2]) + 1, day, hour, minute, min(second, 59), tzinfo=UTC).timestamp()
    except ValueError:
        return None
