"""What happened at this process's connections: counted, remembered for a while, and one structured log line each."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, NamedTuple

_REMEMBERED: Final = 500
_LOGGER: Final = logging.getLogger("distributed.daskpki.audit")
CONNECTED: Final = "connected"
TURNED_AWAY: Final = "turned-away"
REFUSED: Final = "refused"
REVOKED: Final = "revoked"
EXPIRED: Final = "expired"
RELOADED: Final = "reloaded"
KINDS: Final = (CONNECTED, TURNED_AWAY, REFUSED, REVOKED, EXPIRED, RELOADED)
_USUAL: Final = frozenset({CONNECTED, RELOADED})


class Event(NamedTuple):
    """One line: `at` in seconds since the epoch, the peer's SPIFFE ID (or "" when unknown), its address, and why."""

    at: float
    kind: str
    peer: str
    address: str
    detail: str


class Audit:
    """The latest events of a process, and how many there were of each kind.

    What is as it should be is logged at level `usual`: INFO on servers, below that in a person's own program.
    """

    def __init__(
        self,
        log: logging.Logger | None = _LOGGER,
        now: Callable[[], float] = time.time,
        *,
        usual: int = logging.INFO,
    ) -> None:
        self.latest: deque[Event] = deque(maxlen=_REMEMBERED)
        self.counts: Counter[str] = Counter()
        self._log = log
        self._now = now
        self._usual = usual

    def record(self, kind: str, *, peer: str = "", address: str = "", detail: str = "", again: bool = False) -> None:
        """Note an event, and log it as one JSON object. Nothing confidential belongs into `detail`.

        One that is like another of a short while ago (`again`) is counted, and shows in the log only at level DEBUG:
        workers make connections to one another all the time.
        """
        event = Event(self._now(), kind, peer, address, detail)
        self.counts[kind] += 1
        if kind != CONNECTED and not again:
            self.latest.append(event)
        level = logging.DEBUG if again else self._usual if kind in _USUAL else logging.WARNING
        if self._log is not None and self._log.isEnabledFor(level):
            fields = event._asdict()
            self._log.log(level, "%s", json.dumps(fields), extra={"audit": fields})
