"""A client's process has no poller: before it dials, it looks whether its own credential was renewed meanwhile.

Only when that is to be expected: past two thirds of a certificate's life, as `daskpki renew --due` sees it, and while
it is revoked or comes from a CA that does not issue any more. So a `Client` of weeks can connect again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.keeper import Keeper
from daskpki.cluster.watch import Source, Watch

_PAUSE: Final = 60.0
"""Seconds between two looks, each of which may ask a keyring or a store."""


class OnDial:
    """Of one Enforcement. `now` in seconds since the epoch, `clock` counts seconds."""

    def __init__(
        self,
        enforcement: Enforcement,
        keeper: Keeper,
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
