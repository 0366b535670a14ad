"""Counts events at this process's connections, keeps the latest, and logs one structured line for each."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from daskpki.cluster.refusal import PeerRefusedError, Reason
from daskpki.errors import DaskpkiError
from daskpki.quoting import shortened

_LONGEST: Final = 500
"""Most characters of each text of an event, since peers write most of them."""
_REMEMBERED: Final = 250
"""Most rows of each kind of event: a limit for each kind, so that strangers cannot push revocations out."""
_MINUTE: Final = 60
_TOLD_APART: Final = 256
"""Most new rows in a minute; all further events share one row, so that strangers cannot fill the log."""
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
"""Kinds that strangers, or a program in a loop, can cause at any rate."""


class Event(NamedTuple):
    """An event that happened `times` times, between `first` and `at` (seconds since the epoch).

    `peer` is a SPIFFE ID, or "" without a certificate; `address` is the peer's, with its port while `times` is 1;
    `detail` says why, and `reason` is one word, for refusals.
    """

    at: float
    kind: str
    peer: str
    address: str
    detail: str
    reason: str = ""
    first: float = 0
    times: int = 1


class Audit:
    """The latest events of a process, and counters of each kind.

    Normal events are logged at level `usual`: INFO on servers, DEBUG in a person's program.

    Events of one kind, peer, host and reason share one row, which counts them. Only the first refusal of a row in a
    minute is logged at once; the log gets the number of the others after the minute. Beyond 256 new rows a minute, all
    further refusals share one row.
    """

    def __init__(
        self,
        log: logging.Logger | None = _LOGGER,
        now: Callable[[], float] = time.time,
        *,
        usual: int = logging.INFO,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.refusals: Counter[Reason] = Counter()
        self._log = log
        self._now = now
        self._usual = usual
        self._lock = threading.Lock()
        self._rows: dict[str, OrderedDict[tuple[str, ...], Event]] = {kind: OrderedDict() for kind in KINDS}
        self._minute = now()
        self._repeated: dict[tuple[str, ...], tuple[Event, int]] = {}
        """By row, the event logged in this minute, and the number of further ones."""

    @property
    def latest(self) -> list[Event]:
        """The rows, the most recently changed one last."""
        with self._lock:
            return sorted(
                (event for rows in self._rows.values() for event in rows.values()), key=lambda event: event.at
            )

    def refuse(self, kind: str, error: DaskpkiError, *, address: str, detail: str = "") -> None:
        """Record a refusal by an error, with the error's reason and peer."""
        reason, peer = Reason.CERTIFICATE, ""
        if isinstance(error, PeerRefusedError):
            reason, peer = error.reason, error.peer
        self.record(kind, peer=peer, address=address, detail=detail or str(error), reason=reason)

    def record(
        self,
        kind: str,
        *,
        peer: str = "",
        address: str = "",
        detail: str = "",
        reason: Reason | None = None,
        again: bool = False,
    ) -> None:
        """Record an event, and log it as one JSON object. `detail` must not be confidential.

        Each text is limited to some hundred characters, since most of it comes from peers. A repeated event (`again`)
        is logged at level DEBUG only: workers connect to each other all the time.
        """
        now = self._now()
        peer, address, detail = (shortened(text, _LONGEST) for text in (peer, address, detail))
        event = Event(now, kind, peer, address, detail, reason or "", now)
        if kind in _REPEATED:
            self.log_repeated()
        with self._lock:
            self.counts[kind] += 1
            if reason is not None:
                self.refusals[reason] += 1
            event, told = self._judge_repetition(event)
            if kind != CONNECTED and not again:
                self._add_to_row(event)
        if not told:
            self._log_event(event, again=again)

    def log_repeated(self) -> None:
        """After each minute, log the number of refusals that were not logged one by one."""
        with self._lock:
            now = self._now()
            if 0 <= now - self._minute < _MINUTE:
                return
            self._minute, repeated, self._repeated = now, self._repeated, {}
        for first, more in repeated.values():
            if more:
                detail = f"{first.detail} ({more} more within a minute)"
                self._log_event(first._replace(at=now, times=more, detail=detail))

    def _judge_repetition(self, event: Event) -> tuple[Event, bool]:
        """Return the event as it is counted, and True if a similar one was logged in this minute."""
        if event.kind not in _REPEATED:
            return event, False
        key = _row_of(event)
        if key not in self._repeated and len(self._repeated) >= _TOLD_APART:
            event = Event(event.at, event.kind, "", "", "others", first=event.at)
            key = _row_of(event)
        first, more = self._repeated.get(key, (event, -1))
        self._repeated[key] = first, more + 1
        return event, more >= 0

    def _add_to_row(self, event: Event) -> None:
        rows, key = self._rows[event.kind], _row_of(event)
        before = rows.pop(key, None)
        if before is not None:
            host = event.address if event.address == before.address else host_of(event.address)
            event = event._replace(address=host, first=before.first, times=before.times + 1)
        rows[key] = event
        if len(rows) > _REMEMBERED:
            rows.popitem(last=False)

    def _log_event(self, event: Event, *, again: bool = False) -> None:
        level = logging.DEBUG if again else self._usual if event.kind in _USUAL else logging.WARNING
        if self._log is not None and self._log.isEnabledFor(level):
            fields = event._asdict()
            self._log.log(level, "%s", json.dumps(fields), extra={"audit": fields})


def host_of(address: str) -> str:
    """Return the host of `tls://HOST:PORT`; an address without a scheme is a host, maybe IPv6."""
    scheme, mark, location = address.partition("://")
    return location.rpartition(":")[0] if mark else scheme


def _row_of(event: Event) -> tuple[str, ...]:
    return event.kind, event.peer, host_of(event.address), event.detail
