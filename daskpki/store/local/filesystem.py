"""Whether a directory lies on a network file system, where SQLite's WAL is unsafe.

The WAL's index is shared memory, which two hosts do not share: https://sqlite.org/wal.html, "Overview", point 2. Linux
says what is mounted in /proc/self/mountinfo; where there is no such file, nothing is known and nothing is refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from daskpki.errors import UsageError

_MOUNTS: Final = Path("/proc/self/mountinfo")
_NETWORK: Final = frozenset(
    ("afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "smb3")
)
_NETWORK_FUSE: Final = frozenset(("ceph", "cvmfs2", "gcsfuse", "glusterfs", "juicefs", "rclone", "s3fs", "sshfs"))


def refuse_network_filesystem(directory: Path, mountinfo: Path = _MOUNTS) -> None:
    """Raise UsageError when `directory` is on a file system that several hosts may share."""
    try:
        mounts = mountinfo.read_text(errors="surrogateescape")
    except OSError:
        return
    kind = filesystem_type(mounts, directory.resolve())
    if is_network(kind):
        raise UsageError(
            f"{directory} is on a network file system ({kind}), where SQLite loses data",
            hint="choose a directory on a local disk: --store local:/path, or DASKPKI_HOME",
        )


def is_network(kind: str) -> bool:
    """Whether a file system of that type may be shared by several hosts."""
    return kind in _NETWORK or (kind.startswith("fuse.") and kind.removeprefix("fuse.") in _NETWORK_FUSE)


def filesystem_type(mounts: str, directory: Path) -> str:
    """The type of the file system that holds `directory`; `mounts` is the text of /proc/self/mountinfo (proc(5))."""
    inside, best, kind = f"{directory}/", "", ""
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if not separator or len(fields) < 5:  # noqa: PLR2004 - the mount point is the fifth
            continue
        point = _unescape(fields[4]).rstrip("/") + "/"
        if inside.startswith(point) and len(point) >= len(best):  # a later mount hides an earlier one
            best, kind = point, after.split(" ")[0]
    return kind


def _unescape(field: str) -> str:
    """Undo proc(5)'s octal escapes of space, tab, newline and backslash."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field) if "\\" in field else field
