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
from daskpki.cluster.refusal import Reason
from daskpki.cluster.tls import KeyPair
from daskpki.cluster.trust_updates import TrustManager, TrustMessage
from daskpki.errors import DaskpkiError, NotTrustedError
from daskpki.handover import USUAL, Freshness
from daskpki.pki.trust_document import TrustDocument

SHARE: Final = 1 / 720
_REMINDER: Final = 3600.0
"""Seconds after which a lasting problem is logged again."""
_REPORTED: Final = 100
"""Refused documents that are remembered, so that each is reported once."""

logger = logging.getLogger("distributed.daskpki")


class Source(Protocol):
    """A source of newer material; both methods raise the errors of a store."""

    def trust_after(self, held: TrustDocument) -> Iterable[TrustMessage]:
        """Yield trust documents of a later epoch than `held`, newest first, not verified.

        A caller stops at the first valid one; asking for the next one tells that this one is invalid.
        """

    def credential(self, held: KeyPair) -> KeyPair | None:
        """Return the newest credential of this node's identity; None if none is known to be later than `held`.

        If a returned credential is not `held` at the next call, it was refused: it is returned again, since the trust
        document or the time that it lacked may have come.
        """


class NullSource:
    """A source that never has anything newer."""

    def trust_after(self, held: TrustDocument) -> Iterable[TrustMessage]:  # noqa: ARG002 - the protocol's signature
        """Return none."""
        return ()

    def credential(self, held: KeyPair) -> KeyPair | None:  # noqa: ARG002 - likewise
        """Return none."""
        return None


def take_newest(
    manager: TrustManager, source: Source, refused: Callable[[TrustMessage, NotTrustedError], None]
) -> bool:
    """Put the newest valid trust document of `source` in force, if there is one; return whether there was.

    `refused` is called with each invalid one. A document in force may make a later one valid that was refused before:
    so a process that missed a rollover catches up.
    """

    def take_next() -> bool:
        for found in source.trust_after(manager.document):
            try:
                if manager.offer(found.signed):
                    return True
            except NotTrustedError as error:
                refused(found, error)
        return False

    taken = take_next()
    while taken and take_next():
        pass
    return taken


