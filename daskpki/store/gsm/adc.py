"""Application Default Credentials through google-auth: a boot's access token, and why there are none.

What google-auth says is not repeated, since it quotes what it was given: GOOGLE_APPLICATION_CREDENTIALS may hold a key
in place of a file's name. What a server answered is judged by its status, which google-auth's errors leave out.
"""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError, DaskpkiError, UnavailableError
from daskpki.quoting import shortened

VARIABLE: Final = "GOOGLE_APPLICATION_CREDENTIALS"
SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_OK: Final = 200
_TRANSIENT: Final = (408, 429)
_NO_GRANT: Final = ("IAM_PERMISSION_DENIED", "PERMISSION_DENIED")
_LOGIN_WANTED: Final = re.compile(r"\b407\b")
_NETWORK: Final = "check the network and the proxy"


def access_token(file: Path, timeout: float, environ: Mapping[str, str]) -> Confidential:
    """A token for the credentials in `file` (service account, person, workload identity federation, impersonation).

    `environ` says whether the variable chose it. All requests together have `timeout` seconds. Raises UnavailableError
    for what may go better next time, AccessDeniedError when the file or its account is refused.
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
        with warnings.catch_warnings():  # about files from strangers; this one was put here by who runs the machine
            warnings.simplefilter("ignore", DeprecationWarning)
            # Unscoped: with scopes, federation asks for the project's id as well, which nobody uses.
            unscoped, _ = google.auth.load_credentials_from_file(str(file))
        credentials = with_scopes_if_required(unscoped, [SCOPE])
        credentials.refresh(request)
    except _Passing as error:
        raise UnavailableError(f"no access token: {error}", hint=_NETWORK) from None
    except TransportError as error:
        raise transport_error(error) from None
    except RefreshError as error:
        raise refresh_error(error) from None
    except (GoogleAuthError, OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise unusable(error, environ) from None
    return Confidential(str(credentials.token))


class _Passing(Exception):  # noqa: N818 - becomes UnavailableError
    """A server's answer that another attempt may mend."""


class _Request:
    """google-auth's own transport with one limit for all requests; raises _Passing for what may pass.

    So google-auth's own attempts, which know no limit and miss 502, are not made: a boot's patience repeats all of it.
    """

    def __init__(self, end: float) -> None:
        from google.auth.transport.requests import Request

        self._send = Request()
        self._end = end

    def __call__(self, url: str, method: str = "GET", **more: Any) -> Any:
        left = self._end - time.monotonic()
        if left <= 0:
            raise _Passing("no answer in time")
        response = self._send(url, method, **{**more, "timeout": left})
        if response.status in _TRANSIENT or response.status >= 500:  # noqa: PLR2004 - server errors
            raise _Passing(f"a server of Google's, or a proxy, answers {response.status}")
        if response.status != _OK and _lacks_grant(response.data):
            raise _Passing(
                "the account may not be impersonated (yet): grant roles/iam.workloadIdentityUser, or "
                "roles/iam.serviceAccountTokenCreator; a new grant takes some minutes to act"
            )
        return response


def _lacks_grant(body: bytes) -> bool:
    """Whether the answer is that of an API of Google's about a missing grant; the token endpoint knows no such one."""
    try:
        return json.loads(body)["error"]["status"] in _NO_GRANT
    except (ValueError, KeyError, TypeError):
        return False


def transport_error(error: Exception) -> DaskpkiError:
    """What it means that google-auth got no answer: a proxy that wants a login, which no waiting mends, or the way."""
    if _LOGIN_WANTED.search(str(error)):
        return AccessDeniedError(
            "no access token: the proxy wants a login (407)",
            hint="https_proxy=http://USER:PASSWORD@HOST:PORT and no_proxy say who goes through it, and as whom",
        )
    return UnavailableError(f"no access token: no complete answer ({_kind(error)})", hint=_NETWORK)


def refresh_error(error: Exception) -> AccessDeniedError:
    """What it means that the credentials got no token: by the code of the answer (RFC 6749, 5.2), if it has one."""
    answer = next((part for part in error.args if isinstance(part, Mapping)), {})
    code, described = answer.get("error"), answer.get("error_description")
    words = shortened(": ".join(part for part in (code, described) if isinstance(part, str)))
    return AccessDeniedError(
        f"the Google credentials give no access token: {words or _kind(error)}",
        hint=f"gcloud auth application-default login, or another file in {VARIABLE}",
    )


def unusable(error: Exception, environ: Mapping[str, str]) -> AccessDeniedError:
    """What it means that google-auth found no credentials that it can use."""
    if environ.get(VARIABLE):
        return AccessDeniedError(
            f"{VARIABLE} names no file with credentials of Google's that can be used ({_kind(error)})",
            hint=f"set {VARIABLE} to the path of such a file, without quotes, or unset it; while it is set, no other "
            "credentials and no login are looked at",
        )
    return AccessDeniedError(
        "no Google credentials were found that can be used", hint="gcloud auth application-default login"
    )


def _kind(error: BaseException) -> str:
    """The class of what was the matter, whose text is not repeated."""
    return type(error.__cause__ or error).__name__
