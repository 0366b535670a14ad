"""The OS keyring in a child process: one request on stdin, one answer on stdout, both JSON, then it ends.

The only module that imports `keyring`. It runs as a child of `daskpki.credentials.os_keyring`, because a locked or
prompting backend can hang for ever, and a process can be cut off where a thread cannot. Secrets pass through the two
pipes, never through argv or the environment.

Backends are allowed by name. What `keyring` picks by itself may be a plaintext file (keyrings.alt), a backend that
accepts and forgets (null) or a chain of several. So the backend has to be an allowed one, whether the user's settings
name it or not, and a chain is looked into.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

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

_NOTHING: Final = "keyring.backends.fail.Keyring"

# What went wrong, as os_keyring.py reads it.
ABSENT: Final = "absent"
CHOSEN: Final = "chosen"
REFUSED: Final = "refused"
LOCKED: Final = "locked"
FORGOTTEN: Final = "forgotten"
FAILED: Final = "failed"


class _Unusable(Exception):  # noqa: N818 - an answer to the parent, not a fault of this module
    """Raised without a usable keyring; the arguments are the kind and a detail for the message."""


def main() -> None:
    """Answer one request; an error is an answer too, so the exit code is 0 unless this module is broken."""
    request = json.load(sys.stdin.buffer)
    with contextlib.redirect_stdout(sys.stderr):  # what a backend prints is no part of the answer
        answer = _answer(request)
    json.dump(answer, sys.stdout)


def _answer(request: dict[str, str]) -> dict[str, str | None]:
    try:
        return {"secret": _call(request)}
    except _Unusable as error:
        return {"error": error.args[0], "detail": error.args[1]}
    except ModuleNotFoundError as error:
        return {"error": ABSENT, "detail": f"{error} (pip install 'daskpki[cli]')"}
    except Exception as error:  # noqa: BLE001 - a backend may raise anything, and all of it has to reach the parent
        text = str(error).partition("\n")[0][:200]
        detail = f"{type(error).__name__}: {text}" if text else type(error).__name__
        return {"error": _kind(error), "detail": detail}


def _call(request: dict[str, str]) -> str | None:
    backend = _choose()
    service, username = request["service"], request["username"]
    if request["do"] == "get":
        return backend.get_password(service, username)
    if request["do"] == "set":
        backend.set_password(service, username, request["secret"])
        if backend.get_password(service, username) != request["secret"]:  # some accept what they do not keep
            raise _Unusable(FORGOTTEN, _name(backend))
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
        if named := _named_by(setting, load):
            return named
    return allowed_backend(get_keyring())


def _named_by(setting: str, load: Callable[[], KeyringBackend | None]) -> KeyringBackend | None:
    """The backend that keyring's own setting names for all programs; None if it is not set."""
    try:
        named = load()
        return None if named is None else allowed_backend(named)
    except _Unusable as error:
        raise _Unusable(CHOSEN, f"{setting} names {error.args[1] or _NOTHING}") from None
    except Exception as error:  # noqa: BLE001 - keyring imports what is named there, and makes one of it
        raise _Unusable(CHOSEN, f"what {setting} names cannot be loaded ({type(error).__name__})") from None


def allowed_backend(chosen: KeyringBackend) -> KeyringBackend:
    """The backend to call: the chosen one, or the first allowed one of a chain."""
    from keyring.backends.chainer import ChainerBackend

    members: list[KeyringBackend] = list(chosen.backends) if isinstance(chosen, ChainerBackend) else [chosen]
    for backend in members:
        if _name(backend) in ALLOWED:
            return backend
    refused = ", ".join(_name(backend) for backend in members if _name(backend) != _NOTHING)
    if refused:
        raise _Unusable(REFUSED, refused)
    raise _Unusable(ABSENT, "")


def _name(backend: KeyringBackend) -> str:
    return f"{type(backend).__module__}.{type(backend).__qualname__}"


def _kind(error: Exception) -> str:
    from keyring.errors import KeyringLocked, NoKeyringError

    if isinstance(error, KeyringLocked):
        return LOCKED
    return ABSENT if isinstance(error, NoKeyringError) else FAILED


if __name__ == "__main__":
    main()
