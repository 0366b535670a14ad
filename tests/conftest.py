"""Shared by all tests: their order, those for long runs, a home for each, and the one tool that may be absent."""

from __future__ import annotations

import shutil
from pathlib import Path

import dask.config
import pytest

from tests.robustness.crash.nightly import NIGHTLY

LONGEST = ("cluster", "deploy", "repository", "system", "boot", "robustness", "stores")
"""Folders whose tests take longest, in this order (scripts/test lists the slowest)."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest begin first; and `gcloud` is the one judge that CI cannot install, so its tests run where it is.

    The last module to begin decides how long one of two processes waits for the other. Tests marked `long` are for long
    runs alone (CONTRIBUTING.md).
    """
    items.sort(key=_turn)
    if not NIGHTLY:
        later = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=later)
        items[:] = [item for item in items if item not in later]
    if shutil.which("gcloud"):
        return
    for item in items:
        if item.get_closest_marker("needs_gcloud"):
            item.add_marker(pytest.mark.skip(reason="gcloud is not installed, and no Debian archive has it"))


def _turn(item: pytest.Item) -> int:
    package = item.path.relative_to(Path(__file__).parent).parts[0]
    return LONGEST.index(package) if package in LONGEST else len(LONGEST)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the developer's own home, stores, keyring or Google credentials."""
    home = tmp_path_factory.mktemp("home")
    for variable in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "DASKPKI_HOME"):
        path = home if variable == "HOME" else home / variable.lower()
        monkeypatch.setenv(variable, str(path))
    for variable in (
        "DASKPKI_STORE",
        "DASKPKI_CLUSTER",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_CLOUD_PROJECT",
    ):
        monkeypatch.delenv(variable, raising=False)
    # Dask computed its directories when it was imported: the user's one is this test's, and no environment's counts.
    monkeypatch.setattr(dask.config, "paths", [str(home / ".config" / "dask")])
    return home
