"""A Cloud KMS of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daskpki.kms import VARIABLE, KmsClient
from tests.emulator.kms import KmsServer


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[KmsServer]:
    with KmsServer() as server:
        monkeypatch.setenv(VARIABLE, server.endpoint)
        yield server


@pytest.fixture
def client(kms: KmsServer) -> KmsClient:
    return KmsClient({VARIABLE: kms.endpoint})
