"""A sample of what is run for hours elsewhere (CONTRIBUTING.md): mutation, fleets, and what a fleet asks of a store."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

MODULE = "daskpki/records.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def figures(table: str, row: str) -> list[float]:
    """The numbers of a row of a table in Markdown, by how it begins."""
    found = re.search(rf"^\| {re.escape(row)} \|(.+)\|$", table, re.MULTILINE)
    assert found is not None, table
    return [float(cell.replace(",", "")) for cell in found[1].split("|")]


@pytest.mark.long
def test_the_tests_notice_a_sample_of_mutants() -> None:
    done = run("scripts.mutating", MODULE, "--sample", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{MODULE}: 3 of " in done.stdout


@pytest.mark.long
def test_tests_that_notice_nothing_are_found_out() -> None:
    done = run("scripts.mutating", MODULE, "--sample", "1", "--tests", "tests/core/test_identity.py")
    assert done.returncode == 1
    assert "1 survived, 0 of them spared, 0 took too long: 0.0%" in done.stdout, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.cluster
def test_a_small_fleet_is_compared_with_stock_tls() -> None:
    done = run("scripts.benchmarks.fleet", "2", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    for kind in ("stock", "daskpki"):
        seconds = figures(done.stdout, f"2 | {kind}")
        assert len(seconds) == 10
        assert min(seconds[0], *seconds[5:9]) > 0


@pytest.mark.long
def test_a_node_asks_the_store_once_a_minute() -> None:
    """And three times at boot, and once more each hour."""
    done = run("scripts.benchmarks.store", "3")
    assert done.returncode == 0, done.stderr
    for step, accesses in {"3 nodes boot": 9, "a look at rest": 3, "that look in each later hour": 6}.items():
        assert figures(done.stdout, step)[:4] == [accesses, 0, 0, 0]
    assert figures(done.stdout, "`daskpki rotate-ca promote --no-push`")[2] > 3
