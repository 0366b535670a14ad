"""Asks a source for newer material from time to time: the poller of a host. The source is handed in.

The trust document is asked for at each look. A credential costs a second question, so it is asked for only when a newer
one is to be expected: after news, while the one in use is revoked or not of the CA that issues now, and each time that
a 720th of its life has passed (an hour, for thirty days).

A client's process has no poller: before it dials, it looks whether its own credential was renewed meanwhile.

Only when that is to be expected: past two thirds of a certificate's life, as `daskpki renew --due` sees it, and while
it is revoked or comes from a CA that does not issue any more. So a `Client` of weeks can connect again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.tls import KeyPair
from daskpki.cluster.trust_updates import TrustManager
from daskpki.confidential import Confidential
from daskpki.errors import DaskpkiError
from daskpki.handover import USUAL, Freshness

SHARE: Final = 1 / 720
_REMINDER: Final = 3600.0
"""Seconds after which what has not changed for the better is said again."""

logger = logging.getLogger("distributed.daskpki")


class Source(Protocol):
    """Where newer material comes from; both raise what a store raises."""

    def trust_after(self, epoch: int) -> Confidential | None:
        """The newest trust document when its epoch is above `epoch`."""
        ...

    def credential(self) -> KeyPair | None:
        """The newest credential of this node's identity; None where there is none that was not seen before."""
        ...


class NullSource:
    """A source that never has anything newer."""

    def trust_after(self, epoch: int) -> Confidential | None:  # noqa: ARG002 - the protocol's signature
        """See Source."""
        return None

    def credential(self) -> KeyPair | None:
        """See Source."""
        return None


class Watch:
    """One process's eye on a source. `clock` counts seconds and need not be the time of day.

    A source that cannot be reached changes nothing; after `freshness.fetch_age` that is said once more, louder. Peers
    whose certificate ended more than `freshness.grace` ago are cut off. `share` is the part of a leaf's life after
    which a newer one is looked for in any case; 0 for a source that costs nothing.
    """

    def __init__(
        self,
        enforcement: Enforcement,
        keeper: TrustManager,
        source: Source,
        *,
        freshness: Freshness = USUAL,
        share: float = SHARE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._enforcement = enforcement
        self._keeper = keeper
        self._source = source
        self._freshness = freshness
        self._share = share
        self._clock = clock
        self._last = clock()
        self._asked = clock()
        self._said: dict[str, float] = {}

    async def run(
        self, period: float | None = None, pause: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        """Look every `period` seconds (without one, `freshness.poll`), until cancelled.

        Give or take a tenth, so that a fleet does not ask at once.
        """
        while True:
            await pause((period or self._freshness.poll) * random.uniform(0.9, 1.1))  # noqa: S311 - spreads load only
            await asyncio.to_thread(self.look)

    def look(self) -> bool:
        """One look; whether the source answered and what it has holds. Nothing is raised."""
        answered = self._look()
        age = self._clock() - self._last
        if not answered and age > self._freshness.fetch_age:
            self._remind("age", f"the trust document was last fetched {age:.0f} s ago")
        if self._enforcement.stale:
            self._remind("stale", f"the revocation list has run out, and {self._consequence()}")
        self._enforcement.abort_expired(self._freshness.grace)
        return answered

    def _consequence(self) -> str:
        if self._freshness.stale_trust == "allow":
            return "--stale-trust allow takes in new peers all the same, also those that were revoked since"
        return "new peers are refused until any command that opens the CA's key, such as daskpki renew --due, signs one"

    def _remind(self, what: str, text: str) -> None:
        if self._clock() - self._said.get(what, -_REMINDER) >= _REMINDER:
            self._said[what] = self._clock()
            logger.error("%s", text)

    def _look(self) -> bool:
        try:
            found = self._source.trust_after(self._keeper.epoch)
            if found is not None:
                self._keeper.offer(found)
            if self._is_credential_due(news=found is not None):
                self._look_for_credential()
        except DaskpkiError as error:
            logger.warning("no newer trust document or credential: %s", error)
            return False
        except Exception:  # whatever a source did: the next look has to come
            logger.exception("looking for a newer trust document failed")
            return False
        self._last = self._clock()
        return True

    def _is_credential_due(self, *, news: bool) -> bool:
        life = self._keeper.lifetime
        pace = (life.not_after - life.not_before) * self._share
        return news or self._keeper.awaits_credential or self._clock() - self._asked >= pace

    def _look_for_credential(self) -> None:
        pair = self._source.credential()
        if pair is not None and pair.certificates != self._enforcement.pair.certificates:
            self._keeper.renew(pair)
        self._asked = self._clock()


_PAUSE: Final = 60.0
"""Seconds between two looks, each of which may ask a keyring or a store."""


class OnDial:
    """Of one Enforcement. `now` in seconds since the epoch, `clock` counts seconds."""

    def __init__(
        self,
        enforcement: Enforcement,
        keeper: TrustManager,
        source: Source,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watch = Watch(enforcement, keeper, source, share=0, clock=clock)
        self._keeper = keeper
        self._now = now
        self._clock = clock
        self._next = clock()

    async def __call__(self) -> None:
        """Look, if it is time; what goes wrong is logged, and the dial goes on with the credential that there is."""
        if self._clock() >= self._next and self._is_due():
            self._next = self._clock() + _PAUSE
            await asyncio.to_thread(self._watch.look)

    def _is_due(self) -> bool:
        begin, end = self._keeper.lifetime
        return self._keeper.awaits_credential or self._now() > begin + (end - begin) * 2 / 3
