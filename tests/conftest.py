"""Shared by all tests: their order, those for long runs, a home for each, and the one tool that may be absent."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import dask.config
import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tests.support.nightly import NIGHTLY

pytest.register_assert_rewrite("daskpki.store.testing", "tests.support.histories")
hypothesis.settings.register_profile("by day", derandomize=True)
if not NIGHTLY:  # an ordinary run tries the same cases as the one before it, a long one new ones
    hypothesis.settings.load_profile("by day")

LONGEST = ("cluster", "deploy", "repository", "system", "boot", "robustness", "store")
"""Folders whose tests take longest, in this order (scripts/test lists the slowest)."""
SHARING = frozenset(
    f"tests/cluster/{name}.py"
    for name in (
        "sealed/test_canaries",
        "sealed/test_features",
        "sealed/test_helper_pool",
        "test_code_execution",
        "test_large_messages",
        "test_matrix",
        "test_operations",
        "test_preload",
        "test_tls",
        "test_worker_clients",
    )
)
"""Modules that use the clusters of tests/cluster/conftest.py."""


class ModuleScheduling(LoadFileScheduling):
    """Gives each module to one process, and all that share clusters to the same: each process starts its own."""

    def _split_scope(self, nodeid: str) -> str:
        module = super()._split_scope(nodeid)
        return "shared clusters" if module in SHARING else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ModuleScheduling:
    return ModuleScheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest begin first; and `gcloud` is the one judge that CI cannot install, so its tests run where it is.

    The last module to begin decides how long one of two processes waits for the other. Tests marked `long` are for long
    runs alone (CONTRIBUTING.md).
    """
    items.sort(key=_turn)
    if not NIGHTLY:
        later = {item for item in items if item.get_closest_marker("long")}
        config.hook.pytest_deselected(items=[*later])
        items[:] = [item for item in items if item not in later]
    if shutil.which("gcloud"):
        return
    for item in items:
        if item.get_closest_marker("needs_gcloud"):
            item.add_marker(pytest.mark.skip(reason="gcloud is not installed, and no Debian archive has it"))


def _turn(item: pytest.Item) -> tuple[int, bool]:
    package = item.path.relative_to(Path(__file__).parent).parts[0]
    # The shared clusters end with their folder's last test, even idle ones take time from others.
    sharing = item.nodeid.partition("::")[0] in SHARING
    return LONGEST.index(package) if package in LONGEST else len(LONGEST), sharing


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Directories that are not there yet. mktemp looks at all that it made before, and thousands of tests ask."""
    above = tmp_path_factory.mktemp("homes")
    return (above / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _own_home(_homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the developer's own home, stores, keyring or Google credentials."""
    home = next(_homes)
    home.mkdir(0o700)
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
