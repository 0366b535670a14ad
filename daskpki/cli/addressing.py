"""Commands in a remedy, with the store and cluster that this run was told, so that they do what they say as printed.

What came from the environment stands there for the next command, too; what came from the command line does not.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Any

import typer

from daskpki.cli.globals import WITH_VALUE


def told(ctx: typer.Context) -> str:
    """The options of `daskpki` itself that stand on this command line, as one could repeat them."""
    root = ctx.find_root()
    words = [f"{option}={root.params[name]}" for option, name in _parameters() if _is_on_the_command_line(root, name)]
    return shlex.join(words)


def _parameters() -> Iterable[tuple[str, str]]:
    return ((option, option.removeprefix("--").replace("-", "_")) for option in WITH_VALUE)


def is_given(ctx: typer.Context, name: str) -> bool:
    """Whether an option of `daskpki` itself was set, here or by its variable, rather than left at its default."""
    source = ctx.find_root().get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def _is_on_the_command_line(root: Any, name: str) -> bool:
    source = root.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def addressed(text: str, options: str, commands: Iterable[str]) -> str:
    """The text with these options in each command of ours that has none yet."""
    if not options:
        return text
    named = "|".join(map(re.escape, commands))
    return re.sub(rf"\bdaskpki (?=(?:{named})\b)", lambda _: f"daskpki {options} ", text)
