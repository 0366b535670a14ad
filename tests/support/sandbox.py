"""Namespaces for tests that need a machine of their own: process ids, network, and an interpreter for every user."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

AS_ROOT = () if os.geteuid() == 0 else ("sudo", "--non-interactive", "--preserve-env")
"""Runs a program as root."""

_MAPPED = () if os.geteuid() == 0 else ("--user", "--map-root-user")

OWN_PIDS = ("unshare", *_MAPPED, "--pid", "--fork", "--mount-proc", "--kill-child")
"""Runs a program as PID 1, with a /proc of its own; it dies with us."""

OWN_MOUNTS = ("unshare", *_MAPPED, "--mount")
"""Runs a program with mounts of its own."""

OWN_MACHINE = (*OWN_PIDS, "--net", "--mount")
"""The same with a network of its own, in which nothing is up yet, and mounts of its own."""

LOOPBACK_UP = 'ip link set lo up; exec "$@"'
"""For `sh -c`: in a new network even loopback is down."""


def for_every_user() -> str:
    """A shell script, run as root with mounts of its own, after which every user can run this interpreter.

    Where Python was installed below a closed home directory, that directory is replaced by an open one that holds
    nothing but the interpreter.
    """
    interpreter = Path(sys.base_prefix).resolve()
    closed = next((path for path in reversed(interpreter.parents) if not path.stat().st_mode & stat.S_IXOTH), None)
    if closed is None:
        return 'exec "$@"'
    return f"""
        set -e
        stash=$(mktemp -d)
        mount --bind {interpreter} "$stash"
        mount -t tmpfs -o mode=755 none {closed}
        mkdir -p {interpreter}
        mount --move "$stash" {interpreter}
        exec "$@"
    """
