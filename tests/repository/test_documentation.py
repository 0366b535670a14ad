"""The documentation is whole, and names only what there is."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

import daskpki
from daskpki.boot.options import OPTIONS
from daskpki.cli.app import COMMANDS
from tests.support.doc_sessions import blocks, shell_commands
from tests.support.paths import BIN, DOCS, ROOT, tracked

PAGES = [*ROOT.glob("*.md"), *sorted(DOCS.rglob("*.md"))]
OPENING = {"store", "cluster", "passphrase-file", "key-file", "ca-passphrase-file", "ca-sha256"}
GLOBAL = OPENING | {"json", "quiet", "verbose", "version"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the site is, which is built without a warning."""
    directory = tmp_path_factory.mktemp("site")
    command = [str(BIN / "mkdocs"), "build", "--strict", "--site-dir", str(directory)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # an advertisement of the theme's, not about this site
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
    return directory


def test_the_site_names_each_place_once(site: Path) -> None:
    assert (site / "reference" / "commands" / "index.html").exists()
    for page in site.rglob("*.html"):
        ids = Counter(re.findall(r'\sid="([^"]+)"', page.read_text()))
        assert not [each for each, number in ids.items() if number > 1], page


def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"?(https?://[^\s\">]+)[^>]*>")
    for page in site.rglob("*.html"):
        loaded = [found[0] for found in loads.finditer(page.read_text()) if 'rel="canonical"' not in found[0]]
        assert not loaded, page


def test_the_reference_is_what_help_says() -> None:
    command = [str(BIN / "python"), "-m", "scripts.reference", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def documented_commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in blocks(page):
            if block.language == "sh":
                for command in shell_commands(block.text):
                    unquoted = re.sub(r'"[^"]*"', '""', command)
                    for part in re.split(r"[|;&]+", unquoted):
                        if found := re.search(r"(?:^|\s)(daskpki|daskpki-entrypoint)(\s.*|$)", part.strip()):
                            yield page.name, f"{found[1]}{found[2]}"
        for found in re.finditer(r"`(daskpki [^`]+)`", page.read_text()):
            yield page.name, found[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_the_copy_button_gives_can_be_pasted(page: Path) -> None:
    for block in blocks(page):
        assert block.language != "console", f"commands go into a sh block, output into a text block:\n{block.text}"
        assert not (block.language == "sh" and re.search(r"^[$>] ", block.text, re.MULTILINE)), block.text


def words(command: str) -> list[str]:
    """What is addressed to daskpki: neither what follows `--`, nor a redirection."""
    return command.partition(" -- ")[0].partition(" >")[0].split()[1:]


@pytest.mark.parametrize(("page", "command"), sorted(set(documented_commands())))
def test_a_documented_command_exists(page: str, command: str) -> None:
    if command.startswith("daskpki-entrypoint"):
        known, flags = {"scheduler", "worker", "node", "exec"}, {option.name for option in OPTIONS} | {"help"}
        helps = ""
    else:
        known, flags = set(COMMANDS), GLOBAL | {"help"}
        helps = help_of(command)
    plain = [word for word in words(command) if re.fullmatch(r"[a-z][a-z-]*", word)]
    assert not plain or known & set(plain), f"{page}: {command}"
    for flag in re.findall(r"(?<=\s)--([a-z][a-z0-9-]*)", " ".join(["", *words(command)])):
        assert flag in flags or f"--{flag}" in helps, f"{page}: {command}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "delete-cluster --cluster" in page.read_text()], ids=lambda page: page.name
)
def test_vms_are_removed_of_the_cluster_that_is_deleted_and_before_it(page: Path) -> None:
    text = page.read_text()
    (deleting,) = re.finditer(r"delete-cluster --cluster (\S+)", text)
    for removing in re.finditer(r"deploy gcp ([^`\n]*)--destroy --apply", text):
        assert f"--cluster {deleting[1]} " in removing[1]
        assert removing.start() < deleting.start()


def help_of(command: str) -> str:
    reference = (DOCS / "reference" / "commands.md").read_text()
    for word in words(command):
        if word in COMMANDS:
            return reference.partition(f"\n## daskpki {word}\n")[2].partition("\n## ")[0]
    return ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example(name: str) -> None:
    reference = (DOCS / "reference" / "commands.md").read_text()
    text = reference.partition(f"\n## daskpki {name}\n")[2].partition("\n## ")[0]
    assert "```sh\ndaskpki" in text, text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_place_in_a_page_that_people_read(name: str) -> None:
    """Beside reference, decisions and changelog: a tutorial, a how-to page or the README shows what it is for."""
    passed_over = {"reference", "adr", "CHANGELOG.md"}
    pages = [page for page in PAGES if not passed_over & set(page.parts)]
    asked = re.compile(rf"\bdaskpki (?:--?[a-z-]+[ =]\S+ )*{name}\b")
    assert any(asked.search(page.read_text()) for page in pages)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_row_among_the_anchors(name: str) -> None:
    rows = [line for line in (DOCS / "explanation" / "anchors.md").read_text().splitlines() if line.startswith("|")]
    assert any(re.search(rf"`{name}[ `]", row.split("|")[1]) for row in rows)


def test_every_setting_of_the_entrypoint_is_described() -> None:
    page = (DOCS / "reference" / "entrypoint.md").read_text()
    assert all(f"`{option.variable}`" in page and f"--{option.name}" in page for option in OPTIONS)


def test_every_decision_is_listed() -> None:
    index = (DOCS / "adr" / "index.md").read_text()
    pages = sorted(path.name for path in (DOCS / "adr").glob("[0-9]*.md"))
    assert pages
    assert not [name for name in pages if name not in index]


def test_exit_codes_are_those_of_the_errors() -> None:
    from daskpki import errors

    codes = {
        found.exit_code for found in vars(errors).values() if isinstance(found, type) and hasattr(found, "exit_code")
    }
    table = (DOCS / "reference" / "exit-codes.md").read_text()
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == codes | {0}


@pytest.mark.parametrize("page", ["threat-model", "second-look"])
def test_the_tests_that_a_page_names_exist(page: str) -> None:
    tests = list((ROOT / "tests").rglob("test_*.py"))
    known = {file.stem for file in tests}
    known.update(found for file in tests for found in re.findall(r"def (test_\w+)", file.read_text()))
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "explanation" / f"{page}.md").read_text()))
    assert named
    assert named <= known


