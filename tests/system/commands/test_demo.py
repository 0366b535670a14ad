"""The demo holds, leaves nothing behind, and asks for nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.cluster
def test_the_demo_tells_the_whole_story(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "daskpki", "demo"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    assert "199,999,990,000,000" in done.stdout
    assert done.stdout.count("refused:") == 3
    assert "certificate required" in done.stdout
    assert "unknown ca" in done.stdout
    assert "$ export DASKPKI_KEY_FILE=" in done.stdout, "else the node could not open the store without a prompt"
    assert done.stdout.splitlines()[-1] == "  $ daskpki-entrypoint node"
    assert list(tmp_path.iterdir()) == []
