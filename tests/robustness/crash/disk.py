"""Break a command off in a local store: strace kills it at its Nth write, sync or rename, or lets that call fail.

A killed process loses nothing that the kernel has. That the disk has it as well is read off the calls themselves: what
was written to the database's log is synced before anything is acknowledged on stdout.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from daskpki.authority.ca import CertificateAuthority
from daskpki.cli.rotate_ca import rollover_document
from daskpki.inventory import CertificateRecord
from daskpki.settings import LocalUrl
from daskpki.store.local.key_slots import Unlocking
from daskpki.store.opening import open_store
from daskpki.store.port import Store
from tests.robustness.crash import calls
from tests.robustness.crash.calls import KILL, Point
from tests.robustness.crash.judge import Place, judge, trusted
from tests.support.crash_cases import Case

_KILLED: Final = (-9, 137)
_FAILED: Final = (1, 5, 75)
_ROOT: Final = Path(__file__).parents[3]
_CLUSTER: Final = "default"


class Outcome(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it told; an empty one when its output ends in the middle."""
        try:
            return json.loads(self.out)
        except ValueError:
            return {}


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
        program = ["-m", "tests.robustness.crash.planted", planted] if planted else ["-m", "daskpki"]
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
    for act in case.before:
        with closing(disk.open()) as store:
            list(act(CertificateAuthority(store, _CLUSTER)))
    return disk


def copy_of(disk: Disk, root: Path) -> Disk:
    """A place of its own for one point."""
    shutil.copytree(disk.root, root)
    return Disk(root)


def points(disk: Disk, case: Case, planted: str | None = None) -> list[Point]:
    """All there are, counted while the command runs through; AssertionError when it acknowledges before a sync."""
    scratch = copy_of(disk, disk.root.with_name(f"{disk.root.name}-counted"))
    trace = scratch.root / "trace"
    done = scratch.run(*case.command, prefix=calls.tracing(trace), planted=planted)
    assert done.status == 0, done
    lines = trace.read_text().splitlines()
    calls.check_synced(lines)
    return list(calls.points(case.name, lines, scratch.root))


def sweep(disk: Disk, case: Case, point: Point, root: Path, planted: str | None = None) -> int:
    """Play one point and judge what is left; the command's status is returned."""
    broken = copy_of(disk, root)
    before = trusted(broken.place)
    done = broken.run(*case.command, prefix=calls.injecting(point, root), planted=planted)
    assert "Traceback" not in done.err, done.err
    assert done.status in (0, *(_KILLED if point.fault == KILL else _FAILED)), done
    _check_rollover(broken, done.document)
    judge(broken.place, case, acknowledged(done.document), before)
    shutil.rmtree(root)
    return done.status


def _check_rollover(disk: Disk, told: Any) -> None:
    """Where a rollover stands is what the command said, if it came to say it."""
    if "phase" in told:
        with closing(disk.open()) as store:
            stands = rollover_document(CertificateAuthority(store, _CLUSTER))
        assert told | stands == told, "acknowledged and lost"


def acknowledged(document: Any) -> Iterator[CertificateRecord]:
    """The certificates that a command told of."""
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
