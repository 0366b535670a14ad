"""The options of `daskpki` itself: where they may stand.

`--store`, `--cluster`, `--json`, `--quiet`, `--verbose` and the ways to unlock a store are accepted before and after
the subcommand. `hoist` moves them to the front, so that no command has to declare them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

WITH_VALUE: Final = ("--store", "--cluster", "--passphrase-file", "--key-file", "--ca-passphrase-file")
FLAGS: Final = ("--json", "--quiet", "-q", "--verbose", "-v")
_JOINED: Final = tuple(f"{option}=" for option in WITH_VALUE)


def hoist(arguments: Sequence[str]) -> list[str]:
    """The same arguments with the options of `daskpki` itself first; nothing behind `--` is touched."""
    front: list[str] = []
    rest: list[str] = []
    pending = iter(arguments)
    for argument in pending:
        if argument == "--":
            rest += [argument, *pending]
        elif argument == "-h":  # as long as in every help; a column for it would cut long options in a narrow terminal
            rest.append("--help")
        elif argument in FLAGS or argument.startswith(_JOINED):
            front.append(argument)
        elif argument in WITH_VALUE:
            front += [argument, *islice(pending, 1)]
        else:
            rest.append(argument)
    return front + rest
