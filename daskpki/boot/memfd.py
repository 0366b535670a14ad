"""Keeps keys off disks while Dask runs: in sealed memory files, else in a private directory on tmpfs, else an error.

OpenSSL reads keys from paths, more than once, and so does a nanny that restarts its worker. A sealed memfd (mode 0400,
without close-on-exec) is `/proc/PID/fd/N`: a path that survives `exec`, is on no disk and cannot be changed. It is
created after a change of user, so that the new user owns it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from daskpki.errors import NotTrustedError
from daskpki.files import filesystem_types

_MODE: Final = 0o400
_PREFIX: Final = "daskpki-"
_TMPFS: Final = {"tmpfs", "ramfs"}


class MemoryFiles:
    """Sealed memfds of this process, which stay after exec."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    def put(self, name: str, data: bytes) -> str:
        """Write a memfd, seal it, and return its path."""
        import fcntl

        descriptor = os.memfd_create(f"{_PREFIX}{name}", os.MFD_ALLOW_SEALING)
        self._descriptors.append(descriptor)
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(data)
        os.fchmod(descriptor, _MODE)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        return f"/proc/{os.getpid()}/fd/{descriptor}"

    def clear(self) -> None:
        """Close all memfds."""
        while self._descriptors:
            os.close(self._descriptors.pop())


class TmpfsDirectory:
    """A private directory; its name has our process id, so that the next boot can remove a leftover."""

    def __init__(self, parent: str) -> None:
        from tempfile import mkdtemp

        self.path = mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent)  # 0700 from its first instant

    def put(self, name: str, data: bytes) -> str:
        """Write a file, and return its path."""
        path = f"{self.path}/{name}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        return path

    def clear(self) -> None:
        """Remove the directory."""
        _remove(Path(self.path))


Place = MemoryFiles | TmpfsDirectory
"""A place in memory whose files have paths."""


def open_place(environ: Mapping[str, str]) -> Place:
    """Find a place for keys on this machine; NotTrustedError if there is only a disk."""
    if _has_memory_files():
        return MemoryFiles()
    for parent in filter(None, (environ.get("XDG_RUNTIME_DIR"), "/dev/shm", "/run")):  # noqa: S108 - checked below
        if is_tmpfs(parent) and os.access(parent, os.W_OK | os.X_OK):
            remove_leftovers(parent)
            return TmpfsDirectory(parent)
    raise NotTrustedError(
        "there is no memfd and no tmpfs to write to, and keys do not go to a disk",
        hint="mount a tmpfs and name it in XDG_RUNTIME_DIR (docker run --tmpfs /run, or an emptyDir of medium Memory)",
    )


def _has_memory_files() -> bool:
    """Probe for memfds: a kernel, a sandbox (seccomp) or an unmounted /proc may each refuse."""
    try:
        probe = MemoryFiles()
        Path(probe.put("probe", b"-")).read_bytes()
        probe.clear()
    except (AttributeError, OSError):
        return False
    return True


def is_tmpfs(path: str) -> bool:
    """True if `path` is in memory."""
    types = filesystem_types(Path(path))
    return bool(types) and types <= _TMPFS


def remove_leftovers(parent: str) -> None:
    """Delete our directories whose process has ended."""
    for path in Path(parent).glob(f"{_PREFIX}*"):
        owner = path.name.removeprefix(_PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            status = path.lstat()
            ours = status.st_uid == os.geteuid() and stat.S_ISDIR(status.st_mode)
            if owner.isdecimal() and ours and not _runs(int(owner)):
                _remove(path)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _remove(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()
