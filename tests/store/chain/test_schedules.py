"""Thousands of random schedules of writers that race, crash and are cut off, with `latest` stale and pruning on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import pytest

from daskpki.errors import AmbiguousError
from daskpki.store.append_chain import AppendChain, ChainHead, Link, Outcome, Tip
from tests.support.chain_model import Entries, Run
from tests.support.nightly import by_day

NONE: Final[Mapping[int, ChainHead[Entries] | None]] = MappingProxyType({})
SCHEDULES = by_day(200, night=3000)


def test_nothing_acknowledged_is_lost_or_doubled_in_any_schedule() -> None:
    appended = 0
    for seed in range(SCHEDULES):
        run = Run(seed)
        try:
            run.check()
        except AssertionError as error:
            raise AssertionError(f"schedule {seed}") from error
        appended += len(run.acknowledged)
    assert appended > SCHEDULES * 8  # most of the 16 appends of each schedule got through


class HighestNumberWins(AppendChain[Entries]):
    """Planted: on a tie, who came last."""

    def later(self, tip: Tip[Entries], seen: Mapping[int, ChainHead[Entries] | None] = NONE) -> Iterator[Tip[Entries]]:
        head = tip.head
        for after in super().later(tip, seen):
            found = self._read(after.newest)
            if head is None or (found is not None and found.link.seq >= head.link.seq):
                head = found
            yield after._replace(head=head)


class LoserDestroysItsNewest(AppendChain[Entries]):
    """Planted: a loser clears up after itself at once."""

    def _settle(self, link: Link, payload: Entries, tip: Tip[Entries]) -> Outcome[Entries]:
        outcome = super()._settle(link, payload, tip)
        newest = self._read(tip.newest)
        if not outcome.won and newest is not None and newest.link == link:
            self._store.destroy(self._secret, tip.newest)
        return outcome


class TrustsLatest(AppendChain[Entries]):
    """Planted: `latest` is taken for the head."""

    def tip(self, known: Tip[Entries] | None = None) -> Tip[Entries]:  # noqa: ARG002
        hint = self._anchor({})
        return Tip(hint, hint.number if hint else 0)


class RetriesBlindly(AppendChain[Entries]):
    """Planted: an add that was cut off is made anew, without a look for its operation."""

    def propose(self, tip: Tip[Entries], payload: Entries) -> Outcome[Entries]:
        try:
            number = self._store.add(self._secret, self._codec.encode(payload))
        except AmbiguousError:
            return Outcome(False, self.tip())
        return self._settle(payload.link, payload, self._last(tip, {number: ChainHead(number, payload, payload.link)}))


class TakesEveryNumber(AppendChain[Entries]):
    """Planted: whoever got a number believes to have won."""

    def _settle(self, link: Link, payload: Entries, tip: Tip[Entries]) -> Outcome[Entries]:
        tip = super()._settle(link, payload, tip).tip
        return Outcome(True, Tip(ChainHead(tip.newest, payload, link), tip.newest))


@pytest.mark.parametrize(
    "planted", [HighestNumberWins, LoserDestroysItsNewest, TrustsLatest, RetriesBlindly, TakesEveryNumber]
)
def test_a_planted_bug_is_found(planted: type[AppendChain[Entries]]) -> None:
    assert any(_fails(Run(seed, planted)) for seed in range(400))


def _fails(run: Run) -> bool:
    try:
        run.check()
    except AssertionError:
        return True
    return False
