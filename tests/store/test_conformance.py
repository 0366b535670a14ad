"""The local store passes both suites."""

from __future__ import annotations

import pytest

from daskpki.store.conformance.backing import Backing
from daskpki.store.conformance.record_log import RecordLogSuite
from daskpki.store.conformance.secret_store import SecretStoreSuite
from tests.store.places import LocalPlace


class TestLocalSecretStore(SecretStoreSuite):
    @pytest.fixture
    def backing(self, place: LocalPlace) -> Backing:
        return place


class TestLocalRecordLog(RecordLogSuite):
    @pytest.fixture
    def backing(self, place: LocalPlace) -> Backing:
        return place
