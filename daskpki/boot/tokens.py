"""Whose access token a boot uses, in google-auth's order: a file of credentials, else the VM's own service account."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from os.path import isfile
from typing import Protocol

from daskpki.boot.metadata import Metadata
from daskpki.boot.retry import Patience, TryAgain, within
from daskpki.confidential import Confidential
from daskpki.errors import UnavailableError


class Tokens(Protocol):
    """Where access tokens come from."""

    def token(self) -> Confidential:
        """A fresh one; AccessDeniedError, UnavailableError."""
        ...

    def account(self) -> str | None:
        """For whom, as far as anyone can tell."""
        ...


def token_source(environ: Mapping[str, str], patience: Patience) -> Tokens:
    """The source of this machine."""
    file = credential_file(environ)
    return Metadata(environ, patience) if file is None else FileTokens(file, environ, patience)


def credential_file(environ: Mapping[str, str]) -> str | None:
    """The file that comes before the metadata server: the one that a variable names, then gcloud's own."""
    if chosen := environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return chosen
    directory = environ.get("CLOUDSDK_CONFIG") or f"{environ.get('HOME') or ''}/.config/gcloud"
    own = f"{directory}/application_default_credentials.json"
    return own if isfile(own) else None  # noqa: PTH113 - pathlib's is slower


class FileTokens:
    """Tokens for a service account's key, a person, impersonation or workload identity federation: by google-auth."""

    def __init__(self, file: str, environ: Mapping[str, str], patience: Patience) -> None:
        self._file = file
        self._environ = environ
        self._patience = patience

    def token(self) -> Confidential:
        """See Tokens."""
        return self._patience.persist(self._attempt)

    def account(self) -> str | None:
        """See Tokens."""
        return None

    def _attempt(self, timeout: float) -> Confidential:
        from pathlib import Path

        from daskpki.store.gsm.adc import access_token

        try:
            ask = partial(access_token, Path(self._file), timeout, self._environ)
            return within(timeout, ask, "no access token: no answer in time")
        except (UnavailableError, TimeoutError) as error:
            raise TryAgain(str(error), hint=getattr(error, "hint", None)) from error
