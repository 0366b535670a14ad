"""Secret Manager passes both suites, by the official client over gRPC and REST, global and regional."""

from __future__ import annotations

import pytest

from daskpki.store.testing.backing import Backing
from daskpki.store.testing.record_log import RecordLogSuite
from daskpki.store.testing.secret_store import SecretStoreSuite
from tests.support.gsm_places import GsmPlace


class TestGsmSecretStore(SecretStoreSuite):
    @pytest.fixture
    def backing(self, place: GsmPlace) -> Backing:
        return place


class TestGsmRecordLog(RecordLogSuite):
    @pytest.fixture
    def backing(self, place: GsmPlace) -> Backing:
        return place
