"""Looks for newer trust documents and credentials in a source: a node polls it, a client asks it before dialling.

A node asks for the trust document at each poll. A credential costs a second request, so the node asks for one only when
a newer one is likely: after a new trust document, while its own leaf is revoked or comes from a retired CA, and each
time that 1/720 of the leaf's lifetime has passed (an hour for thirty days).

A client has no poller and asks when it dials. It asks for a trust document beside connect and handshake, so that it
notices a revoked scheduler: at most once a minute for all clients of a process with the same source (`SharedLookup`),
and the dial waits two seconds at most. A later answer still counts: connections of peers that it revokes are cut. The
client asks for its own credential before it dials, once two thirds of its lifetime are past, or while it is revoked or
from a retired CA.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Final, Protocol

from daskpki.cluster.audit import REFUSED
from daskpki.cluster.refusal import Reason
from daskpki.cluster.tls import KeyPair
from daskpki.cluster.trust_updates import TrustManager, TrustMessage
from daskpki.confidential import Confidential
from daskpki.errors import DaskpkiError, NotTrustedError
from daskpki.handover import USUAL, Freshness
from daskpki.pki.trust_document import TrustDocument, parse_trust

SHARE: Final = 1 / 720
_REMINDER: Final = 3600.0
"""Seconds after which a lasting problem is logged again."""
_REPORTED: Final = 100
"""Refused documents that are remembered, so that each is reported once."""

logger = logging.getLogger("distributed.daskpki")


Refused = Callable[[TrustMessage, NotTrustedError], None]
"""Callback for each document that is not valid, with the error."""


class Source(Protocol):
    """A source of newer material; both methods raise the errors of a store."""

    def trust_after(self, held: TrustDocument, refused: Refused) -> TrustMessage | None:
        """Return the newest trust document of a later epoch than `held`, or None; the caller verifies it.

        A source with several documents skips those that are not valid after `held`, and calls `refused` with each.
        """

    def credential(self, held: KeyPair) -> KeyPair | None:
        """Return the newest credential of this node's identity; None if none is known to be later than `held`.

        If a returned credential is not `held` at the next call, it was refused. It is returned again, since it may be
        valid by now, under a later trust document or at a later time.
        """


class NullSource:
    """A source that never has anything newer."""

    def trust_after(self, held: TrustDocument, refused: Refused) -> TrustMessage | None:  # noqa: ARG002 - the protocol's
        """Return none."""
        return None

    def credential(self, held: KeyPair) -> KeyPair | None:  # noqa: ARG002 - likewise
        """Return none."""
        return None


class WholeSource:
    """A source that is read as a whole, such as a directory: `read` returns signed trust document and credential.

    Both methods raise the errors of `read`. If `read` returns no trust document, `otherwise` is asked for one.
    """

    def __init__(
        self, read: Callable[[], tuple[Confidential | None, KeyPair]], place: str, otherwise: Source | None = None
    ) -> None:
        self._read = read
        self._place = place
        self._otherwise = otherwise or NullSource()

    def trust_after(self, held: TrustDocument, refused: Refused) -> TrustMessage | None:
        """Return the source's document if it is later."""
        signed, _ = self._read()
        if signed is None:
            return self._otherwise.trust_after(held, refused)
        return TrustMessage(signed, self._place) if parse_trust(signed).document.epoch > held.epoch else None

    def credential(self, held: KeyPair | None = None) -> KeyPair:  # noqa: ARG002 - the protocol's signature
        """Return the source's credential, newer or not."""
        return self._read()[1]


def accept_newest(manager: TrustManager, source: Source, refused: Refused) -> bool:
    """Put the newest valid trust document of `source` in force; return True if there was one.

    Asks again after each document, since one in force may make a later one valid that was refused before. So a process
    that missed a rollover catches up.
    """
    taken = False
    while (found := source.trust_after(manager.document, refused)) is not None:
        try:
            if not manager.accept_trust(found.signed):
                break
        except NotTrustedError as error:
            refused(found, error)
            break
        taken = True
    return taken


def _answers(ask: Callable[[], bool], missing: str) -> bool:
    """Return the result of `ask`; log an error and return False, so that the next lookup still comes."""
    try:
        return ask()
    except DaskpkiError as error:
        logger.warning("%s: %s", missing, error)
    except Exception:  # any bug of a source
        logger.exception("looking for a newer trust document failed")
    return False