READERS_OWN = {"job.py", "jsonstore.py", "test_jsonstore.py"}
"""Files that a page has its reader write."""

TREE = {path.as_posix() for path in tracked()}
FOLDERS = {parent.as_posix() for path in tracked() for parent in path.parents}


def missing_names(text: str) -> list[str]:
    """The files, folders and dotted names of daskpki in inline code that the checkout does not have."""
    code = re.findall(r"`([^`\n]+)`", text)
    files = [file for part in code for file in re.findall(r"[\w./-]*\w\.py\b", part)]
    folders = [folder for part in code for folder in re.findall(r"^(?:daskpki|tests|scripts)/[\w/.-]*\w$", part)]
    names = [name for part in code for name in re.findall(r"(?<![\w./])daskpki(?:\.[a-zA-Z_]\w*)+", part)]
    return [
        *(file for file in files if file not in READERS_OWN and not any(f"/{it}".endswith(f"/{file}") for it in TREE)),
        *(folder for folder in folders if not folder.endswith(".py") and folder not in TREE | FOLDERS),
        *(name for name in names if not is_defined(name)),
    ]


def is_defined(name: str) -> bool:
    """True for a module or package, or a name that the source of the longest module in `name` defines or imports."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        stem = "/".join(parts[:length])
        if file := next((file for file in (f"{stem}.py", f"{stem}/__init__.py") if file in TREE), None):
            defined = r'(?:class |def |import |^ *|"){}\b[\s(:=,"]'
            source = (ROOT / file).read_text()
            return all(re.search(defined.replace("{}", part), source, re.MULTILINE) for part in parts[length:])
    return False


NOT_PYTHON = re.compile(r"daskpki\.(?:internal|stores|key|json|audit|(?:trust|commit|succession)\.v1)\b")
"""A trust domain, an entry point group, files, a logger, and types of signed documents."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_modules_and_names_on_a_page_exist(page: Path) -> None:
    assert not [name for name in missing_names(page.read_text()) if not NOT_PYTHON.fullmatch(name)]


