"""The OS keyring, on a real gnome-keyring: what is kept, what is refused, and that nothing hangs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daskpki.confidential import Confidential
from daskpki.credentials.os_keyring import MAX_CHARACTERS, OSKeyring
from daskpki.errors import AccessDeniedError, UsageError
from tests.support.desktop import Desktop, desktop

_ROOT = Path(__file__).parents[2]


def _environ(session: Desktop, home: Path, **more: str) -> dict[str, str]:
    return {**session.environ, "HOME": str(home), "PYTHONPATH": str(_ROOT), **more}


def test_an_entry_is_kept_replaced_and_removed(keyring: OSKeyring) -> None:
    assert keyring.get("daskpki-t1", "credential") is None
    keyring.set("daskpki-t1", "credential", Confidential("first"))
    keyring.set("daskpki-t1", "credential", Confidential("second"))
    assert keyring.get("daskpki-t1", "credential") == Confidential("second")
    keyring.delete("daskpki-t1", "credential")
    keyring.delete("daskpki-t1", "credential")
    assert keyring.get("daskpki-t1", "credential") is None


def test_the_longest_entry_fits_and_a_longer_one_is_refused(keyring: OSKeyring) -> None:
    keyring.set("daskpki-t2", "credential", Confidential("x" * MAX_CHARACTERS))
    with pytest.raises(UsageError, match="at most 1280"):
        keyring.set("daskpki-t2", "credential", Confidential("x" * (MAX_CHARACTERS + 1)))
    assert keyring.get("daskpki-t2", "credential") == Confidential("x" * MAX_CHARACTERS)
    keyring.delete("daskpki-t2", "credential")


def test_a_locked_keyring_is_an_error_with_the_ways_out() -> None:
    with desktop() as own:
        keyring = OSKeyring(own.environ, time_limit=20)
        keyring.set("daskpki-t3", "credential", Confidential("kept"))
        own.lock()
        with pytest.raises(AccessDeniedError, match="locked") as refusal:
            keyring.get("daskpki-t3", "credential")
    hint = str(refusal.value.hint)
    for way in ("unlock", "DASKPKI_PASSPHRASE_FILE", "--key-file", "DASKPKI_CREDENTIAL_DIR"):
        assert way in hint


def test_without_a_session_bus_there_is_no_keyring(tmp_path: Path) -> None:
    environ = {k: v for k, v in os.environ.items() if k != "DBUS_SESSION_BUS_ADDRESS"}
    environ |= {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    with pytest.raises(AccessDeniedError, match="there is no OS keyring here"):
        OSKeyring(environ).get("daskpki-t4", "credential")


@pytest.mark.parametrize("backend", ["keyring.backends.null.Keyring", "tests.support.plaintext.Plaintext"])
def test_a_backend_that_does_not_protect_is_refused(session: Desktop, tmp_path: Path, backend: str) -> None:
    keyring = OSKeyring(_environ(session, tmp_path, PYTHON_KEYRING_BACKEND=backend))
    with pytest.raises(AccessDeniedError, match=f"PYTHON_KEYRING_BACKEND names {backend}"):
        keyring.set("daskpki-t5", "credential", Confidential("secret"))
    assert not (tmp_path / "plaintext.json").exists()


@pytest.mark.parametrize("setting", [{}, {"PYTHON_KEYRING_BACKEND": "keyring.backends.chainer.ChainerBackend"}])
def test_a_plaintext_backend_that_outranks_the_real_one_is_not_used(
    session: Desktop, tmp_path: Path, setting: dict[str, str]
) -> None:
    _install_plaintext(tmp_path)
    environ = _environ(session, tmp_path, PYTHONPATH=f"{_ROOT}{os.pathsep}{tmp_path}", **setting)
    assert "ChainerBackend" in _chosen_by_keyring_itself(environ)
    keyring = OSKeyring(environ)
    keyring.set("daskpki-t6", "credential", Confidential("secret"))
    assert any("daskpki-t6" in item for item in session.items())
    assert not (tmp_path / "plaintext.json").exists()
    keyring.delete("daskpki-t6", "credential")


def test_where_only_a_plaintext_backend_is_there_it_is_named_and_refused(tmp_path: Path) -> None:
    _install_plaintext(tmp_path)
    environ = {k: v for k, v in os.environ.items() if k != "DBUS_SESSION_BUS_ADDRESS"}
    environ |= {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": f"{_ROOT}:{tmp_path}"}
    with pytest.raises(AccessDeniedError, match=r"not one that protects what it keeps: tests\.support\.plaintext"):
        OSKeyring(environ).set("daskpki-t8", "credential", Confidential("secret"))
    assert not (tmp_path / "plaintext.json").exists()


def _install_plaintext(directory: Path) -> None:
    """A distribution that registers the plaintext backend, as keyrings.alt does."""
    package = directory / "plain-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: plain\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[keyring.backends]\nplain = tests.support.plaintext\n")


def _chosen_by_keyring_itself(environ: dict[str, str]) -> str:
    code = "import keyring; print(keyring.get_keyring())"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=30).stdout


def test_a_keyring_that_hangs_is_cut_off_and_shows_no_secret(session: Desktop, tmp_path: Path) -> None:
    environ = _environ(session, tmp_path, PYTHON_KEYRING_BACKEND="tests.support.hanging.Hanging", PLANTED="canary-2")
    began = time.monotonic()
    with pytest.raises(AccessDeniedError, match="did not answer within 3 s"):
        OSKeyring(environ, time_limit=3).set("daskpki-t7", "credential", Confidential("canary-1"))
    assert time.monotonic() - began < 10
    child = int((tmp_path / "hanging.pid").read_text())
    assert not Path(f"/proc/{child}").exists()
    seen = (tmp_path / "hanging.seen").read_bytes()
    assert b"canary-1" not in seen
    assert b"canary-2" in seen


@pytest.mark.parametrize("named", ["some_registry_helper.Backend", "keyring.backends.null.Keyring", "nothing", ""])
@pytest.mark.parametrize("setting", ["PYTHON_KEYRING_BACKEND", "keyringrc.cfg"])
def test_a_setting_of_keyrings_own_is_named_where_it_is_the_cause(tmp_path: Path, setting: str, named: str) -> None:
    """As pip's helpers for package registries set it, for all programs."""
    environ = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "PYTHONPATH": str(_ROOT)}
    environ.pop("PYTHON_KEYRING_BACKEND", None)
    if setting == "PYTHON_KEYRING_BACKEND":
        environ[setting] = named
    else:
        (tmp_path / "python_keyring").mkdir()
        (tmp_path / "python_keyring" / setting).write_text(f"[backend]\ndefault-keyring={named}\n")
    with pytest.raises(AccessDeniedError, match="keyring's own setting") as caught:
        OSKeyring(environ).get("daskpki-t9", "credential")
    assert setting in str(caught.value)
    assert "PYTHON_KEYRING_BACKEND" in str(caught.value.hint)
    assert "pip install" not in f"{caught.value} {caught.value.hint}"
