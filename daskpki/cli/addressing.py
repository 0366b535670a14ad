"""Commands in a remedy, with the store and cluster that this run was told, so that they do what they say as printed.

What came from the environment stands there for the next command, too; what came from the command line does not.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from itertools import islice

import typer

from daskpki.cli.globals import FLAGS, WITH_VALUE


def told(hoisted: Sequence[str]) -> str:
    """The options with a value at the front of hoisted arguments, as one could repeat them."""
    words: list[str] = []
    pending = iter(hoisted)
    for argument in pending:
        if argument in WITH_VALUE:
            words += [f"{argument}={value}" for value in islice(pending, 1)]
        elif argument.startswith(tuple(f"{option}=" for option in WITH_VALUE)):
            words.append(argument)
        elif argument not in FLAGS:
            break
    return shlex.join(words)


def is_given(ctx: typer.Context, name: str) -> bool:
    """Whether an option of `daskpki` itself was set, here or by its variable, rather than left at its default."""
    source = ctx.find_root().get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def addressed(text: str, options: str, commands: Iterable[str]) -> str:
    """The text with these options in each command of ours that has none yet, the entrypoint's among them."""
    if not options:
        return text
    named = "|".join(map(re.escape, commands))
    text = re.sub(rf"\bdaskpki (?=(?:{named})\b)", lambda _: f"daskpki {options} ", text)
    shared = shlex.join(word for word in shlex.split(options) if word.startswith(("--store=", "--cluster=")))
    entry = r"\bdaskpki-entrypoint (?:scheduler|worker|node)\b(?! --(?:store|cluster))"
    return re.sub(entry, lambda found: f"{found[0]} {shared}", text) if shared else text
