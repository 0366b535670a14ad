"""The top level, the version, and the list of Debian packages."""

from __future__ import annotations

import ast
import re
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

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


TWICE = {"RetryPolicy", "Option"}
"""Types of parts that may not load each other, with the same meaning in both (docs/adr/0017)."""


def types_in(source: str) -> Iterator[str]:
    """The public classes and aliases of types that a module makes."""
    for node in ast.parse(source).body:
        match node:
            case (
                ast.ClassDef(name=name)
                | ast.Assign(targets=[ast.Name(id=name)])
                | ast.AnnAssign(target=ast.Name(id=name))
            ) if re.fullmatch(r"[A-Z]\w*[a-z]\w*", name):
                yield name


def test_types_are_found() -> None:
    source = "class Answer: ...\nclass _Canary: ...\nRouter = dict\nEntry: TypeAlias = int\nLIMIT = 5\n_Own = int\n"
    assert list(types_in(source)) == ["Answer", "Router", "Entry"]


def test_a_type_has_a_name_of_its_own() -> None:
    count = Counter(name for path in tracked("daskpki/*.py") for name in types_in((ROOT / path).read_text()))
    assert {name for name, times in count.items() if times > 1} == TWICE


SHARED = {"support", "emulator"}
"""Folders below tests/ from which others import: the helpers, and Google's servers, which are one part."""


def private_imports(path: Path, source: str) -> list[str]:
    """What a module imports from test modules, from a conftest, and from another folder of tests that is not shared."""
    open_to_it = {*SHARED, path.parts[1]} if path.parts[0] == "tests" else SHARED
    found = []
    for name in _imported(path, ast.parse(source)):
        first, *inner = name.split(".")
        if first == "tests" and inner:
            pytest_alone = any(part == "conftest" or part.startswith("test_") for part in inner)
            if pytest_alone or inner[0] not in open_to_it:
                found.append(name)
    return found


def _imported(path: Path, tree: ast.Module) -> Iterator[str]:
    """The dotted names of all that is imported, in functions too, each with what is taken from a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.parts[: -node.level] if node.level else ()
            module = (*package, *([node.module] if node.module else []))
            yield from (".".join((*module, alias.name)) for alias in node.names)


def homeless(folders: Iterable[str]) -> set[str]:
    """Folders of tests that are named after nothing in the package, and that CONTRIBUTING does not explain either."""
    parts = {path.with_suffix("").parts[1] for path in tracked("daskpki/*.py")}
    listed = re.findall(r"`tests/(\w+)`", (ROOT / "CONTRIBUTING.md").read_text().split("## Where a test belongs")[1])
    return set(folders) - parts - set(listed)


def test_a_folder_of_tests_is_named_after_what_it_tests() -> None:
    assert not homeless(path.parts[1] for path in tracked("tests/*.py") if len(path.parts) > 2)
    assert homeless(["cluster", "lately"]) == {"lately"}


def test_what_tests_share_is_in_support() -> None:
    modules = tracked("tests/*.py", "scripts/*.py", "docs/*.py")
    assert [f"{path}: {name}" for path in modules for name in private_imports(path, (ROOT / path).read_text())] == []


@pytest.mark.parametrize(
    "line",
    [
        "from tests.boot.test_dask import running",
        "from tests.boot import test_dask",
        "from tests.boot.conftest import cloud",
        "import tests.boot.conftest",
        "from .conftest import cloud",
        "from .test_dask import running",
        "def later(): from tests.conftest import LONGEST",
        "from tests.robustness.crash.disk import Disk",
        "from tests.robustness import crash",
    ],
)
def test_an_import_of_what_is_not_shared_is_found(line: str) -> None:
    kept = "from pathlib import Path\nfrom tests.emulator import Fault\nfrom tests.support.ports import free_port\n"
    for path in (Path("tests/boot/test_signals.py"), Path("tests/boot/conftest.py")):
        assert private_imports(path, kept) == []
        assert len(private_imports(path, kept + line)) == 1


def test_a_folder_imports_its_own_modules_and_scripts_import_none() -> None:
    line = "from tests.robustness.crash.disk import Disk"
    assert private_imports(Path("tests/robustness/crash/test_many.py"), line) == []
    assert private_imports(Path("scripts/benchmarks/store.py"), line) == ["tests.robustness.crash.disk.Disk"]


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
