"""The rules hold with each older distributed that is supported: tests marked `every_version`, in a process for each.

In long runs only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daskpki.cluster.selftest import TESTED
from tests.support.nodes import ASKED_FOR
from tests.support.paths import ROOT

*OLDER, _NEWEST = TESTED
HERE = ROOT / "tests" / "cluster"


def installed(version: str) -> Path:
    """Where dask and distributed of that version lie, beside the installed ones; fetched once, and kept."""
    place = Path(sys.prefix) / f"distributed-{version}"
    # Those close a scheduler's dashboard in a way that bokeh 3.10 refuses ("Cannot synchronously wait on a running
    # event loop"), with or without daskpki.
    packages = [f"dask=={version}", f"distributed=={version}", "bokeh<3.10"]
    complete = place / "complete"
    if not complete.exists() or complete.read_text() != " ".join(packages):
        shutil.rmtree(place, ignore_errors=True)
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*install, "--target", str(place), *packages], check=True, timeout=180)
        complete.write_text(" ".join(packages))
    return place


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", OLDER)
def test_the_rules_hold_with(version: str) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environ |= {"PYTHONPATH": str(installed(version)), ASKED_FOR: version}
    tests = [sys.executable, "-m", "pytest", "-q", "-m", "every_version", "-p", "no:cacheprovider", str(HERE)]
    done = subprocess.run(tests, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    closing = done.stdout.splitlines()[-1]
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"\d+ passed, \d+ deselected(, \d+ warnings?)? in .*", closing), closing
