"""The reference of commands, written from the real --help: `python -m scripts.reference`, or `--check` to compare."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from daskpki.boot.options import OPTIONS
from daskpki.cli.app import COMMANDS

REFERENCE: Final = Path(__file__).parents[1] / "docs" / "reference"
BIN: Final = Path(sys.executable).parent
_WIDTH: Final = "80"


def help_of(*words: str) -> str:
    """What a command says to --help, on a terminal of a fixed width and without colours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DASKPKI", "TYPER", "FORCE"))}
    environment = {**kept, "COLUMNS": _WIDTH, "TERMINAL_WIDTH": _WIDTH, "NO_COLOR": "1", "TERM": "dumb"}
    command = [str(BIN / words[0]), *words[1:], "--help"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return "\n".join(line.rstrip() for line in said.strip("\n").splitlines())


def commands() -> str:
    """docs/reference/commands.md."""
    parts = [
        "# Commands",
        _NOTE,
        _COMMANDS,
        _block("daskpki"),
    ]
    for name in COMMANDS:
        parts += [f"## daskpki {name}", _block("daskpki", name)]
        parts += [
            part for group in _groups(name) for part in (f"### daskpki {' '.join(group)}", _block("daskpki", *group))
        ]
    return "\n\n".join(parts) + "\n"


def _groups(name: str) -> Sequence[tuple[str, str]]:
    """The commands of a group of commands, none for a command."""
    import typer

    from daskpki.cli.app import build

    found = typer.main.get_command(build([name]))
    command = getattr(found, "commands", {}).get(name)
    return [(name, sub) for sub in getattr(command, "commands", {})]


def entrypoint() -> str:
    """docs/reference/entrypoint.md."""
    rows = [
        f"| {_code(f'--{option.name} {option.value}'.strip())} | `{option.variable}` "
        f"| {option.meaning} | {_code(option.default)} |"
        for option in OPTIONS
    ]
    parts = [
        "# The entrypoint",
        _NOTE,
        _block("daskpki-entrypoint"),
        "## Settings",
        _SETTINGS,
        "\n".join(["| option | variable | meaning | default |", "|---|---|---|---|", *rows]),
    ]
    return "\n\n".join(parts) + "\n"


_COMMANDS: Final = (
    "The options of `daskpki` itself may stand before or behind the command. What a command exits with is in"
    " [exit codes](exit-codes.md)."
)
_SETTINGS: Final = (
    "An option goes before the variable, the variable before the default. None of them is secret, so all may stand"
    " in instance metadata or in an image."
)
_NOTE: Final = "<!-- Written by `python -m scripts.reference` from the real --help; a test compares them. -->"


def _block(*words: str) -> str:
    return f"```text\n{help_of(*words)}\n```"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


PAGES: Final = {"commands.md": commands, "entrypoint.md": entrypoint}


def main() -> int:
    """Write the pages, or with --check say which of them differ."""
    differing = []
    for name, page in PAGES.items():
        path, text = REFERENCE / name, page()
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            differing.append(name)
    for name in differing:
        print(f"docs/reference/{name} is not what --help says: python -m scripts.reference", file=sys.stderr)
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
