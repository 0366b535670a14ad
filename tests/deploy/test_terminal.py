"""The plan on a terminal: shown first, then the question; progress at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pexpect
import pytest

from tests.support.deployments import IMAGE, STORE

GCLOUD = """\
#!/bin/sh
echo "$*" >>{journal}
case "$*" in *--format=json*) [ ! -p {held} ] || cat {held} 2>/dev/null; echo "[]";; esac
"""
"""A Google Cloud without anything. It answers at once, or while there is a FIFO `held` when that is written to."""


def deploy(directory: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> pexpect.spawn[str]:
    gcloud = directory / "gcloud"
    gcloud.write_text(GCLOUD.format(journal=directory / "journal", held=directory / "held"))
    gcloud.chmod(0o700)
    words = ["-m", "daskpki", f"--store={STORE}", "--cluster=lab", "deploy", "gcp", "--zone=europe-west1-b"]
    nowhere = {"DASKPKI_SECRET_MANAGER_ENDPOINT": "http://127.0.0.1:1"}  # no step of a test gets as far as a store
    environ = {**os.environ, **nowhere, "PATH": f"{directory}:/usr/bin:/bin", **(environment or {})}
    return pexpect.spawn(
        sys.executable, [*words, f"--image={IMAGE}", *arguments], env=environ, timeout=100, encoding="utf-8",
        dimensions=(100, 300),
    )  # fmt: skip


def changes(directory: Path) -> list[str]:
    return [line for line in (directory / "journal").read_text().splitlines() if "--format=" not in line]


@pytest.mark.parametrize("answer", ["", "n", "Y e s"])
def test_any_answer_but_yes_changes_nothing(tmp_path: Path, answer: str) -> None:
    child = deploy(tmp_path, "--apply")
    child.expect(r"\+ created: VM daskpki-lab-node")  # the plan comes first
    child.expect(r"Apply\? \[y/N\] ")
    child.sendline(answer)
    child.expect(pexpect.EOF)
    child.close()
    assert changes(tmp_path) == []
    assert child.exitstatus == 1


def test_yes_begins(tmp_path: Path) -> None:
    child = deploy(tmp_path, "--apply")
    child.expect(r"Apply\? \[y/N\] ")
    child.sendline("y")
    child.expect(r"\[1/\d+\] created: services.*\[2/\d+\] created: CA")
    child.close(force=True)
    assert changes(tmp_path)[0].startswith("services enable")


@pytest.mark.parametrize(("options", "environment"), [(("--yes",), {}), ((), {"DASKPKI_YES": "1"})])
def test_nothing_is_asked_where_yes_was_said(
    tmp_path: Path, options: tuple[str, ...], environment: dict[str, str]
) -> None:
    child = deploy(tmp_path, "--apply", *options, environment=environment)
    assert child.expect([r"\[1/\d+\] created: services", r"\[y/N\]"]) == 0
    child.close(force=True)


def test_something_is_said_before_google_has_answered_and_as_it_answers(tmp_path: Path) -> None:
    held = tmp_path / "held"
    os.mkfifo(held)
    child = deploy(tmp_path)
    child.expect(r"asking Google Cloud what is in project-one of cluster lab")
    with held.open("wb"):  # once gcloud reads it
        held.unlink()
        assert "] read " not in str(child.before)
    child.expect(r"\[1/9\] read ")
    child.expect(r"\[9/9\] read ")
    child.expect("nothing was changed: add --apply")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
