"""Small, full and read-only disks: real file systems in memory, mounted by root or by sudo."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def as_root(*command: str) -> None:
    """Run a command that only root may run."""
    subprocess.run([*(() if os.geteuid() == 0 else ("sudo", "-n")), *command], check=True)


@contextmanager
def tmpfs(path: Path, options: str) -> Iterator[None]:
    """A file system of its own at `path`, which belongs to this user."""
    own = f"mode=700,uid={os.geteuid()},gid={os.getegid()}"
    as_root("mount", "-t", "tmpfs", "-o", f"{options},{own}", "tmpfs", str(path))
    try:
        yield
    finally:
        as_root("umount", "-l", str(path))
