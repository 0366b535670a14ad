"""A client's process has no poller: it looks for newer material when it dials.

*For a newer trust document* beside connect and handshake, so that a scheduler that was revoked is told from one that
was not: at most once a minute for all clients of a process that look in the same place (`Lookout`), and nobody waits
longer than two seconds for it. What comes later still counts, and cuts off whom it revokes.

*For its own credential* before it dials, and only when a newer one is to be expected: past two thirds of a
certificate's life, as `daskpki renew --due` sees it, and while it is revoked or comes from a CA that does not issue any
more. So a `Client` of weeks can connect again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.keeper import Keeper
from daskpki.cluster.news import SignedTrust
from daskpki.cluster.watch import Source, Watch, take_newest
from daskpki.errors import DaskpkiError, NotTrustedError

_PAUSE: Final = 60.0
"""Seconds between two looks, each of which may ask a keyring or a store."""
PATIENCE: Final = 2.0
"""Seconds that a dial waits for a look that has begun."""

logger = logging.getLogger("distributed.daskpki")


class Look(Future["SignedTrust | None"]):
    """One look for a newer trust document: what holds after it, or None when there was nothing new or no answer."""

    def __init__(self, began: float) -> None:
        super().__init__()
        self.began = began
        self.missed = False


class Lookout:
    """Looks for newer trust documents in one place, for every client of this process. `clock` counts seconds."""

    def __init__(self, source: Source, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._source = source
        self._latest: Look | None = None
        self._lock = threading.Lock()

    def look(self, keeper: Keeper) -> Look:
        """The look of the last minute, or one that begins now, and is judged by what `keeper` holds."""
        with self._lock:
            latest, now = self._latest, self.clock()
            if latest is None or (latest.done() and now - latest.began >= _PAUSE):
                self._latest = latest = Look(now)
                # A thread that nobody joins: a store that does not answer must not hold up the end of the program.
                threading.Thread(target=self._run, args=(latest, keeper), daemon=True).start()
            return latest

    def _run(self, look: Look, keeper: Keeper) -> None:
        try:
            news = take_newest(keeper, self._source, _report)
        except DaskpkiError as error:
            logger.warning("no newer trust document could be looked for: %s", error)
            news = False
        except Exception:  # whatever a source did: the dial goes on
            logger.exception("looking for a newer trust document failed")
            news = False
        signed = keeper.signed if news else None
        look.set_result(None if signed is None else SignedTrust(signed))


def _report(found: SignedTrust, error: NotTrustedError) -> None:
    logger.warning("a trust document from %s does not hold: %s", found.place, error)


class OnDial:
    """Of one Enforcement. `now` in seconds since the epoch, `clock` counts seconds.

    Without `lookout` there is no place for newer trust documents, or this process is told of them otherwise.
    """

    def __init__(
        self,
        enforcement: Enforcement,
        keeper: Keeper,
        source: Source,
        lookout: Lookout | None = None,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watch = Watch(enforcement, keeper, source, share=0, clock=clock)
        self._keeper = keeper
        self._lookout = lookout
        self._now = now
        self._clock = clock
        self._next = clock()
        self._taken: Look | None = None
        self._settled: Look | None = None

    async def begin(self) -> None:
        """Begin to look for trust, and look for a credential, each if it is time.

        What goes wrong is logged, and the dial goes on with what there is.
        """
        if self._lookout is not None:
            self._take(self._lookout.look(self._keeper))
        if self._clock() >= self._next and self._is_due():
            self._next = self._clock() + _PAUSE
            await asyncio.to_thread(self._watch.look)

    def _take(self, look: Look) -> None:
        if look is not self._taken:
            self._taken = look
            look.add_done_callback(lambda done: self._go_by(done.result()))

    def _go_by(self, found: SignedTrust | None) -> None:
        """Go by what a look found that another client of this process began."""
        if found is None:
            return
        try:
            self._keeper.offer(found.signed)
        except NotTrustedError as error:
            _report(found, error)

    async def finish(self) -> None:
        """Wait for the look, but no longer than PATIENCE since it began."""
        look = self._taken
        if look is None or look is self._settled:
            return
        assert self._lookout is not None
        left = max(0.0, look.began + PATIENCE - self._lookout.clock())
        if left and not look.done():
            await asyncio.wait({asyncio.wrap_future(look)}, timeout=left)
        if look.done():
            self._settled = look
            self._go_by(look.result())  # once more: the thread of the look may be on its way to it
        elif not look.missed:
            look.missed = True
            logger.warning(
                "no answer within %g s about a newer trust document; going on with that of epoch %d",
                PATIENCE,
                self._keeper.epoch,
            )

    def _is_due(self) -> bool:
        begin, end = self._keeper.lifetime
        return self._keeper.awaits_credential or self._now() > begin + (end - begin) * 2 / 3
