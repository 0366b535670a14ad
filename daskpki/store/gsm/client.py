"""Connections by Google's clients: finds their credentials, and translates their exceptions.

Only this module and `daskpki.kms`, which signs by the same connection, import Google's libraries.

Messages of google-auth are not repeated, since they quote their input: GOOGLE_APPLICATION_CREDENTIALS may contain a key
instead of the name of a file. A server's reply is judged by its status, which google-auth's errors leave out.
"""

from __future__ import annotations

import json
import re
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError, DaskpkiError, UnavailableError, UsageError
from daskpki.quoting import shortened
from daskpki.settings import GRPC, Endpoint
from daskpki.store.gsm.errors import ApiError, is_temporary, status_of_http

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

VARIABLE: Final = "GOOGLE_APPLICATION_CREDENTIALS"
SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_OK: Final = 200
_NO_GRANT: Final = ("IAM_PERMISSION_DENIED", "PERMISSION_DENIED")
_PROXY_LOGIN: Final = re.compile(r"\b407\b")
_NETWORK: Final = "check the network and the proxy"


def access_token(file: Path, timeout: float, environ: Mapping[str, str]) -> Confidential:
    """Fetch a token for the credentials in `file`: a service account, person, workload federation or impersonation.

    `environ` shows whether the variable named the file. All requests together have `timeout` seconds. Raises
    UnavailableError if another attempt may succeed, AccessDeniedError if the file or its account is refused.
    """
    try:
        import google.auth
        from google.auth.credentials import with_scopes_if_required
        from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
    except ImportError:
        raise DaskpkiError(
            "these credentials need google-auth, which is not installed", hint="pip install 'daskpki[gcp]'"
        ) from None
    request = _Request(time.monotonic() + timeout)
    try:
        with warnings.catch_warnings():  # it warns of files from strangers; this one belongs to this machine's operator
            warnings.simplefilter("ignore", DeprecationWarning)
            # Unscoped: with scopes, federation also asks for the project's id, which is not needed.
            unscoped, _ = google.auth.load_credentials_from_file(str(file))
        credentials = with_scopes_if_required(unscoped, [SCOPE])
        credentials.refresh(request)
    except _TemporaryFailure as error:
        raise UnavailableError(f"no access token: {error}", hint=_NETWORK) from None
    except TransportError as error:
        raise transport_error(error) from None
    except RefreshError as error:
        raise refresh_error(error) from None
    except (GoogleAuthError, OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise unusable(error, environ) from None
    return Confidential(str(credentials.token))


class _TemporaryFailure(Exception):  # noqa: N818 - becomes UnavailableError
    """A temporary failure of a server."""


class _Request:
    """google-auth's own transport with one time limit for all requests; raises _TemporaryFailure.

    So google-auth makes no retries itself, which have no limit and miss 502; the boot's retry policy makes them.
    """

    def __init__(self, end: float) -> None:
        from google.auth.transport.requests import Request

        self._send = Request()
        self._end = end

    def __call__(self, url: str, method: str = "GET", **more: Any) -> Any:
        left = self._end - time.monotonic()
        if left <= 0:
            raise _TemporaryFailure("no answer in time")
        response = self._send(url, method, **{**more, "timeout": left})
        if is_temporary(response.status):
            raise _TemporaryFailure(f"a server of Google's or a proxy answers {response.status}")
        if response.status != _OK and _lacks_grant(response.data):
            raise _TemporaryFailure(
                "the account may not be impersonated (yet): grant roles/iam.workloadIdentityUser, or "
                "roles/iam.serviceAccountTokenCreator; a new grant takes some minutes to act"
            )
        return response


def _lacks_grant(body: bytes) -> bool:
    """True if one of Google's APIs answers that a grant is missing; the token endpoint never does."""
    try:
        return json.loads(body)["error"]["status"] in _NO_GRANT
    except (ValueError, RecursionError, KeyError, TypeError):
        return False


def transport_error(error: Exception) -> DaskpkiError:
    """Explain that google-auth got no reply: a proxy demands a login, which is permanent, or the network failed."""
    if _PROXY_LOGIN.search(str(error)):
        return AccessDeniedError(
            "no access token: the proxy wants a login (407)",
            hint="https_proxy=http://USER:PASSWORD@HOST:PORT sets proxy and login; hosts in no_proxy bypass it",
        )
    return UnavailableError(f"no access token: no complete answer ({_kind(error)})", hint=_NETWORK)


def refresh_error(error: Exception) -> AccessDeniedError:
    """Explain that the credentials got no token, by the code in the reply (RFC 6749, 5.2) if it has one."""
    answer = next((part for part in error.args if isinstance(part, Mapping)), {})
    code, described = answer.get("error"), answer.get("error_description")
    words = shortened(": ".join(part for part in (code, described) if isinstance(part, str)))
    return AccessDeniedError(
        f"the Google credentials give no access token: {words or _kind(error)}",
        hint=f"gcloud auth application-default login, or another file in {VARIABLE}",
    )


def unusable(error: Exception, environ: Mapping[str, str]) -> AccessDeniedError:
    """Explain that google-auth found no credentials that it can use."""
    if environ.get(VARIABLE):
        return AccessDeniedError(
            f"{VARIABLE} does not name a file with usable Google credentials ({_kind(error)})",
            hint=f"set {VARIABLE} to the path of such a file, without quotes, or unset it; while it is set, other "
            "credentials and logins are ignored",
        )
    return AccessDeniedError(
        "no Google credentials were found that can be used", hint="gcloud auth application-default login"
    )


def _kind(error: BaseException) -> str:
    """The class of the cause, since its text must not be repeated."""
    return type(error.__cause__ or error).__name__


_IDENTITY: Final = ("GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST", "GCE_METADATA_IP")
_MAX: Final = 16 << 20


Service = Callable[[], Any]
"""Imports the class of one of Google's clients; UsageError that names the extra to install."""


def secret_manager() -> Any:
    """The client of Secret Manager."""
    try:
        from google.cloud.secretmanager_v1 import SecretManagerServiceClient
    except ImportError as error:
        raise UsageError("gsm:// stores need Google's client library", hint="pip install 'daskpki[gcp]'") from error
    return SecretManagerServiceClient


class GoogleConnection:
    """A client at one endpoint, safe for threads; created at the first call, since importing it costs 0.3 s."""

    def __init__(self, service: Service, endpoint: Endpoint, environ: Mapping[str, str]) -> None:
        self._service = service
        self._endpoint = endpoint
        self._environ = environ
        self._client: Any = None
        self._lock = threading.Lock()
        self._metadata: Callable[[], list[tuple[str, str]]] = list

    def call(self, method: str, request: Mapping[str, Any], **options: Any) -> Any:
        """Send one request, with the client's own options, and return the reply; ApiError, AccessDeniedError."""
        try:
            with self._lock:  # segments are read by several threads
                if self._client is None:
                    self._client = self._connect()
            return getattr(self._client, method)(request=dict(request), metadata=self._metadata(), **options)
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
            self._client.transport.close()
            self._client = None

    def _connect(self) -> Any:
        client = self._service()
        credentials, address = credentials_for(self._endpoint, self._environ), self._endpoint.address
        if self._endpoint.encrypted or self._endpoint.transport != GRPC:
            options = {"api_endpoint": address if self._endpoint.encrypted else f"http://{address}"}
            return client(credentials=credentials, transport=self._endpoint.transport, client_options=options)
        import grpc

        # Without TLS, to loopback only: grpc attaches no token there, so each call carries its own.
        self._metadata = bearer(credentials)
        channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", _MAX)])
        transport = client.get_transport_class(GRPC)
        return client(transport=transport(channel=channel, credentials=credentials))


def checksum(data: bytes) -> int:
    """CRC32C, as Secret Manager keeps it with each payload."""
    import google_crc32c

    return int(google_crc32c.value(data))


def credentials_for(endpoint: Endpoint, environ: Mapping[str, str]) -> Credentials:
    """Find Application Default Credentials; anonymous ones on unencrypted loopback if the environment names none."""
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
    """Return a function that makes the metadata with a current token."""
    from google.auth.transport.requests import Request

    request = Request()

    def metadata() -> list[tuple[str, str]]:
        headers: dict[str, str] = {}
        credentials.before_request(request, "POST", "", headers)
        return [(name.lower(), value) for name, value in headers.items()]

    return metadata


def translate(error: Exception, address: str) -> ApiError | AccessDeniedError | None:
    """Translate an exception of Google's libraries, or of those below them; None for any other, which is a bug.

    `address` is the called endpoint.
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
        return ApiError("UNAVAILABLE", f"no complete answer from {address} ({type(error).__name__})")
    return None


def _refusal(error: Any) -> ApiError:
    """Take the canonical status from gRPC, or from the body over REST, where the exception has only the HTTP code."""
    if hasattr(error.response, "json"):
        try:
            body = dict(error.response.json()["error"])
        except (ValueError, KeyError, TypeError):  # a front end's page
            body = {}
        status = body.get("status") or status_of_http(int(error.code or 500))
    else:
        body, status = {}, error.grpc_status_code.name if error.grpc_status_code else "UNKNOWN"
    return ApiError(status, body.get("message") or str(error.message), error.reason or "", error.metadata)
