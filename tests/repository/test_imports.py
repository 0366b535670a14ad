"""Import arrows, and what `import daskpki` costs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import daskpki
from tests.support.nightly import sample
from tests.support.paths import BIN, ROOT


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "lint-imports"), "--no-cache"]
    environment = {"PYTHONPATH": str(directory), "PATH": str(BIN)}
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)


def test_the_arrows_hold() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("pki/profile.py", "import os"),
        ("pki/profile.py", "from daskpki.store import port"),
        ("records.py", "import distributed"),
        ("records.py", "from google.cloud import secretmanager"),
        ("store/port.py", "import typer"),
        ("credentials/login.py", "import keyring"),
        ("authority/copy.py", "from daskpki.cluster import policy"),
        ("cluster/policy.py", "if TYPE_CHECKING:\n    from daskpki.cluster.backend import PkiListener"),
    ],
)
def test_a_planted_arrow_is_found(tmp_path: Path, module: str, line: str) -> None:
    shutil.copytree(ROOT / "daskpki", tmp_path / "daskpki", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "daskpki" / module).open("a") as file:
        file.write(f"\n{line}\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert "BROKEN" in result.stdout


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after that statement."""
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


HEAVY = {
    "cryptography",
    "distributed",
    "dask",
    "google",
    "grpc",
    "keyring",
    "numpy",
    "rich",
    "sqlite3",
    "typer",
    "yaml",
}


def test_import_daskpki_loads_nothing_heavy() -> None:
    assert not loaded_by("import daskpki") & HEAVY


def test_the_handover_needs_the_standard_library_only() -> None:
    assert not loaded_by("import daskpki.handover") & HEAVY


@pytest.mark.parametrize("name", sample(daskpki.__all__, one_of=4))
def test_the_python_api_is_exported_lazily(name: str) -> None:
    assert not loaded_by(f"import daskpki; daskpki.{name}") & {"distributed", "google", "typer", "rich"}


def test_control_what_is_loaded_is_seen() -> None:
    assert loaded_by("import distributed") & HEAVY
