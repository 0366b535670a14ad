"""Namespaces for tests that need a machine of their own: process ids, network, and an interpreter for every user."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from tests.support.paths import ROOT

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
    """A shell script, run as root with mounts of its own, after which every user can run this interpreter and checkout.

    Where one of them is below a closed directory, such as a home, that directory is replaced by an open one that
    contains nothing else.
    """
    closed: dict[Path, list[Path]] = {}
    for place in dict.fromkeys(Path(place).resolve() for place in (sys.base_prefix, ROOT, sys.prefix)):
        at = next((path for path in reversed(place.parents) if not path.stat().st_mode & stat.S_IXOTH), None)
        if at is not None:
            closed.setdefault(at, []).append(place)
    steps = ["set -e"]
    for at, places in closed.items():
        for number, place in enumerate(places):
            steps += [f"stash{number}=$(mktemp -d)", f'mount --bind {place} "$stash{number}"']
        steps.append(f"mount -t tmpfs -o mode=755 none {at}")
        for number, place in enumerate(places):
            steps += [f"mkdir -p {place}", f'mount --move "$stash{number}" {place}']
    return "\n".join([*steps, 'exec "$@"'])
