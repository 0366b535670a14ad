"""The top level, the version, and the list of Debian packages."""

from __future__ import annotations

import ast
import re
import tokenize
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


def test_the_package_does_not_grow() -> None:
    """A new feature replaces what is worth less than it, or a decision record says why not (docs/adr/0017)."""
    modules = tracked("daskpki/*.py")
    assert len(modules) <= 190
    assert sum(_lines_of_code(path.as_posix()) for path in modules) <= 23_500


_NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER
}  # fmt: skip


def _lines_of_code(path: str) -> int:
    """Lines that hold more than a docstring or a comment."""
    with (ROOT / path).open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type not in _NO_CODE]
    lines = {
        line for token in tokens[1:] for line in range(token.start[0], token.end[0] + 1)
    }  # the first: its encoding
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


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
