"""A place on a test server, over each transport; global over gRPC, regional over REST."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from daskpki.store.gsm.store import GsmStore
from tests.support.gsm_places import PLACES, GsmPlace, open_place


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[GsmPlace]:
    with open_place(*PLACES[request.param]) as place:
        yield place


@pytest.fixture
def store(place: GsmPlace) -> Iterator[GsmStore]:
    with closing(place.factory()) as store:
        yield store
