"""The top level, the version, and the list of Debian packages."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version

import daskpki
from tests.support.paths import ROOT, tracked

PLACES = {".ci", ".github", "daskpki", "docs", "scripts", "tests"}
META = {
    ".dockerignore",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "mkdocs.yml",
    "pyproject.toml",
}
VAGUE = {"utils", "util", "helpers", "common", "base", "manager", "misc"}


def test_the_top_level_holds_nothing_else() -> None:
    assert {path.parts[0] for path in tracked()} <= PLACES | META


def test_what_a_user_looks_for_is_there() -> None:
    assert {path.name for path in tracked() if len(path.parts) == 1} == META


def test_module_names_say_something() -> None:
    assert not [path for path in tracked("*.py") if VAGUE & {path.stem, *path.parts}]


def test_every_module_says_what_it_is() -> None:
    unsaid = [path for path in tracked("daskpki/*.py", "scripts/*.py") if not _begins_with_docstring(path.as_posix())]
    assert not unsaid


def _begins_with_docstring(path: str) -> bool:
    return (ROOT / path).read_text().lstrip().startswith('"""')


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert daskpki.__version__ == project["version"] == version("daskpki")
    released = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert project["version"] in released


def test_debian_packages_are_sorted_and_named_once() -> None:
    lines = (ROOT / ".ci" / "apt-packages.txt").read_text().splitlines()
    packages = [line for line in lines if not line.startswith("#")]
    assert packages == sorted(set(packages))


def test_scripts_are_executable() -> None:
    for script in ("scripts/demo", "scripts/test", "scripts/bench", ".ci/run"):
        assert (ROOT / script).stat().st_mode & 0o111, script
