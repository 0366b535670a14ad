"""Secret Manager passes both suites, by the official client over gRPC and REST, global and regional."""

from __future__ import annotations

import pytest

from daskpki.store.testing import Backing, SecretStoreSuite
from tests.support.gsm_places import GsmPlace
from tests.support.histories import RandomHistories


class TestGsmSecretStore(SecretStoreSuite):
    @pytest.fixture
    def backing(self, place: GsmPlace) -> Backing:
        return place


class TestGsmRecordLog(RandomHistories):
    @pytest.fixture
    def backing(self, place: GsmPlace) -> Backing:
        return place
