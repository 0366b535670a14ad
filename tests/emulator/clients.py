"""The official client, pointed at a server of this package and carrying a bearer token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
    SecretManagerServiceGrpcTransport,
)
from google.oauth2.credentials import Credentials

from tests.emulator.server import SecretManagerServer


def grpc_client(target: str, token: str | None = None) -> SecretManagerServiceClient:
    """The official client over gRPC without TLS."""
    channel: Any = grpc.insecure_channel(target)
    if token:
        channel = grpc.intercept_channel(channel, _Bearer(token))
    transport = SecretManagerServiceGrpcTransport(channel=channel, credentials=AnonymousCredentials())
    return SecretManagerServiceClient(transport=transport)


def rest_client(url: str, token: str | None = None) -> SecretManagerServiceClient:
    """The official client over REST."""
    credentials = Credentials(token) if token else AnonymousCredentials()
    options = ClientOptions(api_endpoint=url)
    return SecretManagerServiceClient(transport="rest", credentials=credentials, client_options=options)


def connect(server: SecretManagerServer, transport: str, token: str | None = None) -> SecretManagerServiceClient:
    if transport == "grpc":
        return grpc_client(server.grpc_target, token)
    return rest_client(server.rest_url, token)


class _Bearer(grpc.UnaryUnaryClientInterceptor):  # type: ignore[type-arg] # generic in the stubs only
    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    def intercept_unary_unary(
        self, continuation: Callable[[grpc.ClientCallDetails, Any], Any], details: Any, request: Any
    ) -> Any:
        metadata = [*(details.metadata or ()), self._header]
        return continuation(details._replace(metadata=metadata), request)
