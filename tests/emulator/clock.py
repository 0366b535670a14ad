"""The servers' clock: real time plus an offset that a test moves, so that no test waits for a lifetime."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta


class Clock:
    """Real time in UTC plus an offset; it runs on by itself and never stops."""

    def __init__(self) -> None:
        self._offset = timedelta()
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """The servers' present."""
        with self._lock:
            return datetime.now(UTC) + self._offset

    def advance(self, seconds: float) -> None:
        """Move the servers' present by so many seconds, also backwards."""
        with self._lock:
            self._offset += timedelta(seconds=seconds)
