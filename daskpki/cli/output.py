"""How results, hints and errors reach a person or a program.

Results go to stdout: a table or plain lines for people, one JSON document with `--json`. Hints, progress and errors go
to stderr; `--quiet` leaves only results and errors.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Any, NamedTuple, TextIO

from daskpki.errors import DaskpkiError


class Output(NamedTuple):
    """What the options of `daskpki` say about output."""

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    repeat: Callable[[str], str] = str
    """Puts the options of `daskpki` itself that were given into each command of a hint, so that it runs as printed."""

    def result(self, document: object, lines: Iterable[str]) -> None:
        """Print a command's result: the document with `--json`, else the lines."""
        with results():
            if self.as_json:
                print(json.dumps(document, indent=2, ensure_ascii=not _takes_everything(sys.stdout)))
            else:
                for line in lines:
                    print(visible_lines(line))

    def hint(self, *lines: str) -> None:
        """Tell a person, on stderr, what helps next."""
        if not self.quiet:
            for line in lines:
                _say(self.repeat(line))

    def warn(self, line: str) -> None:
        """A warning, on stderr, also with `--quiet`."""
        _say(f"warning: {line}")

    def error(self, error: DaskpkiError) -> None:
        """One line that says what, which object and why, then the way out."""
        _say(f"error: {error}")
        if error.hint:
            _say(f"hint: {self.repeat(error.hint)}")
        if self.verbose:
            traceback.print_exception(error, file=sys.stderr)


def tolerate_characters(stream: TextIO) -> None:
    """Let what `stream` has no characters for, as a path's in another encoding, be written as escapes.

    By then the command's work is done, and a UnicodeEncodeError would call it a failure. As stderr does by itself.
    """
    if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")


def _takes_everything(stream: TextIO) -> bool:
    """Whether it is UTF-8: elsewhere JSON has escapes of its own, which are not those of `backslashreplace`."""
    return stream.encoding.lower().replace("-", "") == "utf8"


def _say(line: str) -> None:
    with suppress(OSError):  # a full disk behind stderr: the command is worth more than a word about it
        print(visible_lines(line), file=sys.stderr)


def visible(text: str, keep: str = "") -> str:
    """`text` with escapes in place of all that prints nothing, save what is in `keep`.

    The log holds what others claim of themselves, and a secret's annotations what they wrote: in a terminal, control
    characters would move the cursor, or turn the direction of writing, and show something else than is there.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode() for each in text
    )


def visible_lines(text: str) -> str:
    """The same where line ends and tabs are our own."""
    return visible(text, keep="\n\t")


class ReaderGone(Exception):  # noqa: N818 - the reader's wish rather than a fault
    """Who read stdout has read enough (`daskpki list | head`); an OSError, typer would call a failure."""


@contextmanager
def results() -> Iterator[None]:
    """Around what writes to stdout: DaskpkiError when its file takes no more, ReaderGone for a closed pipe."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as error:
        hint = "whatever the command changed holds: daskpki list and daskpki audit show it"
        raise DaskpkiError(f"the result could not be written: {error.strerror}", hint=hint) from error


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns padded to their widest cell, two spaces apart; the headings in capitals."""
    cells = [[heading.upper() for heading in headings], *([visible(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def facts(pairs: Mapping[str, Any]) -> list[str]:
    """Name and value in two columns, one fact a line; empty values are left out."""
    shown = {name: str(value) for name, value in pairs.items() if value not in (None, "", (), [])}
    width = max(map(len, shown), default=0)
    return [f"{name.ljust(width)}  {value}" for name, value in shown.items()]