class Poller:
    """Polls a source for one process. `clock` is monotonic, in seconds.

    A source that cannot be reached changes nothing; after `freshness.fetch_age` it is logged as an error. Peers whose
    certificate expired more than `freshness.grace` ago are cut off. `share` is the part of a leaf's lifetime after
    which the source is asked for a newer leaf in any case; 0 for a source that costs nothing.
    """

    def __init__(
        self,
        manager: TrustManager,
        source: Source,
        *,
        freshness: Freshness = USUAL,
        share: float = SHARE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._enforcement = manager.enforcement
        self._manager = manager
        self._source = source
        self._freshness = freshness
        self._share = share
        self._clock = clock
        self._last = clock()
        self._asked = clock()
        self._epoch = manager.document.epoch
        self._reminded: dict[str, float] = {}
        self._refused = 0
        self._reported: deque[bytes] = deque(maxlen=_REPORTED)

    async def run(self, pause: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """Poll every `freshness.poll` seconds until cancelled, plus or minus a tenth.

        The random tenth keeps a fleet from asking at once.
        """
        while True:
            await pause(self._freshness.poll * random.uniform(0.9, 1.1))  # noqa: S311 - spreads load only
            await asyncio.to_thread(self.poll)

    def poll(self) -> bool:
        """Ask once; return True if the source answered with valid material. Raises nothing."""
        answered = _answers(self._ask, "no newer trust document or credential")
        if answered:
            self._last = self._clock()
        age = self._clock() - self._last
        if not answered and age > self._freshness.fetch_age:
            self._remind("age", f"the trust document was last fetched {age:.0f} s ago")
        if self._enforcement.stale:
            consequence = "new peers are refused until a new one is signed, for example by daskpki renew --due"
            if self._freshness.stale_trust == "allow":
                consequence = "--stale-trust allow accepts new peers nevertheless, also those that were revoked since"
            self._remind("stale", f"the revocation list has expired, and {consequence}")
        self._enforcement.abort_expired(self._freshness.grace)
        return answered

    def _remind(self, what: str, text: str) -> None:
        if self._clock() - self._reminded.get(what, -_REMINDER) >= _REMINDER:
            self._reminded[what] = self._clock()
            logger.error("%s", text)

    def _ask(self) -> bool:
        """Ask for both; return False if a document was refused."""
        refused = self._refused
        accept_newest(self._manager, self._source, self._report)
        begin, end = self._manager.lifetime
        pause = (end - begin) * self._share
        # Epochs are compared: a pushed document is news as well, and stays news after a poll that failed.
        news = self._manager.document.epoch != self._epoch
        if news or self._manager.awaits_credential or self._clock() - self._asked >= pause:
            current = self._enforcement.pair
            newest = self._source.credential(current)
            self._epoch = self._manager.document.epoch
            if newest is not None and newest.certificates != current.certificates:
                self._manager.renew(newest)
            self._asked = self._clock()
        return self._refused == refused

    def _report(self, found: TrustMessage, error: NotTrustedError) -> None:
        """Record a refused document, each once in full: a source that costs nothing yields it at every poll."""
        self._refused += 1
        digest = hashlib.sha256(found.signed.reveal()).digest()
        again = digest in self._reported
        self._reported.append(digest)
        why = f"a trust document from {found.place} is not valid: {error}"
        self._enforcement.audit.record(REFUSED, detail=why, reason=Reason.TRUST_DOCUMENT, again=again)


_PAUSE: Final = 60.0
"""Seconds between two lookups, since each may ask a keyring or a store."""
PATIENCE: Final = 2.0
"""Seconds that a dial waits for a lookup."""


class TrustLookup(Future["Confidential | None"]):
    """One lookup of a newer trust document: its result is that document, or None without news or an answer."""

    def __init__(self, began: float) -> None:
        super().__init__()
        self.began = began
        self.missed = False


class SharedLookup:
    """Looks up newer trust documents in one source, for all clients of this process. `clock` is monotonic."""

    def __init__(self, source: Source, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._source = source
        self._latest: TrustLookup | None = None
        self._lock = threading.Lock()

    def latest(self, manager: TrustManager) -> TrustLookup:
        """Return the lookup of the last minute, or begin one whose result `manager` verifies."""
        with self._lock:
            latest, now = self._latest, self.clock()
            if latest is None or (latest.done() and now - latest.began >= _PAUSE):
                self._latest = latest = TrustLookup(now)
                # A daemon thread: a store that does not answer must not delay the end of the program.
                threading.Thread(target=self._run, args=(latest, manager), daemon=True).start()
            return latest

    def _run(self, lookup: TrustLookup, manager: TrustManager) -> None:
        ask = partial(accept_newest, manager, self._source, _report)
        news = _answers(ask, "no newer trust document could be looked for")
        lookup.set_result(manager.signed if news else None)


def _report(found: TrustMessage, error: NotTrustedError) -> None:
    logger.warning("a trust document from %s is not valid: %s", found.place, error)


class DialRefresh:
    """Refreshes one client's credential and trust before it dials. `now` is wall time, `clock` is monotonic.

    Without `shared` there is no source of newer trust documents, or they reach this process by another way.
    """

    def __init__(
        self,
        manager: TrustManager,
        source: Source,
        shared: SharedLookup | None = None,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._poller = Poller(manager, source, share=0, clock=clock)
        self._manager = manager
        self._shared = shared
        self._now = now
        self._clock = clock
        self._next = clock()
        self._lookup: TrustLookup | None = None
        self._settled: TrustLookup | None = None

    async def begin(self) -> None:
        """Before a connection is made, begin to look up a trust document, and ask for a credential, each if it is due.

        Errors are logged, and the dial goes on with the current material.
        """
        if self._shared is not None and (lookup := self._shared.latest(self._manager)) is not self._lookup:
            self._lookup = lookup
            lookup.add_done_callback(lambda done: self._apply(done.result()))
        if self._clock() < self._next:
            return
        begin, end = self._manager.lifetime
        if self._manager.awaits_credential or self._now() > begin + (end - begin) * 2 / 3:
            self._next = self._clock() + _PAUSE
            await asyncio.to_thread(self._poller.poll)

    def _apply(self, signed: Confidential | None) -> None:
        """Put the result of a lookup in force, also if another client of this process began it."""
        if signed is not None:
            _answers(partial(self._manager.accept_trust, signed), "the newest trust document is not in force")

    async def finish(self) -> None:
        """Wait for the lookup, once TLS is up, but no longer than PATIENCE since it began."""
        lookup = self._lookup
        if lookup is None or lookup is self._settled:
            return
        assert self._shared is not None
        left = max(0.0, lookup.began + PATIENCE - self._shared.clock())
        if left and not lookup.done():
            await asyncio.wait({asyncio.wrap_future(lookup)}, timeout=left)
        if lookup.done():
            self._settled = lookup
            self._apply(lookup.result())  # once more: the thread of the lookup may not have done it yet
        elif not lookup.missed:
            lookup.missed = True
            logger.warning(
                "no answer within %g s about a newer trust document; going on with that of epoch %d",
                PATIENCE,
                self._manager.document.epoch,
            )
