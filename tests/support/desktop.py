"""A desktop session without a screen: a D-Bus daemon of its own and a real gnome-keyring, unlocked.

Its keyring is read here by a connection of this process: a program for each call is slow, and `OSKeyring`'s own tests
look at that.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from jeepney.io.blocking import open_dbus_connection
from keyring.backends import SecretService
from keyring.errors import PasswordDeleteError
from secretstorage import Collection, get_default_collection

from daskpki.confidential import Confidential

PASSWORD = "pw"


class Desktop(NamedTuple):
    """A running session; `environ` is what a program needs to find it."""

    environ: dict[str, str]

    def lock(self) -> None:
        """Lock the keyring, as a screen saver does."""
        collection = self.collection()
        with closing(collection.connection):
            collection.lock()

    def items(self) -> list[str]:
        """Label and attributes of every entry, as any process of the user may read them, locked or not."""
        collection = self.collection()
        with closing(collection.connection):
            entries = [(item.get_label(), item.get_attributes()) for item in collection.get_all_items()]
        return [f"{label} {sorted(attributes.items())}" for label, attributes in entries]

    def collection(self) -> Collection:
        """The keyring's entries, on a connection to be closed."""
        return get_default_collection(open_dbus_connection(self.environ["DBUS_SESSION_BUS_ADDRESS"]))


class SessionKeyring:
    """Implements KeyringPort by the entries that `OSKeyring` has in a session."""

    def __init__(self, session: Desktop) -> None:
        self._backend = _Backend(session)

    def get(self, service: str, username: str) -> Confidential | None:
        secret = self._backend.get_password(service, username)
        return None if secret is None else Confidential(secret)

    def set(self, service: str, username: str, secret: Confidential) -> None:
        self._backend.set_password(service, username, secret.reveal().decode())

    def delete(self, service: str, username: str) -> None:
        with suppress(PasswordDeleteError):
            self._backend.delete_password(service, username)


class _Backend(SecretService.Keyring):
    """The backend that `OSKeyring` uses there, with the session's address instead of this process's."""

    def __init__(self, session: Desktop) -> None:
        super().__init__()
        self._session = session

    def get_preferred_collection(self) -> Collection:
        return self._session.collection()


@contextmanager
def desktop() -> Iterator[Desktop]:
    """Start both daemons, and end them by their own handles."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="desk-")))
        environ = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home), "XDG_DATA_HOME": str(home / "data")}
        for variable in ("DISPLAY", "WAYLAND_DISPLAY", "PYTHON_KEYRING_BACKEND", "GNOME_KEYRING_CONTROL"):
            environ.pop(variable, None)
        environ["DBUS_SESSION_BUS_ADDRESS"] = _start_dbus(stack, environ)
        _start_keyring(stack, environ, home)
        yield Desktop(environ)


def _start_dbus(stack: ExitStack, environ: dict[str, str]) -> str:
    command = ["dbus-daemon", "--session", "--nofork", "--nosyslog", "--print-address=1"]
    daemon = _start(stack, command, environ)
    assert daemon.stdout is not None
    address = daemon.stdout.readline().decode().strip()
    assert address, "dbus-daemon ended at once"
    return address


def _start_keyring(stack: ExitStack, environ: dict[str, str], home: Path) -> None:
    command = ["gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets"]
    daemon = _start(stack, [*command, f"--control-directory={home / 'keyring'}"], environ)
    assert daemon.stdin is not None
    assert daemon.stdout is not None
    daemon.stdin.write(PASSWORD.encode())
    daemon.stdin.close()
    assert daemon.stdout.readline(), "gnome-keyring-daemon ended at once"  # it prints its variables once it is ready


def _start(stack: ExitStack, command: list[str], environ: dict[str, str]) -> subprocess.Popen[bytes]:
    daemon = subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    stack.callback(_end, daemon)
    return daemon


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(timeout=10)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
    for pipe in (daemon.stdin, daemon.stdout):
        if pipe is not None:
            pipe.close()
