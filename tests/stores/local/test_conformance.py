"""The local store passes both suites."""

from __future__ import annotations

import pytest

from daskpki.store.testing import Backing, RecordLogSuite, SecretStoreSuite
from tests.support.local_places import LocalPlace


class TestLocalSecretStore(SecretStoreSuite):
    @pytest.fixture
    def backing(self, place: LocalPlace) -> Backing:
        return place


class TestLocalRecordLog(RecordLogSuite):
    @pytest.fixture
    def backing(self, place: LocalPlace) -> Backing:
        return place