@pytest.mark.parametrize(
    "name",
    ["claims.py", "daskpki/cluster/anteroom.py", "tests/crash", "daskpki.cluster.door", "daskpki.pki.trust.Door"],
)
def test_a_wrong_name_on_a_page_is_found(name: str) -> None:
    assert missing_names(f"It is in `policy.py` and `{name}`, as `daskpki.pki.trust.verify_trust` says.") == [name]


PUBLIC = {
    "daskpki.api": ("cluster_security", "connect", "open_store", "secret", "security"),
    "daskpki.authority.ca": ("CertificateAuthority",),
    "daskpki.cloudprovider": ("GCPCluster",),
    "daskpki.health": ("check",),
    "daskpki.loader": ("security_loader",),
}
"""What programs use, by module."""


def without_example(source: str, names: Iterable[str]) -> list[str]:
    """The names whose docstring has no indented block that is Python."""
    missing = []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in names:
            shown = re.findall(r"^(?: {4}.*\n?)+", ast.get_docstring(node) or "", re.MULTILINE)
            if not any(ast.parse(dedent(each)).body for each in shown):
                missing.append(node.name)
    return missing


@pytest.mark.parametrize("module", PUBLIC)
def test_what_programs_use_is_documented_by_an_example(module: str) -> None:
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
    assert all(re.search(rf"^(def|class) {name}\b", source, re.MULTILINE) for name in PUBLIC[module])
    assert not without_example(source, PUBLIC[module])


def test_the_example_of_the_certificate_authority_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DASKPKI_HOME", str(tmp_path))
    monkeypatch.setenv("DASKPKI_KEY_FILE", str(tmp_path / "key"))
    subprocess.run([str(BIN / "daskpki"), "init-ca"], capture_output=True, check=True)
    shown = re.findall(r"^(?: {4}.*\n|\n)+", ast.get_docstring(class_named("CertificateAuthority")) or "", re.MULTILINE)
    example = "import daskpki\n" + dedent("".join(shown))
    names: dict[str, object] = {}
    exec(compile(example, "<example>", "exec"), names)  # noqa: S102 - our own docstring
    issued = subprocess.run([str(BIN / "daskpki"), "--json", "list"], capture_output=True, text=True, check=True)
    assert [entry["state"] for entry in json.loads(issued.stdout)] == ["revoked"]


def class_named(name: str) -> ast.ClassDef:
    source = (ROOT / "daskpki/authority/ca.py").read_text()
    return next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name)


def test_control_a_missing_example_is_seen() -> None:
    assert without_example('def connect():\n    """Connects."""\n', ["connect"]) == ["connect"]
    assert {*PUBLIC["daskpki.api"], *PUBLIC["daskpki.authority.ca"]} == {*daskpki.__all__} - {"__version__"}


def undrawn(names: set[str]) -> set[str]:
    """Packages and modules that the architecture's table or its picture lacks."""
    table = re.findall(r"^\| (`.*?) \|", (DOCS / "explanation" / "architecture.md").read_text(), re.MULTILINE)
    listed = set(re.findall(r"`([\w.]+)`", " ".join(table)))
    drawn = set(re.findall(r"\w+", " ".join(re.findall(r"<text.*?>(.*)</text>", PICTURE.read_text()))))
    return (names - listed) | (names - drawn)


PICTURE = DOCS / "explanation" / "packages.svg"


def test_the_architecture_shows_every_part() -> None:
    parts = {path.with_suffix("").parts[1] for path in tracked("daskpki/*.py")} - {"__init__", "__main__"}
    assert not undrawn(parts)
    assert undrawn({"cluster", "parlour"}) == {"parlour"}
