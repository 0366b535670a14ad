"""A server of their own for the tests of the servers, and the official client over each transport."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.cloud.secretmanager_v1 import SecretManagerServiceClient

from tests.emulator.clients import grpc_client, rest_client
from tests.emulator.server import SecretManagerServer


@pytest.fixture
def server() -> Iterator[SecretManagerServer]:
    with SecretManagerServer() as running:
        yield running


@pytest.fixture(params=["grpc", "rest"])
def client(server: SecretManagerServer, request: pytest.FixtureRequest) -> SecretManagerServiceClient:
    return connect(server, request.param)


def connect(server: SecretManagerServer, transport: str, token: str | None = None) -> SecretManagerServiceClient:
    if transport == "grpc":
        return grpc_client(server.grpc_target, token)
    return rest_client(server.rest_url, token)
