"""How a value that was given stands in a message: quoted, and at most 200 characters of it.

A setting that leads to a key, a passphrase or a credential stands in none: it may have been given the content of the
file in place of its path, so messages name the option and the variable.
"""

from __future__ import annotations

from typing import Final

LONGEST: Final = 200
"""Characters of a value, or of somebody else's text."""


def shown(value: object) -> str:
    """The value as Python writes it, cut off after 200 characters."""
    text = repr(str(value)[: LONGEST + 1])
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def shortened(text: str) -> str:
    """The text without line ends, cut off after 200 characters."""
    line = " ".join(text[: 2 * LONGEST].splitlines())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
