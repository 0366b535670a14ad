"""Asks a source for newer material from time to time: the poller of a host. The source is handed in."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.keeper import Keeper
from daskpki.cluster.news import SignedTrust
from daskpki.errors import DaskpkiError
from daskpki.pki.credential import Credential, certificate_pem

PERIOD: Final = 60.0
FETCH_AGE: Final = 86_400.0
GRACE: Final = 86_400.0

logger = logging.getLogger("distributed.daskpki")


class Source(Protocol):
    """Where newer material comes from; both raise what a store raises."""

    def trust_after(self, epoch: int) -> SignedTrust | None:
        """The newest trust document when its epoch is above `epoch`."""
        ...

    def credential(self) -> Credential | None:
        """The newest credential of this node's identity; None where there is none to be fetched."""
        ...


class Watch:
    """One process's eye on a source. `clock` counts seconds and need not be the time of day.

    A source that cannot be reached changes nothing; after `fetch_age` seconds that is said once more, louder. Peers
    whose certificate ended more than `grace` seconds ago are cut off.
    """

    def __init__(
        self,
        enforcement: Enforcement,
        keeper: Keeper,
        source: Source,
        *,
        fetch_age: float = FETCH_AGE,
        grace: float = GRACE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._enforcement = enforcement
        self._keeper = keeper
        self._source = source
        self._fetch_age = fetch_age
        self._grace = grace
        self._clock = clock
        self._last = clock()

    async def run(self, period: float = PERIOD, pause: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """Look every `period` seconds, give or take a tenth so that a fleet does not ask at once; until cancelled."""
        while True:
            await pause(period * random.uniform(0.9, 1.1))  # noqa: S311 - spreads load, guards nothing
            await asyncio.to_thread(self.look)

    def look(self) -> bool:
        """One look; whether the source answered and what it has holds. Nothing is raised."""
        answered = self._look()
        if not answered and self._clock() - self._last > self._fetch_age:
            logger.error("the trust document was last fetched %.0f s ago", self._clock() - self._last)
        self._enforcement.abort_expired(self._grace)
        return answered

    def _look(self) -> bool:
        try:
            if (found := self._source.trust_after(self._keeper.epoch)) is not None:
                self._keeper.offer(found.signed, found.pieces)
            credential = self._source.credential()
            if credential is not None and certificate_pem(credential) != self._enforcement.pair.certificates:
                self._keeper.renew(credential)
        except DaskpkiError as error:
            logger.warning("no newer trust document or credential: %s", error)
            return False
        except Exception:  # whatever a source did: the next look has to come
            logger.exception("looking for a newer trust document failed")
            return False
        self._last = self._clock()
        return True
