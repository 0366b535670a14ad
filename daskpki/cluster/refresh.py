"""Looks for newer trust documents and credentials in a source that is handed in: a node's poller, and a client's look.

A node asks for the trust document at each look. A credential costs a second request, so the node asks for one only when
a newer one is likely: after a new trust document, while its own leaf is revoked or comes from a retired CA, and each
time that 1/720 of the leaf's lifetime has passed (an hour for thirty days).

A client has no poller and looks when it dials. It looks for trust beside connect and handshake, so that it notices a
revoked scheduler: at most once a minute for all clients of a process that share a place (`Lookout`), waiting two
seconds at most. A later answer still counts and cuts off whom it revokes. It looks for its own credential before it
dials, past two thirds of its lifetime or while it is revoked or from a retired CA.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from typing import Final, Protocol

from daskpki.cluster.audit import REFUSED
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.reasons import Reason
from daskpki.cluster.tls import KeyPair
from daskpki.cluster.trust_updates import TrustManager, TrustMessage
from daskpki.errors import DaskpkiError, NotTrustedError
from daskpki.handover import USUAL, Freshness
from daskpki.pki.trust_document import TrustDocument

SHARE: Final = 1 / 720
_REMINDER: Final = 3600.0
"""Seconds after which what has not changed for the better is said again."""
_REPORTED: Final = 100
"""Refused documents that are known again, so as to be reported once."""

logger = logging.getLogger("distributed.daskpki")


class Source(Protocol):
    """Where newer material comes from; both raise what a store raises."""

    def trust_after(self, held: TrustDocument) -> Iterable[TrustMessage]:
        """Trust documents of a later epoch than `held`, newest first, nothing of them verified.

        Whoever takes one leaves it at that; to ask for the next one says that this one did not hold.
        """
        ...

    def credential(self, held: KeyPair) -> KeyPair | None:
        """The newest credential of this node's identity; None where there is none later than `held`, as far as known.

        One that was given, and is not held the next time, did not hold: it is given again, since what it lacked (a
        trust document, the right time) may have come.
        """
        ...


class NullSource:
    """A source that never has anything newer."""

    def trust_after(self, held: TrustDocument) -> Iterable[TrustMessage]:  # noqa: ARG002 - the protocol's signature
        """See Source."""
        return ()

    def credential(self, held: KeyPair) -> KeyPair | None:  # noqa: ARG002 - likewise
        """See Source."""
        return None


def take_newest(keeper: TrustManager, source: Source, refused: Callable[[TrustMessage, NotTrustedError], None]) -> bool:
    """Go by the newest trust document of `source` that holds, if there is one; whether there was.

    `refused` is told of each that does not hold. What holds may vouch for one that did not hold before it: so a process
    that missed a rollover catches up.
    """
    news = False
    while _take_next(keeper, source, refused):
        news = True
    return news


def _take_next(keeper: TrustManager, source: Source, refused: Callable[[TrustMessage, NotTrustedError], None]) -> bool:
    for found in source.trust_after(keeper.document):
        try:
            if keeper.offer(found.signed):
                return True
        except NotTrustedError as error:
            refused(found, error)
    return False


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
        self._refused = 0
        self._reported: deque[bytes] = deque(maxlen=_REPORTED)

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
            refused = self._refused
            news = take_newest(self._keeper, self._source, self._report)
            if self._is_credential_due(news=news):
                self._look_for_credential()
        except DaskpkiError as error:
            logger.warning("no newer trust document or credential: %s", error)
            return False
        except Exception:  # whatever a source did: the next look has to come
            logger.exception("looking for a newer trust document failed")
            return False
        if self._refused > refused:
            return False
        self._last = self._clock()
        return True

    def _report(self, found: TrustMessage, error: NotTrustedError) -> None:
        """Say of a document that it did not hold; a source that costs nothing shows the same one at every look."""
        self._refused += 1
        digest = hashlib.sha256(found.signed.reveal()).digest()
        again = digest in self._reported
        self._reported.append(digest)
        why = f"a trust document from {found.place} does not hold: {error}"
        self._enforcement.audit.record(REFUSED, detail=why, reason=Reason.TRUST_DOCUMENT, again=again)

    def _is_credential_due(self, *, news: bool) -> bool:
        life = self._keeper.lifetime
        pace = (life.not_after - life.not_before) * self._share
        return news or self._keeper.awaits_credential or self._clock() - self._asked >= pace

    def _look_for_credential(self) -> None:
        held = self._enforcement.pair
        pair = self._source.credential(held)
        if pair is not None and pair.certificates != held.certificates:
            self._keeper.renew(pair)
        self._asked = self._clock()


_PAUSE: Final = 60.0
"""Seconds between two looks, each of which may ask a keyring or a store."""
PATIENCE: Final = 2.0
"""Seconds that a dial waits for a look that has begun."""


class Look(Future["TrustMessage | None"]):
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

    def look(self, keeper: TrustManager) -> Look:
        """The look of the last minute, or one that begins now, and is judged by what `keeper` holds."""
        with self._lock:
            latest, now = self._latest, self.clock()
            if latest is None or (latest.done() and now - latest.began >= _PAUSE):
                self._latest = latest = Look(now)
                # A thread that nobody joins: a store that does not answer must not hold up the end of the program.
                threading.Thread(target=self._run, args=(latest, keeper), daemon=True).start()
            return latest

    def _run(self, look: Look, keeper: TrustManager) -> None:
        try:
            news = take_newest(keeper, self._source, _report)
        except DaskpkiError as error:
            logger.warning("no newer trust document could be looked for: %s", error)
            news = False
        except Exception:  # whatever a source did: the dial goes on
            logger.exception("looking for a newer trust document failed")
            news = False
        signed = keeper.signed if news else None
        look.set_result(None if signed is None else TrustMessage(signed))


def _report(found: TrustMessage, error: NotTrustedError) -> None:
    logger.warning("a trust document from %s does not hold: %s", found.place, error)


class OnDial:
    """Of one Enforcement. `now` in seconds since the epoch, `clock` counts seconds.

    Without `lookout` there is no place for newer trust documents, or this process is told of them otherwise.
    """

    def __init__(
        self,
        enforcement: Enforcement,
        keeper: TrustManager,
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

    def _go_by(self, found: TrustMessage | None) -> None:
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
