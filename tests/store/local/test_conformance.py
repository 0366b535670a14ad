"""The local store passes both suites."""

from __future__ import annotations

import pytest

from daskpki.store.testing import Backing, SecretStoreSuite
from tests.support.histories import RandomHistories
from tests.support.local_places import LocalPlace


class TestLocalSecretStore(SecretStoreSuite):
    @pytest.fixture
    def backing(self, place: LocalPlace) -> Backing:
        return place


class TestLocalRecordLog(RandomHistories):
    @pytest.fixture
    def backing(self, place: LocalPlace) -> Backing:
        return place
