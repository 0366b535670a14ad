"""A place on a test server, over each transport; global over gRPC, regional over REST."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from daskpki.store.gsm.store import GsmStore
from tests.robustness.crash.nightly import sample
from tests.support.gsm_places import GsmPlace, open_place

pytest.register_assert_rewrite("daskpki.store.testing", "tests.support.histories")


PLACES = {"grpc-global": ("grpc", None), "rest-regional": ("rest", "europe-west1")}
ONE_PLACE = pytest.mark.parametrize("place", sample(list(PLACES), one_of=2), indirect=True)
"""For long tests of what does not depend on the transport."""


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[GsmPlace]:
    with open_place(*PLACES[request.param]) as place:
        yield place


@pytest.fixture
def store(place: GsmPlace) -> Iterator[GsmStore]:
    with closing(place.factory()) as store:
        yield store
