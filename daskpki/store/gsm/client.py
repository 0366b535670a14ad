"""The one module that imports Google's libraries: the official client, its credentials, and what its exceptions mean.

The client's own retries are off, since only `access` has any, and those miss REST's 429: `GsmApi` retries instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from daskpki.errors import AccessDeniedError, DaskpkiError, UsageError
from daskpki.store.gsm.adc import SCOPE, refresh_error, transport_error, unusable
from daskpki.store.gsm.endpoint import GRPC, Endpoint
from daskpki.store.gsm.refusals import Refusal, status_of_http

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient

_IDENTITY: Final = ("GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST", "GCE_METADATA_IP")
_MAX: Final = 16 << 20


class Connection:
    """One client to one endpoint, safe for threads; made at its first call, since importing it costs 0.3 s."""

    def __init__(self, endpoint: Endpoint, environ: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._environ = environ
        self._client: SecretManagerServiceClient | None = None
        self._lock = threading.Lock()
        self._metadata: Callable[[], list[tuple[str, str]]] = list

    def call(self, method: str, request: Mapping[str, Any], timeout: float) -> Any:
        """The reply to one request, tried once within `timeout` seconds; raises Refusal, AccessDeniedError."""
        try:
            client = self._connected()
            return getattr(client, method)(
                request=dict(request), retry=None, timeout=timeout, metadata=self._metadata()
            )
        except DaskpkiError:
            raise
        except Exception as error:
            translated = translate(error, self._endpoint.address)
            if translated is None:
                raise
            raise translated from error

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.transport.close()  # type: ignore[no-untyped-call] # the client is typed in part
            self._client = None

    def _connected(self) -> SecretManagerServiceClient:
        with self._lock:  # segments are read by several threads
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> SecretManagerServiceClient:
        try:
            from google.cloud.secretmanager_v1 import SecretManagerServiceClient
        except ImportError as error:
            raise UsageError("gsm:// stores need Google's client library", hint="pip install 'daskpki[gcp]'") from error
        credentials = credentials_for(self._endpoint, self._environ)
        if self._endpoint.transport == GRPC and not self._endpoint.encrypted:
            return self._connect_plain(credentials)
        scheme = "" if self._endpoint.encrypted else "http://"
        return SecretManagerServiceClient(
            credentials=credentials,
            transport=self._endpoint.transport,
            client_options={"api_endpoint": scheme + self._endpoint.address},
        )

    def _connect_plain(self, credentials: Credentials) -> SecretManagerServiceClient:
        """GRPC without TLS, to loopback only: grpc attaches no token there, so each call carries its own."""
        import grpc
        from google.cloud.secretmanager_v1 import SecretManagerServiceClient
        from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
            SecretManagerServiceGrpcTransport,
        )

        self._metadata = bearer(credentials)
        channel = grpc.insecure_channel(self._endpoint.address, options=[("grpc.max_receive_message_length", _MAX)])
        transport = SecretManagerServiceGrpcTransport(channel=channel, credentials=credentials)
        return SecretManagerServiceClient(transport=transport)


def checksum(data: bytes) -> int:
    """CRC32C, as Secret Manager keeps it with each payload."""
    import google_crc32c

    return int(google_crc32c.value(data))


def credentials_for(endpoint: Endpoint, environ: Mapping[str, str]) -> Credentials:
    """Application Default Credentials; nobody's, on loopback without encryption, when the environment names none."""
    import google.auth
    from google.auth.credentials import AnonymousCredentials, with_scopes_if_required
    from google.auth.exceptions import GoogleAuthError

    if not endpoint.encrypted and not any(environ.get(variable) for variable in _IDENTITY):
        return AnonymousCredentials()
    try:  # unscoped: with scopes, federation asks for the project's id as well, which nobody uses, for 120 s
        credentials, _ = google.auth.default()
    except (GoogleAuthError, OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise unusable(error, environ) from None
    scoped: Credentials = with_scopes_if_required(credentials, [SCOPE])
    return scoped


def bearer(credentials: Credentials) -> Callable[[], list[tuple[str, str]]]:
    """What makes the metadata with a current token."""
    from google.auth.transport.requests import Request

    request = Request()

    def metadata() -> list[tuple[str, str]]:
        headers: dict[str, str] = {}
        credentials.before_request(request, "POST", "", headers)
        return [(name.lower(), value) for name, value in headers.items()]

    return metadata


def translate(error: Exception, address: str) -> Refusal | AccessDeniedError | None:
    """What an exception of Google's libraries, or of those below them, means; None for any other, which is a bug.

    `address` is whom the call was for.
    """
    import requests
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.protobuf.json_format import ParseError

    if isinstance(error, GoogleAPICallError):
        return _refusal(error)
    if isinstance(error, TransportError) and isinstance(refused := transport_error(error), AccessDeniedError):
        return refused
    if isinstance(error, GoogleAuthError) and not (isinstance(error, TransportError) or error.retryable):
        return refresh_error(error)
    if isinstance(error, (GoogleAuthError, requests.RequestException, ParseError, OSError)):
        return Refusal("UNAVAILABLE", f"no complete answer from {address} ({type(error).__name__})")
    return None


def _refusal(error: Any) -> Refusal:
    """The canonical status: from gRPC itself; over REST from the body, where the class follows the HTTP code only."""
    if hasattr(error.response, "json"):
        body = _json_error(error.response)
        status = body.get("status") or status_of_http(int(error.code or 500))
    else:
        body, status = {}, error.grpc_status_code.name if error.grpc_status_code else "UNKNOWN"
    return Refusal(status, body.get("message") or str(error.message), error.reason or "", error.metadata)


def _json_error(response: Any) -> Mapping[str, Any]:
    """The error object of a REST reply; empty for gRPC, and for a page that some front end made up."""
    try:
        return dict(response.json()["error"])
    except (AttributeError, ValueError, KeyError, TypeError):
        return {}
