"""The files of daskpki that a command enters, by `scripts/entered.py`."""

from __future__ import annotations

import re
import subprocess

from tests.support.paths import BIN, ROOT


def entered(*arguments: str) -> list[str]:
    """The files that the command enters, below `daskpki/` and in the order of their first entry."""
    command = [str(BIN / "python"), "-m", "scripts.entered", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = re.search(r"^(\d+) files, \d+ crossings\n((?:  \S+\n)+)", result.stderr, re.MULTILINE)
    assert found, result.stderr
    files = found[2].split()
    assert len(files) == len(set(files)) == int(found[1])
    return files
