"""What is released can be made again to the byte, says what is in it, and is published without a stored secret."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import DOCS, ROOT, tracked

LOCKED = (ROOT / "scripts" / "container" / "requirements.txt").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ALLOWED = re.compile(
    r"\b(BSD|0BSD|MIT|MIT-0|Apache-2\.0|ISCL|MPL 2\.0|PSF-2\.0|Python Software Foundation|Unlicense)\b"
)
PAGE = (DOCS / "reference" / "dependencies.md").read_text()


def checkout(place: Path, *, mode: int) -> Path:
    """The files of this checkout in another place, written at another time and with other permissions."""
    for path in tracked("daskpki", "pyproject.toml", "README.md", "LICENSE"):
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, target)
        target.chmod(mode)
    return place


def wheel(place: Path, out: Path, *, umask: int) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    environment = {"PATH": os.environ["PATH"], "TZ": f"UTC{umask % 7}"}
    subprocess.run(command, cwd=place, env=environment, umask=umask, capture_output=True, check=True)
    (built,) = out.glob("*.whl")
    return built


def test_two_wheels_are_identical(tmp_path: Path) -> None:
    one = wheel(checkout(tmp_path / "one", mode=0o644), tmp_path / "first", umask=0o022)
    other = wheel(checkout(tmp_path / "a" / "longer" / "path", mode=0o600), tmp_path / "second", umask=0o077)
    assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()


def test_another_source_makes_another_wheel(tmp_path: Path) -> None:
    place = checkout(tmp_path / "one", mode=0o644)
    before = wheel(place, tmp_path / "first", umask=0o022).read_bytes()
    (place / "daskpki" / "serials.py").open("a").write("# changed\n")
    assert wheel(place, tmp_path / "second", umask=0o022).read_bytes() != before


def test_a_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    built = zipfile.ZipFile(wheel(checkout(tmp_path / "one", mode=0o644), tmp_path / "first", umask=0o022)).namelist()
    information, data = (f"daskpki-{PROJECT['version']}.{kind}" for kind in ("dist-info", "data"))
    assert {name.partition("/")[0] for name in built} == {"daskpki", information, data}
    assert [name for name in built if name.startswith(data)] == [f"{data}/data/etc/dask/daskpki.yaml"]
    files = {path.as_posix() for path in tracked("daskpki")}
    assert {name for name in built if name.startswith("daskpki/")} == files
    assert f"{information}/licenses/LICENSE" in built


@pytest.mark.long
def test_the_bill_of_materials_names_what_is_locked() -> None:
    made = [subprocess.run([ROOT / "scripts" / "sbom"], capture_output=True, check=True).stdout for _ in range(2)]
    assert made[0] == made[1]
    bill: dict[str, Any] = json.loads(made[0])
    assert bill["bomFormat"] == "CycloneDX"
    described = bill["metadata"]["component"]
    assert (described["name"], described["version"]) == ("daskpki", PROJECT["version"])
    found = {f"{entry['name']}=={entry['version']}" for entry in bill["components"]}
    assert found == set(re.findall(r"^([a-z0-9.-]+==[^ \\]+)", LOCKED, re.MULTILINE))


def listed() -> dict[str, str]:
    cells = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ")][1:]
    return {name.strip(): licence.strip() for name, _, licence in cells}


def test_every_dependency_is_listed_with_its_licence() -> None:
    extras = PROJECT["optional-dependencies"]
    direct = [*PROJECT["dependencies"], *(entry for extra in ("cli", "gcp", "kms") for entry in extras[extra])]
    names = {re.split(r"[\[<>=;]", entry)[0] for entry in direct} - {"daskpki"}
    names |= set(re.findall(r"^([a-z0-9.-]+)==", LOCKED, re.MULTILINE))
    assert names <= set(listed())
    assert len(names) > 20


@pytest.mark.parametrize("name", listed())
def test_a_licence_allows_our_own(name: str) -> None:
    assert ALLOWED.search(listed()[name]), listed()[name]


def test_the_release_uses_no_stored_secret_and_few_permissions() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    assert "secrets." not in text
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    wanted = {name: job["permissions"] for name, job in workflow["jobs"].items()}
    assert wanted == {
        "test": {"contents": "read"},
        "build": {"contents": "read"},
        "publish": {"id-token": "write", "attestations": "write"},
    }
    steps = [step.get("uses", "").partition("@")[0] for step in workflow["jobs"]["publish"]["steps"]]
    assert steps[-1] == "pypa/gh-action-pypi-publish"
    assert "actions/attest-build-provenance" in steps
    assert not [
        step for step in workflow["jobs"]["publish"]["steps"] if "run" in step
    ]  # nothing of ours runs with the token


def test_the_release_runs_actions_by_their_commit() -> None:
    """A tag of an action may be moved, a commit may not; the comment says which version it is."""
    used = re.findall(r"uses: (\S+) ?(.*)", (ROOT / ".github" / "workflows" / "release.yml").read_text())
    assert len(used) >= 8
    assert [entry for entry in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[0-9.]+", " ".join(entry))] == []


def test_the_security_policy_says_which_versions_are_kept() -> None:
    policy = (ROOT / "SECURITY.md").read_text()
    assert "| version | security fixes |" in policy
    assert ".github/workflows/release.yml" in policy
