"""Keeps keys off disks while Dask runs: in sealed memory files, else in a private directory on tmpfs, else an error.

OpenSSL reads keys from paths, more than once, and so does a nanny that restarts its worker. A sealed memfd (mode 0400,
without close-on-exec) is `/proc/PID/fd/N`: a path that survives `exec`, is on no disk and cannot be changed. It is
created after a change of user, so that the new user owns it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from daskpki.errors import NotTrustedError

_MODE: Final = 0o400
_PREFIX: Final = "daskpki-"
_TMPFS: Final = ("tmpfs", "ramfs")


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
        _remove(self.path)


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
        path = probe.put("probe", b"-")
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib is not loaded otherwise
            file.read()
        probe.clear()
    except (AttributeError, OSError):
        return False
    return True


def is_tmpfs(path: str) -> bool:
    """True if `path` is in memory, by its device number and the kernel's list of mounts."""
    try:
        number = os.stat(path).st_dev  # noqa: PTH116 - as above
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
            mounts = list(parse_mountinfo(file))
    except OSError:
        return False
    device = f"{os.major(number)}:{os.minor(number)}"
    kinds = {kind for mounted, kind in mounts if mounted == device}
    return bool(kinds) and kinds <= set(_TMPFS)


def parse_mountinfo(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield device number and kind of each mount (proc(5)): the third field, and the first one after the dash."""
    for line in lines:
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if dash and len(fields) > 2:  # noqa: PLR2004 - the third field
            yield fields[2], after.split(" ")[0]


def remove_leftovers(parent: str) -> None:
    """Delete our directories whose process has ended."""
    with os.scandir(parent) as entries:
        names = [
            entry.name for entry in entries if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False)
        ]
    for name in names:
        owner = name.removeprefix(_PREFIX).partition("-")[0]
        path = f"{parent}/{name}"
        with contextlib.suppress(OSError):
            status = os.lstat(path)
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


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(path):  # noqa: PTH208 - as above
            os.unlink(f"{path}/{name}")  # noqa: PTH108
        os.rmdir(path)  # noqa: PTH106
