"""How results, hints and errors reach a person or a program.

Results go to stdout: a table or plain lines for people, one JSON document with `--json`. Hints, progress and errors go
to stderr; `--quiet` leaves only results and errors.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from daskpki.errors import DaskpkiError


class Output(NamedTuple):
    """What the options of `daskpki` say about output."""

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False

    def result(self, document: object, lines: Iterable[str]) -> None:
        """Print a command's result: the document with `--json`, else the lines."""
        if self.as_json:
            print(json.dumps(document, indent=2, ensure_ascii=False))
        else:
            for line in lines:
                print(line)

    def hint(self, *lines: str) -> None:
        """Tell a person, on stderr, what helps next."""
        if not self.quiet:
            for line in lines:
                print(line, file=sys.stderr)

    def warn(self, line: str) -> None:
        """A warning, on stderr, also with `--quiet`."""
        print(f"warning: {line}", file=sys.stderr)

    def error(self, error: DaskpkiError) -> None:
        """One line that says what, which object and why, then the way out."""
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        if self.verbose:
            traceback.print_exception(error, file=sys.stderr)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns padded to their widest cell, two spaces apart; the headings in capitals."""
    cells = [[heading.upper() for heading in headings], *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def facts(pairs: Mapping[str, Any]) -> list[str]:
    """Name and value in two columns, one fact a line; empty values are left out."""
    shown = {name: str(value) for name, value in pairs.items() if value not in (None, "", (), [])}
    width = max(map(len, shown), default=0)
    return [f"{name.ljust(width)}  {value}" for name, value in shown.items()]
