"""Where things lie in the checkout, and which files the project consists of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
SUPPORT: Final = Path(__file__).parent
BIN: Final = Path(sys.executable).parent


def tracked(*patterns: str) -> list[Path]:
    """The files of the checkout that git knows or would take, relative to its top."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for path in map(Path, listed.splitlines()) if (ROOT / path).exists()]
