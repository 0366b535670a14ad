"""The self-test at start: where the rules would not hold, nothing starts, and the versions tested are named.

Each fault is what a distributed would do that differs from those: one that no longer asks our comm before it acts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from daskpki.cluster.selftest import TESTED
from daskpki.handover import VARIABLE
from daskpki.identity import Role
from tests.support.cluster_material import Authority
from tests.support.nodes import handover_of

START = "import daskpki.cluster.preload; print('started')"
FAULTS = {
    "messages are decoded by Dask itself": (
        "async def read(comm, deserializers=None): return await TLS.read(comm, deserializers)",
        "PkiTLS.read = read",
        "a pickle from a worker was loaded",
    ),
    "calls are not shown to us": (
        "async def hear(comm, message): return message",
        "PkiTLS._check_inbound_call = hear",
        "'retire_workers' was not refused",
    ),
    "nothing that is allowed arrives": (
        "async def hear(comm, message): return await answer(comm, answer_call(message, 'no'))",
        "answer = PkiTLS._answer; PkiTLS._check_inbound = hear",
        "",
    ),
}


@pytest.fixture
def environ(authority: Authority, tmp_path: Path) -> dict[str, str]:
    path = handover_of(authority, authority.leaf(Role.SCHEDULER), tmp_path, "limited")
    return os.environ | {VARIABLE: str(path)}


def start(environ: dict[str, str], *lines: str) -> subprocess.CompletedProcess[str]:
    """A process that imports the preload after these lines."""
    imports = (
        "from distributed.comm.tcp import TLS",
        "from daskpki.cluster.comm import PkiTLS",
        "from daskpki.cluster.refusal import answer_call",
    )
    program = "\n".join([*imports, *lines, START])
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("fault", [*list(FAULTS)[:-1], pytest.param(list(FAULTS)[-1], marks=pytest.mark.long)])
def test_a_distributed_in_which_the_rules_do_not_hold_does_not_start(environ: dict[str, str], fault: str) -> None:
    definition, change, found = FAULTS[fault]
    done = start(environ, definition, change)
    assert done.returncode != 0
    assert "started" not in done.stdout
    assert "daskpki's rules do not work with distributed" in done.stderr
    assert found in done.stderr
    assert all(version in done.stderr for version in TESTED)


def test_control_it_starts_with_what_is_installed(environ: dict[str, str]) -> None:
    done = start(environ)
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr
