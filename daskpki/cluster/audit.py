"""What happened at this process's connections: counted, remembered for a while, and one structured log line each."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, NamedTuple

from daskpki.quoting import shortened

_LONGEST: Final = 500
_REMEMBERED: Final = 500
_MINUTE: Final = 60
_TOLD_APART: Final = 256
_LOGGER: Final = logging.getLogger("distributed.daskpki.audit")
CONNECTED: Final = "connected"
TURNED_AWAY: Final = "turned-away"
REFUSED: Final = "refused"
REVOKED: Final = "revoked"
EXPIRED: Final = "expired"
RELOADED: Final = "reloaded"
KINDS: Final = (CONNECTED, TURNED_AWAY, REFUSED, REVOKED, EXPIRED, RELOADED)
_USUAL: Final = frozenset({CONNECTED, RELOADED})
_REPEATED: Final = frozenset({TURNED_AWAY, REFUSED})
"""What strangers, or a program in a loop, can make happen at any rate."""


class Event(NamedTuple):
    """One line: `at` in seconds since the epoch, the peer's SPIFFE ID (or "" when unknown), its address, and why."""

    at: float
    kind: str
    peer: str
    address: str
    detail: str


class Audit:
    """The latest events of a process, and how many there were of each kind.

    What is as it should be is logged at level `usual`: INFO on servers, below that in a person's own program. A refusal
    like one of the same minute (kind, peer or host, and reason) is only counted, and the number is told when the minute
    is over; beyond 256 different ones a minute, all others are counted as one.
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
        self._lock = threading.Lock()
        self._minute = now()
        self._repeated: dict[Event, int] = {}
        """The first of each kind in this minute, but for its moment and port, and how many more there were."""

    def record(self, kind: str, *, peer: str = "", address: str = "", detail: str = "", again: bool = False) -> None:
        """Note an event, and log it as one JSON object. Nothing confidential belongs into `detail`.

        Each text is kept up to some hundred characters, since most of it comes from peers.

        One that is like another of a short while ago (`again`) shows in the log only at level DEBUG: workers make
        connections to one another all the time.
        """
        event = Event(self._now(), kind, *(shortened(text, _LONGEST) for text in (peer, address, detail)))
        with self._lock:
            self.counts[kind] += 1
        if kind in _REPEATED:
            self.tell_repeated()
            if self._is_repeated(event):
                return
        self._tell(event, again=again)

    def tell_repeated(self) -> None:
        """Once a minute is over: how many refusals there were in it that were not told one by one."""
        with self._lock:
            if 0 <= self._now() - self._minute < _MINUTE:
                return
            self._minute, repeated, self._repeated = self._now(), self._repeated, {}
        for first, more in repeated.items():
            if more:
                self._tell(first._replace(at=self._now(), detail=f"{first.detail} ({more} more within a minute)"))

    def _is_repeated(self, event: Event) -> bool:
        like = event._replace(at=0, address=event.address.rpartition(":")[0] or event.address)
        with self._lock:
            if like not in self._repeated and len(self._repeated) >= _TOLD_APART:
                like = Event(0, event.kind, "", "", "others")
            seen = like in self._repeated
            self._repeated[like] = self._repeated[like] + 1 if seen else 0
        return seen

    def _tell(self, event: Event, *, again: bool = False) -> None:
        kind = event.kind
        if kind != CONNECTED and not again:
            self.latest.append(event)
        level = logging.DEBUG if again else self._usual if kind in _USUAL else logging.WARNING
        if self._log is not None and self._log.isEnabledFor(level):
            fields = event._asdict()
            self._log.log(level, "%s", json.dumps(fields), extra={"audit": fields})
