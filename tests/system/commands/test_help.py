"""The help teaches: every command has an example, and the start-up loads no more than it needs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from shlex import quote
from typing import Annotated, Any

import pytest
import typer

import daskpki
from daskpki.cli.app import COMMANDS, build
from tests.support.running import runner


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    shown = runner(capsys)("--help").out
    for name in COMMANDS:
        assert name in shown
    assert "init-ca --with" in shown
    assert "75 temporary" in shown


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner(capsys)("--version").out == f"daskpki {daskpki.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_how_it_is_used(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = runner(capsys)(name, "--help").out
    assert "Example" in shown or "Commands" in shown
    assert f"daskpki {name}" in shown
    assert "bool" not in shown  # a flag takes no value


def leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that does something, with the groups that it stands in."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", list(leaves(typer.main.get_command(build([])))), ids=" ".join)
def test_help_fits_a_narrow_terminal_without_colour(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    shown = runner(capsys)(*path, "--help").out
    assert f"daskpki {' '.join(path)}" in shown.partition("Options")[0].partition("Usage:")[2].partition("\n")[2]
    assert not re.findall(r"--[\w-]+…", shown), "an option's name is cut"
    assert "\x1b" not in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def groups(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The program itself, and every command that has others."""
    yield path
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from groups(command, (*path, name))


def swallowed(shown: str) -> list[str]:
    """What rich leaves behind of `[default: stdout]`, which it takes for markup."""
    return re.findall(r" \.(?!\.)|\[\[", shown)


WHOLE = typer.main.get_command(build([]))


@pytest.mark.parametrize("path", [*leaves(WHOLE), *groups(WHOLE)], ids=" ".join)
def test_no_help_text_loses_words_to_markup(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert not swallowed(runner(capsys)(*path, "--help").out)


def test_control_a_lost_word_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer(rich_markup_mode="rich")

    @app.command()
    def planted(out: Annotated[str, typer.Option(help="Where to write [default: stdout].")] = "") -> None:
        """Write."""

    with pytest.raises(SystemExit):
        app(["--help"])
    assert swallowed(capsys.readouterr().out)


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


def test_completion_is_shown_for_the_shell_that_asks() -> None:
    asked = f"{quote(sys.executable)} -m daskpki --show-completion; exit $?"  # the exit keeps bash from becoming Python
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    assert "complete -o default -F _daskpki_completion daskpki" in done.stdout
    assert subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=False).returncode == 0


def test_completion_knows_the_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "daskpki"],
        env={"_DASKPKI_COMPLETE": "complete_bash", "COMP_WORDS": "daskpki is", "COMP_CWORD": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "issue" in done.stdout
