"""Files with keys are private from the first instant, whole or absent, and never replaced by accident."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from daskpki import files
from daskpki.errors import AccessDeniedError, AlreadyExistsError, DaskpkiError, NotFoundError, UsageError


def test_a_written_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        files.write_private(tmp_path / "key", b"secret")
        (tmp_path / "control").write_bytes(b"public")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "control").stat().st_mode) == 0o666
    assert sorted(path.name for path in tmp_path.iterdir()) == ["control", "key"]


def test_an_existing_file_stays_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "key"
    files.write_private(path, b"first")
    with pytest.raises(AlreadyExistsError, match="key exists"):
        files.write_private(path, b"second")
    assert path.read_bytes() == b"first"
    files.write_private(path, b"third", force=True)
    assert path.read_bytes() == b"third"
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (tmp_path / "key").symlink_to(target)
    with pytest.raises(AlreadyExistsError):
        files.write_private(tmp_path / "key", b"secret")
    files.write_private(tmp_path / "key", b"secret", force=True)
    assert not target.exists()
    assert not (tmp_path / "key").is_symlink()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o620])
def test_what_others_may_touch_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    files.write_private(path, b"secret")
    assert files.read_private(path) == b"secret"
    path.chmod(mode)
    with pytest.raises(AccessDeniedError) as caught:
        files.read_private(path)
    assert caught.value.hint == f"chmod 600 {path}"


def test_a_loose_or_foreign_directory_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b"
    files.make_private_directory(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    home.chmod(0o750)
    with pytest.raises(AccessDeniedError, match="open to others") as caught:
        files.make_private_directory(home)
    assert caught.value.hint == f"chmod 700 {home}"


def test_missing_and_oversized_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        files.read_private(tmp_path / "absent")
    files.write_private(tmp_path / "large", bytes((1 << 20) + 1))
    with pytest.raises(UsageError, match="larger than"):
        files.read_private(tmp_path / "large")
    with pytest.raises(DaskpkiError):
        files.write_private(tmp_path / "absent" / "key", b"")


WRITER = """
import sys
from pathlib import Path
from daskpki.files import write_private
write_private(Path(sys.argv[1]), b"new" * 1000, force=True)
"""


@pytest.mark.parametrize("call", ["fsync", "rename,renameat,renameat2", "write", "fchmod,unlink,unlinkat"])
def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path, call: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(tmp_path)]
    for nth in (1, 2):
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={nth}"]
        subprocess.run([*command, *inject, sys.executable, "-c", WRITER, str(path)], check=False, timeout=60)
        assert path.read_bytes() in (b"old", b"new" * 1000)
    files.remove_leftovers(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]
