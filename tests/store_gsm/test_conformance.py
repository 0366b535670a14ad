"""Secret Manager passes both suites, by the official client over gRPC and REST, global and regional."""

from __future__ import annotations

import pytest

from daskpki.store.conformance.backing import Backing
from daskpki.store.conformance.record_log import RecordLogSuite
from daskpki.store.conformance.secret_store import SecretStoreSuite
from tests.store_gsm.places import GsmPlace


class TestGsmSecretStore(SecretStoreSuite):
    @pytest.fixture
    def backing(self, place: GsmPlace) -> Backing:
        return place


class TestGsmRecordLog(RecordLogSuite):
    @pytest.fixture
    def backing(self, place: GsmPlace) -> Backing:
        return place
