"""A cluster's secrets on a Secret Manager test server, and who reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.grants import Grants
from daskpki.store.gsm.store import GsmStore
from tests.support.grantees import KINDS
from tests.support.gsm_places import GsmPlace, open_place


@pytest.fixture(params=[("grpc", None), ("rest", "europe-west1")], ids=["grpc-global", "rest-regional"])
def place(request: pytest.FixtureRequest) -> Iterator[GsmPlace]:
    with open_place(*request.param) as place:
        yield place


@pytest.fixture
def store(place: GsmPlace) -> Iterator[GsmStore]:
    with closing(place.factory()) as store:
        for kind in KINDS:
            label, _, name = kind.partition("_")
            secret = f"daskpki_lab_{kind}"
            store.secrets.create(secret, labels=secret_names.labels("lab", label, name or None))
            store.secrets.add(secret, Confidential(kind))
        yield store


@pytest.fixture
def grants(store: GsmStore) -> Grants:
    return Grants(store, "lab")
