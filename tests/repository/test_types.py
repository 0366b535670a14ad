"""Package and tests are typed throughout. A test like the others, so that it runs beside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


def mypy(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.timeout(600)  # a minute where nothing is cached
def test_the_types_hold() -> None:
    result = mypy()
    assert result.returncode == 0, result.stdout + result.stderr


def test_control_an_untyped_function_is_found(tmp_path: Path) -> None:
    untyped = tmp_path / "untyped.py"
    untyped.write_text("def half(number):\n    return number / 2\n")
    result = mypy(f"--config-file={ROOT / 'pyproject.toml'}", f"--cache-dir={tmp_path}", str(untyped))
    assert result.returncode == 1
    assert "no-untyped-def" in result.stdout