class Watch:
    """Polls a source for one process. `clock` is monotonic, in seconds.

    A source that cannot be reached changes nothing; after `freshness.fetch_age` that is an error in the log. Peers
    whose certificate ended more than `freshness.grace` ago are cut off. `share` is the part of a leaf's lifetime after
    which a newer one is looked for in any case; 0 for a source that costs nothing.
    """

    def __init__(
        self,
        enforcement: Enforcement,
        manager: TrustManager,
        source: Source,
        *,
        freshness: Freshness = USUAL,
        share: float = SHARE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._enforcement = enforcement
        self._manager = manager
        self._source = source
        self._freshness = freshness
        self._share = share
        self._clock = clock
        self._last = clock()
        self._asked = clock()
        self._epoch = manager.epoch
        self._reminded: dict[str, float] = {}
        self._refused = 0
        self._reported: deque[bytes] = deque(maxlen=_REPORTED)

    async def run(
        self, period: float | None = None, pause: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        """Look every `period` seconds (default: `freshness.poll`) until cancelled, plus or minus a tenth.

        The random tenth keeps a fleet from asking at once.
        """
        while True:
            await pause((period or self._freshness.poll) * random.uniform(0.9, 1.1))  # noqa: S311 - spreads load only
            await asyncio.to_thread(self.look)

    def look(self) -> bool:
        """Look once; return whether the source answered with valid material. Raises nothing."""
        answered = self._look()
        age = self._clock() - self._last
        if not answered and age > self._freshness.fetch_age:
            self._remind("age", f"the trust document was last fetched {age:.0f} s ago")
        if self._enforcement.stale:
            consequence = "new peers are refused until any command that opens the CA's key, such as daskpki renew --due"
            consequence += ", signs one"
            if self._freshness.stale_trust == "allow":
                consequence = "--stale-trust allow takes in new peers all the same, also those that were revoked since"
            self._remind("stale", f"the revocation list has run out, and {consequence}")
        self._enforcement.abort_expired(self._freshness.grace)
        return answered

    def _remind(self, what: str, text: str) -> None:
        if self._clock() - self._reminded.get(what, -_REMINDER) >= _REMINDER:
            self._reminded[what] = self._clock()
            logger.error("%s", text)

    def _look(self) -> bool:
        try:
            refused = self._refused
            take_newest(self._manager, self._source, self._report)
            begin, end = self._manager.lifetime
            pause = (end - begin) * self._share
            # By the epoch: a document that was pushed is news as well, also after a look that failed.
            news = self._manager.epoch != self._epoch
            if news or self._manager.awaits_credential or self._clock() - self._asked >= pause:
                current = self._enforcement.pair
                newest = self._source.credential(current)
                self._epoch = self._manager.epoch
                if newest is not None and newest.certificates != current.certificates:
                    self._manager.renew(newest)
                self._asked = self._clock()
        except DaskpkiError as error:
            logger.warning("no newer trust document or credential: %s", error)
            return False
        except Exception:  # any bug of a source: the next look has to come
            logger.exception("looking for a newer trust document failed")
            return False
        if self._refused > refused:
            return False
        self._last = self._clock()
        return True

    def _report(self, found: TrustMessage, error: NotTrustedError) -> None:
        """Record a refused document, each once in full: a source that costs nothing yields it at every look."""
        self._refused += 1
        digest = hashlib.sha256(found.signed.reveal()).digest()
        again = digest in self._reported
        self._reported.append(digest)
        why = f"a trust document from {found.place} does not hold: {error}"
        self._enforcement.audit.record(REFUSED, detail=why, reason=Reason.TRUST_DOCUMENT, again=again)


_PAUSE: Final = 60.0
"""Seconds between two looks, since each may ask a keyring or a store."""
PATIENCE: Final = 2.0
"""Seconds that a dial waits for a look."""


class Look(Future["TrustMessage | None"]):
    """One look for a newer trust document: its result is the new document, or None without news or an answer."""

    def __init__(self, began: float) -> None:
        super().__init__()
        self.began = began
        self.missed = False


class Lookout:
    """Looks for newer trust documents in one place, for all clients of this process. `clock` is monotonic."""

    def __init__(self, source: Source, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._source = source
        self._latest: Look | None = None
        self._lock = threading.Lock()

    def look(self, manager: TrustManager) -> Look:
        """Return the look of the last minute, or begin one that `manager` judges."""
        with self._lock:
            latest, now = self._latest, self.clock()
            if latest is None or (latest.done() and now - latest.began >= _PAUSE):
                self._latest = latest = Look(now)
                # A daemon thread: a store that does not answer must not delay the end of the program.
                threading.Thread(target=self._run, args=(latest, manager), daemon=True).start()
            return latest

    def _run(self, look: Look, manager: TrustManager) -> None:
        try:
            news = take_newest(manager, self._source, _report)
        except DaskpkiError as error:
            logger.warning("no newer trust document could be looked for: %s", error)
            news = False
        except Exception:  # any bug of a source: the dial goes on
            logger.exception("looking for a newer trust document failed")
            news = False
        signed = manager.signed if news else None
        look.set_result(None if signed is None else TrustMessage(signed))


def _report(found: TrustMessage, error: NotTrustedError) -> None:
    logger.warning("a trust document from %s does not hold: %s", found.place, error)


class OnDial:
    """Refreshes one client's credential and trust before it dials. `now` is wall time, `clock` is monotonic.

    Without `lookout` there is no place for newer trust documents, or they reach this process by another way.
    """

    def __init__(
        self,
        enforcement: Enforcement,
        manager: TrustManager,
        source: Source,
        lookout: Lookout | None = None,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watch = Watch(enforcement, manager, source, share=0, clock=clock)
        self._manager = manager
        self._lookout = lookout
        self._now = now
        self._clock = clock
        self._next = clock()
        self._taken: Look | None = None
        self._settled: Look | None = None

    async def begin(self) -> None:
        """Begin to look for a trust document, and look for a credential, each if it is due.

        Errors are logged, and the dial goes on with the current material.
        """
        if self._lookout is not None:
            self._take(self._lookout.look(self._manager))
        if self._clock() < self._next:
            return
        begin, end = self._manager.lifetime
        if self._manager.awaits_credential or self._now() > begin + (end - begin) * 2 / 3:
            self._next = self._clock() + _PAUSE
            await asyncio.to_thread(self._watch.look)

    def _take(self, look: Look) -> None:
        if look is not self._taken:
            self._taken = look
            look.add_done_callback(lambda done: self._apply(done.result()))

    def _apply(self, found: TrustMessage | None) -> None:
        """Put a look's result in force, also of a look that another client of this process began."""
        if found is None:
            return
        try:
            self._manager.offer(found.signed)
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
            self._apply(look.result())  # once more: the thread of the look may not have done it yet
        elif not look.missed:
            look.missed = True
            logger.warning(
                "no answer within %g s about a newer trust document; going on with that of epoch %d",
                PATIENCE,
                self._manager.epoch,
            )
