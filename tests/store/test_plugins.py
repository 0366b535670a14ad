"""Stores of other packages: the page that shows one is run as it stands, and URLs lead to what entry points name."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import pytest

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.errors import UsageError
from daskpki.grants import check_applies
from daskpki.settings import STORES, PluginUrl, parse_store_url
from daskpki.store.opening import open_store
from tests.support.doc_sessions import blocks
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "how-to" / "write-a-store.md"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The page's package, installed in a directory as pip would."""
    directory = tmp_path / "site"
    store, tests, project = [block.text for block in blocks(PAGE)]
    (directory / "jsonstore-1.dist-info").mkdir(parents=True)
    (directory / "jsonstore.py").write_text(store)
    (directory / "test_jsonstore.py").write_text(tests)
    install(directory, "jsonstore", tomllib.loads(project)["project"]["entry-points"][STORES])
    return directory


def install(directory: Path, name: str, schemes: dict[str, str]) -> None:
    about = directory / f"{name}-1.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    lines = [f"{scheme} = {value}" for scheme, value in schemes.items()]
    (about / "entry_points.txt").write_text("\n".join([f"[{STORES}]", *lines, ""]))


def test_the_store_of_the_page_passes_the_suite(package: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_jsonstore.py"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}  # this checkout, whatever else is installed
    ran = subprocess.run(command, cwd=package, env=environ, capture_output=True, text=True, timeout=150, check=False)
    assert ran.returncode == 0, ran.stdout
    assert " passed" in ran.stdout
    assert "skipped" not in ran.stdout


def test_a_url_opens_the_store_that_an_entry_point_names(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(package)
    place = tmp_path / "place"
    place.mkdir(mode=0o700)
    url = parse_store_url(f"json://{place}")
    assert url == PluginUrl("json", f"//{place}")
    with closing(open_store(url, environ={})) as store:
        secret = secret_names.user_secret_id("default", "db")
        store.secrets.create(secret, labels=secret_names.labels("default", secret_names.SECRET, "db"))
        assert store.secrets.add(secret, Confidential("x")) == 1
        assert store.url == str(url)
    with pytest.raises(UsageError, match=r"json:.* has no grants; only Secret Manager has them"):
        check_applies(url)


@pytest.mark.parametrize("text", ["json:///srv/pki", "json:srv", "JSON:///srv", "://srv", "js on:///srv"])
def test_a_scheme_that_no_package_names_is_no_store(text: str) -> None:
    with pytest.raises(UsageError, match="is not a store") as refused:
        parse_store_url(text)
    assert STORES in str(refused.value.hint)


def test_two_packages_for_one_scheme_are_refused(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(package, "other", {"json": "other:open_store"})
    monkeypatch.syspath_prepend(package)
    with pytest.raises(UsageError, match=r"jsonstore:open_store, other:open_store opens"):
        open_store(parse_store_url("json:///srv/pki"), environ={})
