"""Eight processes append at once, with the real quotas in force and a `latest` that lags: none lost, none doubled."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import pytest

from daskpki.inventory import Inventory
from daskpki.records import EMPTY, Draft, Head
from daskpki.store.gsm.api import RetryPolicy
from daskpki.store.testing.backing import STAMP, Backing, processes, run
from tests.support.gsm_places import GsmPlace, open_place

WRITERS, COMMITS = 8, 3
HURRIED = RetryPolicy(deadline=100.0, first_wait=0.1, longest_wait=1.0)


def append(backing: Backing, writer: int, count: int) -> list[int]:
    """Commit two records at a time that say after which head they were decided; their numbers."""

    def decide(view: Inventory) -> list[Draft]:
        return [Draft("note", {"writer": writer, "after": list(view.head), "turn": turn}) for turn in range(2)]

    with closing(backing.factory()) as store:
        commits = [store.log("c").commit(decide, STAMP) for _ in range(count)]
    return [record.seq for records in commits for record in records]


@pytest.mark.long
@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_eight_processes_lose_and_double_nothing(transport: str) -> None:
    with open_place(transport, None, HURRIED) as place:
        place.server.quotas.enforced = True
        place.server.quotas.per_secret = 20  # a tenth of the time that 2 would take
        place.server.latest_lag(behind=3)
        with processes(WRITERS) as executor:
            numbers = run(executor, append, place, WRITERS, COMMITS)
        _check(place, numbers)


def _check(place: GsmPlace, numbers: Sequence[list[int]]) -> None:
    assert sorted(n for own in numbers for n in own) == list(range(1, 2 * WRITERS * COMMITS + 1))
    place.server.latest_catch_up()
    previous = EMPTY
    with closing(place.factory()) as store:
        for record in store.log("c").records():
            assert record.seq in numbers[record.body["writer"]]
            if record.body["turn"] == 0:
                assert record.body["after"] == list(previous)
            previous = Head(record.seq, record.hash)
