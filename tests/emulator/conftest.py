"""A server of their own for the tests of the servers, and the official client over each transport."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.cloud.secretmanager_v1 import SecretManagerServiceClient

from tests.emulator.clients import connect
from tests.emulator.server import SecretManagerServer


@pytest.fixture
def server() -> Iterator[SecretManagerServer]:
    with SecretManagerServer() as running:
        yield running


@pytest.fixture(params=["grpc", "rest"])
def client(server: SecretManagerServer, request: pytest.FixtureRequest) -> SecretManagerServiceClient:
    return connect(server, request.param)
