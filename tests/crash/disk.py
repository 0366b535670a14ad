"""Break a command off in a local store: strace kills it at its Nth write, sync or rename, or lets that call fail.

A killed process loses nothing that the kernel has. That the disk has it as well is read off the calls themselves: what
was written to the database's log is synced before anything is acknowledged on stdout.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from daskpki.inventory import CertificateRecord
from daskpki.settings import LocalUrl
from daskpki.store.opening import Unlocking, open_store
from daskpki.store.port import Store
from tests.crash.cases import CASES, Case
from tests.crash.judge import Numbers, Place, judge, numbers

FAULTS: Final = {
    "signal=KILL": ("pwrite64", "fsync", "fdatasync", "ftruncate", "link", "unlink", "rename", "mkdir"),
    "error=EIO": ("pwrite64", "fsync", "fdatasync", "ftruncate", "link", "rename"),
    "error=ENOSPC": ("pwrite64", "ftruncate", "link", "mkdir"),
}
_CALLS: Final = FAULTS["signal=KILL"]
_KILLED: Final = (-9, 137)
_ROOT: Final = Path(__file__).parents[2]
_CLUSTER: Final = "default"


class Point(NamedTuple):
    """Where a command is broken off: at its Nth call of that name, in that way."""

    case: str
    fault: str
    call: str
    number: int


class Outcome(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


class Disk(NamedTuple):
    """A directory with a store, its key file, and what the command has for a home and for temporary files."""

    root: Path

    @property
    def place(self) -> Place:
        return Place(self.open, _CLUSTER, (self.root,))

    def open(self) -> Store:
        url, unlock = LocalUrl(self.root / "store"), Unlocking(key_file=self.root / "store.key")
        return open_store(url, unlock=unlock, create=True, environ=self.environ)

    def run(self, *arguments: str, prefix: Sequence[str] = (), planted: str | None = None) -> Outcome:
        """Run a command as a process of its own; with `planted`, one that has that bug."""
        program = ["-m", "tests.crash.planted", planted] if planted else ["-m", "daskpki"]
        common = ["--store", f"local:{self.root / 'store'}", "--key-file", str(self.root / "store.key"), "--json"]
        command = [*prefix, sys.executable, *program, *common, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=_ROOT, env=self.environ)
        return Outcome(done.returncode, done.stdout, done.stderr)

    @property
    def environ(self) -> dict[str, str]:
        home = str(self.root / "home")
        return {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "DASKPKI_HOME": home,
            "TMPDIR": str(self.root / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def prepare(template: Path, case: Case) -> Disk:
    """The place as it is before the command."""
    disk = Disk(template)
    for name in ("home", "tmp"):
        (template / name).mkdir(parents=True)
    if case.prepared:
        done = disk.run("init-ca", "--with", "worker")
        assert done.status == 0, done
    return disk


def copy_of(disk: Disk, root: Path) -> Disk:
    """A place of its own for one point."""
    shutil.copytree(disk.root, root)
    return Disk(root)


def points(disk: Disk, case: Case, planted: str | None = None) -> list[Point]:
    """All there are, counted while the command runs through; AssertionError when it acknowledges before a sync."""
    scratch = copy_of(disk, disk.root.with_name(f"{disk.root.name}-counted"))
    trace = scratch.root / "trace"
    traced = ["strace", "-f", "--seccomp-bpf", "-qqq", "-y", "-o", str(trace), "-e", f"trace={','.join(_CALLS)},write"]
    done = scratch.run(*case.command, prefix=traced, planted=planted)
    assert done.status == 0, done
    lines = trace.read_text().splitlines()
    check_synced(lines)
    counts = Counter(match[1] for line in lines if (match := re.match(r"\d+ +(\w+)\(", line)))
    return [
        Point(case.name, fault, call, number)
        for fault, calls in FAULTS.items()
        for call in calls
        for number in range(1, counts[call] + 1)
    ]


def check_synced(lines: Sequence[str]) -> None:
    """Nothing is acknowledged while something that was written to the store's log is not on the disk."""
    dirty = False
    for line in lines:
        if "store.db-wal>" in line:
            dirty = "pwrite64" in line or (dirty and "sync" not in line)
        elif re.search(r" write\(1<", line):
            assert not dirty, f"acknowledged before it was synced: {line}"


def sweep(disk: Disk, case: Case, point: Point, root: Path, planted: str | None = None) -> int:
    """Play one point and judge what is left; the command's status is returned."""
    broken = copy_of(disk, root)
    before = numbers(broken.place)
    injected = ["strace", "-f", "-qqq", "-o", "/dev/null", "-e", f"trace={point.call}"]
    injected += ["-e", f"inject={point.call}:{point.fault}:when={point.number}"]
    done = broken.run(*case.command, prefix=injected, planted=planted)
    assert "Traceback" not in done.err, done.err
    assert done.status in (0, *_KILLED) if "KILL" in point.fault else done.status in (0, 1, 75), done
    judge(broken.place, case, acknowledged(done.out), before)
    shutil.rmtree(root)
    return done.status


def acknowledged(out: str) -> Iterator[CertificateRecord]:
    """The certificates that a command told of; none when its output ends in the middle."""
    try:
        document = json.loads(out)
    except ValueError:
        return
    for leaf in document if isinstance(document, list) else document.get("issued", []):
        yield CertificateRecord(
            serial=int(leaf["serial"], 16),
            role=leaf["role"],
            name=leaf["name"],
            issuer=leaf["issuer"],
            not_before=_seconds(leaf["notBefore"]),
            not_after=_seconds(leaf["notAfter"]),
            reserved_at=0,
            operation="",
            status=leaf["state"],
            fingerprint=leaf["fingerprint"],
            version=leaf["version"],
        )


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


__all__ = ["CASES", "Disk", "Numbers", "Point", "acknowledged", "points", "prepare", "sweep"]
