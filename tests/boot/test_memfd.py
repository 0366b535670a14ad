"""Where keys lie: sealed memory files, a directory on tmpfs where there are none, and nowhere on a disk."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from daskpki.boot.memfd import MemoryFiles, TmpfsDirectory, is_tmpfs, remove_leftovers
from tests.support.boot_cloud import ENTRYPOINT, plain_environ
from tests.support.sandbox import AS_ROOT

NO_MEMFD = """if 1:
    import os, sys
    del os.memfd_create
    from daskpki.boot.__main__ import main
    sys.exit(main())"""
"""A platform without memfd_create, as macOS is one."""


def test_a_memory_file_is_sealed_private_and_survives_exec() -> None:
    place = MemoryFiles()
    path = place.put("key.pem", b"key")
    assert path.startswith(f"/proc/{os.getpid()}/fd/")
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o400
    descriptor = int(path.rpartition("/")[2])
    assert os.get_inheritable(descriptor)
    for change in (lambda: os.write(descriptor, b"x"), lambda: os.ftruncate(descriptor, 0)):
        with pytest.raises(PermissionError):
            change()
    assert Path(path).read_bytes() == b"key"
    assert Path(path).read_bytes() == b"key"
    place.clear()
    assert not Path(path).exists()


def boot_without_memfd(directory: Path, *prefix: str, **environ: str) -> subprocess.CompletedProcess[str]:
    script = 'key=$DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY; stat -f -c %T "$key"; stat -c "%a %n" "$key"'
    return subprocess.run(
        [*prefix, sys.executable, "-c", NO_MEMFD, "exec", "worker", "--", "sh", "-c", script],
        env=plain_environ(DASKPKI_CREDENTIAL_DIR=str(directory / "worker"), **environ),
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_memfd_keys_go_to_tmpfs(directory: Path) -> None:
    done = boot_without_memfd(directory, XDG_RUNTIME_DIR="/dev/shm")
    kind, line = done.stdout.splitlines()
    mode, path = line.split()
    assert (kind, mode) == ("tmpfs", "400")
    place = Path(path).parent
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    remove_leftovers("/dev/shm")
    assert not place.exists()


def test_without_memfd_and_tmpfs_nothing_starts(directory: Path, tmp_path: Path) -> None:
    hide = 'mount -t proc proc /dev/shm; mount -t proc proc /run; exec "$@"'
    prefix = (*AS_ROOT, "unshare", "--mount", "sh", "-c", hide, "sh")
    done = boot_without_memfd(directory, *prefix, XDG_RUNTIME_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (3, "")
    assert "keys do not go to a disk" in done.stderr
    assert "tmpfs" in done.stderr


def test_leftovers_of_the_living_and_of_others_stay(tmp_path: Path) -> None:
    mine = TmpfsDirectory(str(tmp_path))
    mine.put("key.pem", b"key")
    for name in ("daskpki-x", "daskpki-", "other-1-x"):
        (tmp_path / name).mkdir()
    (tmp_path / "daskpki-999999999-link").symlink_to(tmp_path / "other-1-x")
    remove_leftovers(str(tmp_path))
    assert Path(mine.path).exists()
    assert len(list(tmp_path.iterdir())) == 5
    mine.clear()
    assert not Path(mine.path).exists()


def test_what_is_a_tmpfs() -> None:
    assert is_tmpfs("/dev/shm")
    assert not is_tmpfs("/proc")
    assert not is_tmpfs("/no/such/directory")


def test_a_command_that_does_not_exist_leaves_nothing_behind(directory: Path) -> None:
    done = subprocess.run(
        [*ENTRYPOINT, "exec", "worker", "--", "no-such-command"],
        env=plain_environ(DASKPKI_CREDENTIAL_DIR=str(directory / "worker")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "'no-such-command' is not found" in done.stderr
