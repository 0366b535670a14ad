"""The versions of a cluster's trust secret as a look goes through them: past all that do not hold, each read once."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from daskpki import naming
from daskpki.boot.reading import Reader
from daskpki.cluster.news import SignedTrust
from daskpki.confidential import Confidential
from daskpki.errors import DaskpkiError, DisabledError, NotFoundError, NotTrustedError
from daskpki.pki.crl import CLOCK_SKEW
from daskpki.pki.trust_document import TrustDocument, parse_trust

_KEPT: Final = 16
"""Versions that are kept in memory while the newest is looked for; the others are read again."""
_RIVALS: Final = 16
"""Versions that are put in order by their epochs: writers that meet leave few, and anybody may claim to be one."""

logger = logging.getLogger("distributed.daskpki")


class _Candidate(NamedTuple):
    """A version of the trust secret that claims a later epoch than what is in force; nothing of it is verified."""

    number: int
    data: Confidential
    document: TrustDocument


class TrustVersions:
    """A cluster's trust documents in a store, newest first, each of them read once.

    Whoever may add versions may put some that do not hold in front of the one that revokes him. So no version is
    believed about where to begin: all above the one in force are looked at, from the newest down, and the mark moves
    only to what is in force. `now` is in seconds since the epoch.
    """

    def __init__(self, cluster: str, now: Callable[[], float] = time.time) -> None:
        self._secret = naming.trust_id(cluster)
        self._now = now
        self._mark: int | None = None
        self._newest: int | None = None
        self._held: TrustDocument | None = None
        self._offered: _Candidate | None = None
        self._passed: set[int] = set()
        """Numbers above the mark that are of no use, whatever is in force: not later, or unreadable."""
        self._refused: dict[int, float] = {}
        """Numbers that did not hold after the document in force, and from when on that may be different."""

    def after(self, store: Reader, held: TrustDocument) -> Iterator[SignedTrust]:
        """See daskpki.cluster.watch.Source; DisabledError when the very newest version cannot be read.

        What that one says must not be passed over silently.
        """
        self._begin(held)
        fresh, unreadable = self._climb(store, held)
        for candidate in self._candidates(store, fresh, held):
            self._offered = candidate
            yield SignedTrust(candidate.data, f"version {candidate.number} of {self._secret}")
            self._refuse(candidate)  # the next one was asked for
        if unreadable is not None:
            raise unreadable

    def _begin(self, held: TrustDocument) -> None:
        if self._offered is not None and self._offered.document == held:
            self._settle(self._offered.number)
        self._offered = None
        if held != self._held:  # which may vouch for what the one before did not
            self._held = held
            self._refused.clear()

    def _settle(self, number: int) -> None:
        """Take `number` for the version in force."""
        self._mark = number
        self._passed = {passed for passed in self._passed if passed > number}
        self._refused = {refused: moment for refused, moment in self._refused.items() if refused > number}

    def _refuse(self, candidate: _Candidate) -> None:
        """Look at it no more; but one of the future may hold once the clock, which may be wrong, has come to it."""
        begin = candidate.document.issued_at - CLOCK_SKEW
        self._refused[candidate.number] = begin if begin > self._now() else math.inf

    def _pass_over(self, number: int, error: DaskpkiError) -> None:
        self._passed.add(number)
        logger.warning("version %d of %s is no trust document that can be read: %s", number, self._secret, error)

    def _climb(self, store: Reader, held: TrustDocument) -> tuple[dict[int, Confidential], DisabledError | None]:
        """Find the newest number; what was read on the way, and why the newest itself cannot be read, if so."""
        fresh: dict[int, Confidential] = {}
        unreadable: DisabledError | None = None
        number = self._newest
        if number is None:
            try:
                number, data = store.latest(self._secret)
                fresh[number], self._newest = data, number
            except DisabledError as error:
                number, unreadable = held.prev, error
        while True:
            number += 1
            try:
                data = store.access(self._secret, number)
            except DisabledError as error:
                unreadable = error
                continue
            except NotFoundError:
                return fresh, unreadable
            # Kept at once: a look that is cut off half-way up a thousand versions goes on from there.
            fresh[number], self._newest, unreadable = data, number, None
            fresh.pop(number - _KEPT, None)

    def _candidates(self, store: Reader, fresh: dict[int, Confidential], held: TrustDocument) -> Iterator[_Candidate]:
        """The greatest epochs first among rivals, as `daskpki.store.links` has it: on a tie, the lowest number."""
        newest = max(fresh, default=self._newest or 0)
        rivals: list[_Candidate] = []
        in_force: int | None = None
        for number in range(newest, self._floor(newest, held), -1):
            if rivals and (number <= min(rival.document.prev for rival in rivals) or len(rivals) == _RIVALS):
                yield from sorted(rivals, key=_by_rank)
                rivals.clear()
            found = self._look_at(store, number, fresh)
            if found is not None and found.document.epoch > held.epoch:
                rivals.append(found)
            elif found is not None:
                self._passed.add(number)
                in_force = number if found.document == held else in_force
        yield from sorted(rivals, key=_by_rank)
        if in_force is not None:  # the first of them: anybody may add copies of it above what is to come
            self._settle(in_force)

    def _floor(self, newest: int, held: TrustDocument) -> int:
        """The number above which to look: what is in force lies above its predecessor, unless the secret is another."""
        if self._mark is not None:
            return self._mark
        return held.prev if held.prev < newest else 0

    def _look_at(self, store: Reader, number: int, fresh: dict[int, Confidential]) -> _Candidate | None:
        if number in self._passed or self._now() < self._refused.get(number, 0):
            return None
        try:
            data = fresh.pop(number, None) or store.access(self._secret, number)
            return _Candidate(number, data, parse_trust(data).document)
        except (NotFoundError, DisabledError, NotTrustedError) as error:
            self._pass_over(number, error)
            return None


def _by_rank(candidate: _Candidate) -> tuple[int, int]:
    return -candidate.document.epoch, candidate.number
