"""The help teaches: every command has an example, and the start-up loads no more than it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from daskpki.cli.app import COMMANDS
from tests.cli.running import runner


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    shown = runner(capsys)("--help").out
    for name in COMMANDS:
        assert name in shown
    assert "init-ca --with" in shown
    assert "75 temporary" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_how_it_is_used(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = runner(capsys)(name, "--help").out
    assert "Example" in shown or "Commands" in shown
    assert f"daskpki {name}" in shown


def loaded(*arguments: str) -> set[str]:
    code = (
        "import sys; from daskpki.cli.app import main; code = main(sys.argv[1:]); "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


def test_issue_loads_neither_dask_nor_google_nor_pydantic(tmp_path: object) -> None:
    common = ("--store", f"local:{tmp_path}/store", "--key-file", f"{tmp_path}/key", "--quiet")
    loaded(*common, "init-ca")
    heavy = {"distributed", "dask", "google", "grpc", "keyring", "pydantic", "rich", "requests"}
    assert not heavy & loaded(*common, "issue", "worker")
    assert not heavy & loaded(*common, "issue", "worker", "--count", "2")
    assert "pydantic" in loaded(*common, "issue", "worker", "--count", "0")  # the control: typer's own words


def test_completion_knows_the_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "daskpki"],
        env={"_DASKPKI_COMPLETE": "complete_bash", "COMP_WORDS": "daskpki is", "COMP_CWORD": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "issue" in done.stdout
