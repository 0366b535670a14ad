"""Where stdout or stderr take no more, or not each character: the work stands, and the exit code is the result's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import Run
from tests.support.sandbox import OWN_MOUNTS

FULL = Path("/dev/full")


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    common = ["--store", f"local:{tmp_path / 'store'}", "--key-file", str(tmp_path / "store.key")]
    return [sys.executable, "-m", "daskpki", *common]


def run(*arguments: str, **streams: Any) -> subprocess.CompletedProcess[str]:
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run(arguments, check=False, text=True, **given)


def test_a_result_that_cannot_be_written_is_a_failure_and_the_work_stands(command: list[str]) -> None:
    with FULL.open("w") as full:
        made = run(*command, "init-ca", "--with", "worker", stdout=full)
        listed = run(*command, "list", "--json", stdout=full)
    assert made.returncode == listed.returncode == 1
    assert "the result could not be written: No space left on device\nhint: " in made.stderr
    assert "Traceback" not in made.stderr + listed.stderr
    assert "worker/worker" in run(*command, "list").stdout


def test_words_that_cannot_be_said_stop_nothing(command: list[str]) -> None:
    with FULL.open("w") as full:
        assert run(*command, "init-ca", "--with", "worker", stderr=full).returncode == 0
        assert run(*command, "show", "worker/nobody", stderr=full).returncode == 4


def test_a_boot_that_cannot_say_why_it_fails_exits_as_if_it_could() -> None:
    """Also on Python 3.13 and newer, which exits with 120 when stderr takes nothing at the end."""
    boot = [sys.executable, "-m", "daskpki.boot", "scheduler", "--no-such-option"]
    with FULL.open("w") as full:
        assert run(*boot, stderr=full).returncode == run(*boot).returncode == 2


def test_a_reader_that_goes_away_is_no_failure(command: list[str], local: Run) -> None:
    local("init-ca", "--with", "worker")
    reading = subprocess.Popen([*command, "--quiet", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert reading.stdout
    assert reading.stderr
    reading.stdout.close()
    with reading:
        assert (reading.wait(), reading.stderr.read()) == (0, b"")


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_a_path_that_stdout_has_no_characters_for_is_no_failure(
    command: list[str], local: Run, tmp_path: Path, encoding: str
) -> None:
    environ = {**os.environ, "PYTHONIOENCODING": encoding}
    local("init-ca", "--with", "worker")
    for name, shown in (("plain", "plain"), (os.fsdecode(b"jos\xe9"), "jos\\udce9")):
        file = tmp_path / f"{name}.backup"
        done = run(*command, "backup", str(file), env=environ)
        assert (done.returncode, f"{tmp_path / shown}.backup" in done.stdout) == (0, True), done.stderr
        again = tmp_path / f"{name}.again"
        assert json.loads(run(*command, "--json", "backup", str(again), env=environ).stdout)["path"] == str(again)


def test_a_listing_is_json_where_stdout_lacks_characters(command: list[str]) -> None:
    environ = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "LOGNAME": "jos\xe9"}
    assert run(*command, "init-ca", env=environ).returncode == 0
    records = json.loads(run(*command, "--json", "audit", env=environ).stdout)
    assert {record["who"].partition("@")[0] for record in records} == {"jos\xe9"}


def test_a_place_that_is_read_only_is_named(command: list[str], local: Run, tmp_path: Path) -> None:
    local("init-ca")
    place = tmp_path / "place"
    place.mkdir()
    mount = 'mount -t tmpfs -o ro none "$0" && exec "$@"'
    for name, arguments in (("crl", ("crl", "--out")), ("report", ("report", "--html")), ("backup", ("backup",))):
        there = [*arguments, str(place / name)]
        refused = run(*OWN_MOUNTS, "sh", "-c", mount, str(place), *command, *there)
        assert (refused.returncode, refused.stderr) == (5, f"error: {place / name}: Read-only file system\n")
        local(*there)
