"""An access token from Application Default Credentials other than a VM's own, through google-auth."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Final

from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError, DaskpkiError, UnavailableError

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"


def access_token(file: Path, timeout: float) -> Confidential:
    """A token for the credentials in `file` (service account, person, workload identity federation, impersonation).

    Each request has `timeout` seconds. Raises UnavailableError when Google could not be reached, AccessDeniedError when
    the file is refused.
    """
    try:
        import google.auth
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
        from google.auth.transport.requests import Request
    except ImportError:
        raise DaskpkiError(
            f"{file} needs google-auth, which is not installed", hint="pip install 'daskpki[gcp]'"
        ) from None
    try:
        with warnings.catch_warnings():  # about files from strangers; this one was put here by who runs the machine
            warnings.simplefilter("ignore", DeprecationWarning)
            credentials, _ = google.auth.load_credentials_from_file(str(file), scopes=[_SCOPE])
        credentials.refresh(partial(Request(), timeout=timeout))
    except TransportError as error:
        raise UnavailableError(
            f"no access token for {file}: {error}", hint="check the network and the proxy"
        ) from error
    except (DefaultCredentialsError, GoogleAuthError, ValueError, AttributeError) as error:
        raise AccessDeniedError(
            f"{file} gives no access token: {error}", hint="gcloud auth application-default login"
        ) from error
    return Confidential(str(credentials.token))
