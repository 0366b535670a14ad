"""Writes the reference of commands and settings: `python -m scripts.reference`, or `--check` to compare.

Both pages come from the real command tree and the real table of settings, so they cannot differ from `--help`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

from daskpki.boot.options import OPTIONS
from daskpki.cli.app import COMMANDS, build

REFERENCE: Final = Path(__file__).parents[1] / "docs" / "reference"
BIN: Final = Path(sys.executable).parent

_NOTE: Final = "<!-- Written by `python -m scripts.reference` from the real commands; a test compares them. -->"
_COMMANDS: Final = (
    "The options of `daskpki` itself may be before or after the command. Each row has an anchor, such as"
    " `commands/#issue-ttl`. [Exit codes](exit-codes.md) explains how commands end."
)
_SETTINGS: Final = (
    "Options override variables, and variables override defaults. None of them is secret, so all of them may be"
    " in instance metadata or in an image."
)


def commands() -> str:
    """docs/reference/commands.md."""
    app: Any = typer.main.get_command(build([]))
    parts = ["# Commands", _NOTE, _COMMANDS, _overview(), "## Options of daskpki", _options("daskpki", app)]
    for name in COMMANDS:
        command = app.commands[name]
        parts += [f"## daskpki {name}", *_described(name, command)]
        for sub, nested in getattr(command, "commands", {}).items():
            parts += [f"### daskpki {name} {sub}", *_described(f"{name} {sub}", nested)]
    return "\n\n".join(part for part in parts if part) + "\n"


def entrypoint() -> str:
    """docs/reference/entrypoint.md."""
    said = subprocess.run(
        [str(BIN / "daskpki-entrypoint"), "--help"], capture_output=True, text=True, check=True, env={"COLUMNS": "80"}
    ).stdout
    rows = [
        f"| {_code(f'--{option.name} {option.value}'.strip())} | `{option.variable}` "
        f"| {option.meaning} | {_code(option.default)} |"
        for option in OPTIONS
    ]
    table = "\n".join(["| option | variable | meaning | default |", "|---|---|---|---|", *rows])
    help_text = "\n".join(line.rstrip() for line in said.strip("\n").splitlines())
    return (
        "\n\n".join(["# The entrypoint", _NOTE, f"```text\n{help_text}\n```", "## Settings", _SETTINGS, table]) + "\n"
    )


def _overview() -> str:
    """A table of all commands, by the panels of `daskpki --help`."""
    app: Any = typer.main.get_command(build([]))
    rows = [
        f"| [`{name}`](#daskpki-{name}) | {_cell(_first_paragraph(app.commands[name]))} | {panel} |"
        for name, (_, panel) in COMMANDS.items()
    ]
    return "\n".join(["| command | does | for |", "|---|---|---|", *rows])


def _described(path: str, command: Any) -> Iterator[str]:
    """The usage, the help text and the table of options of one command; a group has no usage."""
    if not hasattr(command, "commands"):
        arguments = " ".join(_argument(parameter) for parameter in command.params if _is_argument(parameter))
        yield f"```text\ndaskpki {path}{' [OPTIONS]' if _has_options(command) else ''} {arguments}".rstrip() + "\n```"
    yield from _paragraphs(command.help or "")
    yield _options(path, command)


def _paragraphs(text: str) -> Iterator[str]:
    """The help text; commands that are bold there are blocks that can be copied here."""
    for paragraph in text.split("\n\n"):
        examples = re.findall(r"\[bold\](.*?)\[/bold\]", paragraph, re.DOTALL)
        words = " ".join(re.sub(r"\[bold\].*?\[/bold\]", "", paragraph, flags=re.DOTALL).split())
        if words:
            yield words
        if examples:
            yield "```sh\n" + "\n".join(" ".join(example.split()) for example in examples) + "\n```"


def _options(path: str, command: Any) -> str:
    """A row for each argument and option, with an anchor such as `issue-ttl`."""
    shown = [parameter for parameter in command.params if not parameter.hidden and parameter.name != "help"]
    rows = [_row(path, parameter) for parameter in shown]
    return "\n".join(["| option | meaning |", "|---|---|", *rows]) if rows else ""


def _row(path: str, parameter: Any) -> str:
    anchor = f"{path}-{parameter.opts[0].lstrip('-')}".replace(" ", "-").lower().removeprefix("daskpki-")
    if _is_argument(parameter):
        anchor += "-argument"  # an option may have the same name
        name = _code(_argument(parameter))
    else:
        value = "" if parameter.is_flag else f" {_metavar(parameter)}"
        name = ", ".join(_code(f"{option}{value}") for option in (*parameter.opts, *parameter.secondary_opts))
    return f'| <span id="{anchor}">{name}</span> | {_cell(" ".join(_meaning(parameter)))} |'


def _meaning(parameter: Any) -> Iterator[str]:
    yield parameter.help or ""
    if parameter.multiple:
        yield "May be repeated."
    if parameter.envvar:
        yield f"Variable: `{parameter.envvar}`."
    if parameter.default not in (None, False, (), []) and parameter.show_default is True:
        yield f"Default: `{getattr(parameter.default, 'value', parameter.default)}`."
    elif isinstance(parameter.show_default, str):
        yield f"Default: {parameter.show_default}."


def _is_argument(parameter: Any) -> bool:
    return not any(option.startswith("-") for option in parameter.opts)


def _has_options(command: Any) -> bool:
    return any(not _is_argument(parameter) and parameter.name != "help" for parameter in command.params)


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required or name.startswith("[") else f"[{name}]"


def _metavar(parameter: Any) -> str:
    choices = getattr(parameter.type_descriptor.annotation, "__members__", None)
    return parameter.metavar or ("|".join(member.value for member in choices.values()) if choices else "VALUE")


def _first_paragraph(command: Any) -> str:
    return " ".join(re.sub(r"\[/?bold\]", "`", (command.help or "").split("\n\n")[0]).split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


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
