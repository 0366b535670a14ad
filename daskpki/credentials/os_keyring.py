"""The user's OS keyring: gets, sets and deletes one entry, each in a child process with a time limit.

A locked or prompting backend can hang for ever; a process can then be ended, a thread cannot. The child is this
module, run as a program: one request on stdin, one answer on stdout, both JSON, then it ends. Secrets pass through the
two pipes, never through argv or the environment. Only this module imports `keyring`.

Backends are allowed by name, since `keyring` by itself may pick a plaintext file (keyrings.alt), a backend that accepts
and forgets (null) or a chain of several. So the backend has to be an allowed one, even if the user's settings name it;
of a chain, the first allowed member is used. Without a usable keyring, an error names the remedies; a file is never
used instead.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from daskpki.confidential import Confidential, KeyringPort
from daskpki.errors import AccessDeniedError, DaskpkiError, UsageError

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

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
        command = [sys.executable, "-P", "-m", "daskpki.credentials.os_keyring"]
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


ALLOWED: Final = frozenset(
    (
        "keyring.backends.SecretService.Keyring",
        "keyring.backends.libsecret.Keyring",
        "keyring.backends.kwallet.DBusKeyring",
        "keyring.backends.macOS.Keyring",
        "keyring.backends.Windows.WinVaultKeyring",
    )
)
"""Backends that the operating system or the desktop encrypts; everything else is refused."""

_ABSENT: Final = "there is no OS keyring here (no desktop session, or no backend that fits)"
_CHOSEN: Final = "keyring's own setting chooses no backend that protects what it keeps"
_OVERRULE: Final = (
    "unset it for daskpki (env -u PYTHON_KEYRING_BACKEND daskpki ..., or take default-keyring out of keyringrc.cfg), "
    "and the desktop's own keyring is used"
)


class _Unusable(Exception):  # noqa: N818 - an answer to the parent, not a fault of this module
    """Raised without a usable keyring; the arguments are the reason and, if the usual remedy does not fit, another."""


def main() -> None:
    """Answer one request; an error is an answer too, so the exit code is 0 unless this module is broken."""
    request = json.load(sys.stdin.buffer)
    with contextlib.redirect_stdout(sys.stderr):  # keeps a backend's own output out of the answer
        answer = _answer(request)
    json.dump(answer, sys.stdout)


def _answer(request: dict[str, str]) -> dict[str, str | None]:
    try:
        return {"secret": _call(request)}
    except _Unusable as error:
        return dict(zip(("error", "hint"), error.args, strict=False))
    except ModuleNotFoundError as error:
        return {"error": f"{_ABSENT}: {error} (pip install 'daskpki[cli]')"}
    except Exception as error:  # noqa: BLE001 - a backend may raise anything, and all of it has to reach the parent
        text = str(error).partition("\n")[0][:200]
        return {"error": f"{_meaning(error)}: {type(error).__name__}" + (f": {text}" if text else "")}


def _call(request: dict[str, str]) -> str | None:
    backend = _choose()
    service, username = request["service"], request["username"]
    if request["do"] == "get":
        return backend.get_password(service, username)
    if request["do"] == "set":
        backend.set_password(service, username, request["secret"])
        if backend.get_password(service, username) != request["secret"]:  # some accept a secret but do not keep it
            raise _Unusable(f"the OS keyring did not keep what was written: {_name(backend)}")
    elif backend.get_password(service, username) is not None:
        backend.delete_password(service, username)
    return None


def _choose() -> KeyringBackend:
    """The backend that PYTHON_KEYRING_BACKEND or keyring's configuration names, else the best that is there."""
    from keyring import core, get_keyring
    from keyring.util.platform_ import config_root

    for setting, load in (
        ("PYTHON_KEYRING_BACKEND", core.load_env),
        (f"{config_root()}/keyringrc.cfg", core.load_config),
    ):
        try:
            named = load()
        except Exception as error:  # noqa: BLE001 - keyring imports and instantiates the named class
            fault = f"what {setting} names cannot be loaded ({type(error).__name__})"
            raise _Unusable(f"{_CHOSEN}: {fault}", _OVERRULE) from None
        if named is not None:
            if allowed := _allowed(named):
                return allowed[0]
            raise _Unusable(f"{_CHOSEN}: {setting} names {_name(named)}", _OVERRULE)
    best = get_keyring()
    if allowed := _allowed(best):
        return allowed[0]
    refused = ", ".join(name for name in map(_name, _members(best)) if name != "keyring.backends.fail.Keyring")
    raise _Unusable(f"the keyring is not one that protects what it keeps: {refused}" if refused else _ABSENT)


def _allowed(chosen: KeyringBackend) -> list[KeyringBackend]:
    return [backend for backend in _members(chosen) if _name(backend) in ALLOWED]


def _members(chosen: KeyringBackend) -> list[KeyringBackend]:
    """The backends of a chain; any other backend by itself."""
    from keyring.backends.chainer import ChainerBackend

    return list(chosen.backends) if isinstance(chosen, ChainerBackend) else [chosen]


def _name(backend: KeyringBackend) -> str:
    return f"{type(backend).__module__}.{type(backend).__qualname__}"


def _meaning(error: Exception) -> str:
    from keyring.errors import KeyringLocked, NoKeyringError

    if isinstance(error, KeyringLocked):
        return "the OS keyring is locked, and was not unlocked"
    return _ABSENT if isinstance(error, NoKeyringError) else "the OS keyring failed"


if __name__ == "__main__":
    main()
