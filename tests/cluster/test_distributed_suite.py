"""distributed's own tests on a sealed scheduler: none fails that does not fail on a stock one; clients are admins.

The tests are those of distributed 2026.7.1 (commit 3bca3f9f, BSD-3-Clause), which no package of distributed contains:
`git archive 2026.7.1 LICENSE.txt conftest.py pyproject.toml FILES | xz`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from pathlib import Path

import distributed
import pytest

from daskpki.identity import Role
from daskpki.pki.profile import Grade
from tests.support.cluster_material import Authority
from tests.support.distributed_suite import HANDOVERS
from tests.support.nightly import by_day
from tests.support.nodes import handover_of, stock_environment
from tests.support.paths import ROOT

pytestmark = pytest.mark.cluster

ARCHIVE = ROOT / "tests" / "support" / "distributed-2026.7.1-tests.tar.xz"
SAMPLE = [
    f"distributed/tests/test_publish.py::test_{name}"
    for name in (
        "publish_simple",
        "publish_non_string_names",
        "publish_roundtrip",
        "unpublish",
        "unpublish_sync",
        "publish_bag",
        "datasets_async",
        "deserialize_client",
        "publish_unpersisted",
    )
]
WHOLE = ["distributed/tests", "distributed/shuffle/tests"]
_COMPUTATION = "a later graph comes when the first one's tasks have ended, and begins another"
DIFFERENT: dict[str, str] = {
    f"distributed/{test}": why
    for test, why in {
        "tests/test_client.py::test_computation_object_code_client_submit_dict_comp": _COMPUTATION,
        "tests/test_client.py::test_computation_object_code_client_submit_list_comp": _COMPUTATION,
        "tests/test_client.py::test_file_descriptors_dont_leak[Worker]": "a client's helper stays, behind a descriptor",
        "tests/test_client.py::test_scatter_compute_store_lose_processing": "its first graph takes over 0.1 s",
        "shuffle/tests/test_shuffle.py::test_workers_do_not_spam_get_requests": "brings another plugin for P2P",
    }.items()
}
"""Tests that may fail on a sealed scheduler alone, and why that is right."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed distributed with its tests."""
    directory = tmp_path_factory.mktemp("suite")
    shutil.copytree(Path(distributed.__file__).parent, directory / "distributed")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(directory, filter="data")
    return directory


def environment(authority: Authority, place: Path, code: str) -> dict[str, str]:
    """Of Dask's own configuration for all roles, and, for a sealed one, handovers of the same certificates."""
    directory = place / code
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    for role in Role:
        leaf = authority.leaf(role, grades=(Grade.ADMIN,) if role is Role.CLIENT else ())
        environ |= stock_environment(authority, leaf, directory / role.value)
        handover_of(authority, leaf, directory / role.value, "allow", code=code)
    if code == "sealed":
        environ[HANDOVERS] = str(directory)
    return environ | {
        # What a graph names has to be there for helpers, too: their process begins before pytest adds its folder.
        "PYTHONPATH": os.pathsep.join([str(place), str(place / "distributed" / "tests"), str(ROOT)]),
        "DASK_DISTRIBUTED__CLIENT__SECURITY_LOADER": "None",
    }


def outcomes(authority: Authority, place: Path, code: str, selected: Iterable[str]) -> Mapping[str, str]:
    """What each test came to, by its id: passed, skipped, failure or error."""
    report = place / f"{code}.xml"
    options = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}", "-o", "junit_family=xunit1"]
    options += ["--timeout=120", "--timeout-method=signal"]  # their own method ends the whole run
    options += ["--tb=native"]  # a parsed traceback can end Python 3.11's parser in a SystemError, and the run with it
    command = [sys.executable, "-m", "tests.support.distributed_suite", *options, *selected]
    environ = environment(authority, place, code)
    done = subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stdout[-5000:] + done.stderr[-5000:]
    cases = ET.parse(report).iter("testcase")  # noqa: S314 - pytest wrote it just now
    return {node(case): case[0].tag if len(case) else "passed" for case in cases}


def node(case: ET.Element) -> str:
    """As pytest takes it."""
    within = str(case.get("classname")).rpartition(".")[2]
    return "::".join([str(case.get("file")), *([within] if within.startswith("Test") else []), str(case.get("name"))])


def failed(found: Mapping[str, str]) -> set[str]:
    return {name for name, outcome in found.items() if outcome in {"failure", "error"}}


@pytest.mark.long
@pytest.mark.timeout(by_day(900, night=4 * 3600))
def test_nothing_fails_that_does_not_fail_on_a_stock_scheduler(authority: Authority, place: Path) -> None:
    """What fails on the sealed one alone is run once more, alone: many of these tests race against a clock."""
    selected = by_day(SAMPLE, night=WHOLE)
    stock, sealed = (outcomes(authority, place, code, selected) for code in ("stock", "sealed"))
    assert stock.keys() == sealed.keys()
    assert len(failed(stock)) < len(stock) / 10  # those that start `dask scheduler` without TLS
    alone = failed(sealed) - failed(stock)
    again = outcomes(authority, place, "sealed", alone) if alone else {}
    assert failed(again) <= DIFFERENT.keys()
