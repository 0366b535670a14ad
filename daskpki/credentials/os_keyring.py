"""The user's OS keyring: gets, sets and deletes one entry, each in a child process with a time limit.

`keyring_backend.py` decides which backends may be used; without a usable keyring there is an error with the remedies,
never a file.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

from daskpki.confidential import Confidential, KeyringPort
from daskpki.credentials import keyring_backend
from daskpki.errors import AccessDeniedError, DaskpkiError, UsageError

MAX_CHARACTERS: Final = 1280
"""The limit of Windows' Credential Locker (2,560 bytes of UTF-16), used everywhere so that logins are portable."""

TIME_LIMIT: Final = 30.0
"""Seconds for one call: long enough to type a password into the desktop's unlock dialogue."""

WAYS_OUT: Final = (
    "unlock the keyring of your desktop session; or, for the local store, use a passphrase (DASKPKI_PASSPHRASE_FILE) "
    "or a random key file (--key-file); or, for a credential, a directory that `daskpki export` wrote "
    "(DASKPKI_CREDENTIAL_DIR)"
)


class OSKeyring(KeyringPort):
    """SecretService, libsecret, KWallet, macOS Keychain or Windows Credential Locker.

    `environ` is what the backend sees (D-Bus address, keyring's own settings; None: this process's own), and
    `time_limit` is in seconds.
    """

    def __init__(self, environ: Mapping[str, str] | None = None, *, time_limit: float = TIME_LIMIT) -> None:
        self._environ = environ
        self._time_limit = time_limit

    def get(self, service: str, username: str) -> Confidential | None:
        """The entry's secret, or None; AccessDeniedError without a usable keyring."""
        secret = self._ask({"do": "get", "service": service, "username": username})["secret"]
        return None if secret is None else Confidential(secret)

    def set(self, service: str, username: str, secret: Confidential) -> None:
        """Write the entry, read it back and compare; AccessDeniedError, UsageError for more than 1,280 characters."""
        if len(secret) > MAX_CHARACTERS or not secret.reveal().isascii():
            raise UsageError(f"a keyring entry is at most {MAX_CHARACTERS} ASCII characters, not {len(secret)} bytes")
        text = secret.reveal().decode("ascii")
        self._ask({"do": "set", "service": service, "username": username, "secret": text})

    def delete(self, service: str, username: str) -> None:
        """Remove the entry if there is one; AccessDeniedError."""
        self._ask({"do": "delete", "service": service, "username": username})

    def _ask(self, request: dict[str, str]) -> dict[str, Any]:
        # -P keeps a keyring.py in the working directory from being imported.
        command = [sys.executable, "-P", "-m", keyring_backend.__name__]
        try:
            child = subprocess.run(
                command,
                input=json.dumps(request).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=self._time_limit,
                env=None if self._environ is None else dict(self._environ),
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise AccessDeniedError(
                f"the OS keyring did not answer within {self._time_limit:g} s", hint=WAYS_OUT
            ) from None
        try:
            answer: dict[str, Any] = json.loads(child.stdout)
        except ValueError:
            raise DaskpkiError(f"the keyring process ended with exit code {child.returncode} and no answer") from None
        if "error" in answer:
            raise AccessDeniedError(answer["error"], hint=answer.get("hint", WAYS_OUT))
        return answer
