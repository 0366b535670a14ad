"""Files with keys are private from the first instant, whole or absent, and never replaced by accident."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from daskpki import files
from daskpki.credentials.contexts import Contexts
from daskpki.credentials.credential_files import load_directory
from daskpki.credentials.csr import all_waiting
from daskpki.credentials.dask_config import check_config
from daskpki.errors import AccessDeniedError, AlreadyExistsError, DaskpkiError, NotFoundError, UsageError
from daskpki.store.local.database import check_files
from tests.support.disks import as_root, tmpfs


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


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("free", None),
        ("taken", AlreadyExistsError),
        ("directory", AlreadyExistsError),
        ("missing/key", NotFoundError),
        ("k" * 245, NotFoundError),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_what_could_not_be_written_is_found_before(
    tmp_path: Path, name: str, error: type[DaskpkiError] | None, *, force: bool
) -> None:
    (tmp_path / "taken").touch()
    (tmp_path / "directory").mkdir()
    before = sorted(tmp_path.iterdir())
    refused = error is not None and not (force and name == "taken")
    with pytest.raises(error) if error and refused else nullcontext():
        files.check_writable(tmp_path / name, force=force)
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(DaskpkiError) if refused else nullcontext():
        files.write_private(tmp_path / name, b"", force=force)


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


@contextmanager
def closed(directory: Path) -> Iterator[None]:
    """Within, we may neither look into the directory nor change it; root is somebody else meanwhile."""
    own = os.geteuid()
    directory.chmod(0)
    if own == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(own)
        directory.chmod(0o700)


def test_where_we_may_not_look_is_no_place_without_anything(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    files.write_private(inner / "key", b"secret")
    assert (files.is_there(inner / "key"), files.is_there(inner / "other")) == (True, False)
    assert (files.names_in(inner), files.names_in(tmp_path / "absent"), files.is_there(inner / "key" / "x")) == (
        ["key"],
        [],
        False,
    )
    attempts: list[Callable[[], object]] = [
        lambda: files.is_there(inner / "key"),
        lambda: files.names_in(inner),
        lambda: files.write_private(inner / "another", b""),
        lambda: files.read_private(inner / "key"),
        lambda: check_files(inner / "key"),
        lambda: load_directory(inner / "directory"),
        lambda: Contexts(inner).all(),
        lambda: all_waiting(Contexts(inner)),
        lambda: check_config({"HOME": str(inner)}),
        lambda: files.locked(inner).__enter__(),
    ]
    for attempt in attempts:
        with closed(inner), pytest.raises(AccessDeniedError, match="Permission denied"):
            attempt()
    assert files.names_in(inner) == ["key"]


def test_a_read_only_file_system_is_said_so(tmp_path: Path) -> None:
    with tmpfs(tmp_path, "size=1m"):
        files.write_private(tmp_path / "key", b"secret")
        as_root("mount", "-o", "remount,ro", str(tmp_path))
        with pytest.raises(AccessDeniedError, match="Read-only file system"):
            files.write_private(tmp_path / "another", b"")
        assert files.names_in(tmp_path) == ["key"]


def test_the_file_that_is_checked_is_the_one_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who may write to the directory puts a file of another user's there between look and read."""
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    files.write_private(mine, b"mine")
    theirs.write_bytes(b"theirs")
    theirs.chmod(0o644)
    look, look_at = os.stat, os.fstat
    looked: list[object] = []

    def then_swap(status: os.stat_result) -> os.stat_result:
        if not looked:
            looked.append(theirs.replace(mine))
        return status

    monkeypatch.setattr(os, "fstat", lambda number: then_swap(look_at(number)))
    monkeypatch.setattr(
        os, "stat", lambda path, **how: then_swap(look(path, **how)) if path == mine else look(path, **how)
    )
    found = files.read_private(mine)
    monkeypatch.undo()
    assert (found, mine.read_bytes(), len(looked)) == (b"mine", b"theirs", 1)


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


def test_what_opens_something_else_is_read_back_before_that_is_sealed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A drive that keeps no permissions, as Windows' under WSL: all files are 0777 there, whatever chmod says."""
    real = os.fstat

    def loose(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        return os.stat_result((status.st_mode | 0o777, *tuple(status)[1:]))

    files.write_and_read_back(tmp_path / "good", b"key", called="the key file")
    assert files.read_private(tmp_path / "good") == b"key"
    monkeypatch.setattr(os, "fstat", loose)
    with pytest.raises(AccessDeniedError, match=r"the key file is open to others .* keeps no permissions") as caught:
        files.write_and_read_back(tmp_path / "key", b"key", called="the key file")
    assert "another drive" in str(caught.value.hint)
    assert "chmod" not in f"{caught.value} {caught.value.hint}"
    assert not (tmp_path / "key").exists()


def test_the_way_out_can_be_pasted(tmp_path: Path) -> None:
    path = tmp_path / "my key's"
    path.write_bytes(b"secret")
    path.chmod(0o644)
    with pytest.raises(AccessDeniedError) as refusal:
        files.check_private(path)
    assert refusal.value.hint is not None
    subprocess.run(["/bin/sh", "-c", refusal.value.hint], check=True)
    files.check_private(path)
