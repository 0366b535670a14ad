"""A desktop session without a screen: a D-Bus daemon of its own and a real gnome-keyring, unlocked."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

PASSWORD = "pw"


class Desktop(NamedTuple):
    """A running session; `environ` is what a program needs to find it."""

    environ: dict[str, str]

    def lock(self) -> None:
        """Lock the keyring, as a screen saver does."""
        _secretstorage("secretstorage.get_default_collection(connection).lock()", self.environ)

    def items(self) -> list[str]:
        """Label and attributes of every entry, as any process of the user may read them, locked or not."""
        script = (
            "[print(item.get_label(), sorted(item.get_attributes().items()))"
            " for item in secretstorage.get_default_collection(connection).get_all_items()]"
        )
        return _secretstorage(script, self.environ).splitlines()


def _secretstorage(script: str, environ: dict[str, str]) -> str:
    code = f"import secretstorage; connection = secretstorage.dbus_init(); {script}"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environ, check=True, capture_output=True, text=True, timeout=20).stdout


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
