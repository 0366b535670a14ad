"""Output and questions of the command line: results, tables, hints, errors, prompts.

Results go to stdout: a table or plain lines for people, one JSON document (in ASCII, so the same on every terminal)
with `--json`, CSV (RFC 4180) with `--csv`. Hints, progress and errors go to stderr; `--quiet` leaves only results and
errors. Long lists are printed while they are read, so that 100,000 certificates take no more memory than ten. Damage
found on the way ends the command with its error and exit code, after the lines printed so far.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from io import TextIOWrapper
from itertools import chain, islice
from typing import Any, Final, NamedTuple, TextIO

from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError, DaskpkiError, UsageError
from daskpki.quoting import remaining_seconds, visible


def is_terminal() -> bool:
    """True if stdin and stderr are a terminal, so that a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str) -> str:
    """The answer to a question that is not secret, asked on stderr; empty at the end of input."""
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


def prompt(question: str, option: str, *, confirm: bool = False) -> Confidential:
    """Ask for a passphrase on the terminal; without one, AccessDeniedError that names the option to use instead."""
    if not sys.stdin.isatty():
        raise AccessDeniedError("a passphrase is needed, and there is no terminal to ask on", hint=f"use {option}")
    from getpass import getpass

    answer = getpass(question)
    if confirm and getpass("Once more: ") != answer:
        raise UsageError("the two passphrases differ")
    if not answer:
        raise UsageError("an empty passphrase protects nothing")
    return Confidential(answer)


def certificate_table(
    documents: Iterable[Mapping[str, Any]], now: datetime, *, empty: str | None = None
) -> Iterator[str]:
    """A table of certificates: identity, state, serial and end."""
    rows = (
        (f"{entry['role']}/{entry['name']}", entry["state"], entry["serial"], remaining(entry["notAfter"], now))
        for entry in documents
    )
    return table(("who", "state", "serial", "expires"), rows, empty=empty)


def certificate_facts(document: Mapping[str, Any], now: datetime) -> list[str]:
    """All facts of one certificate, one a line."""
    return facts(
        {
            "identity": document["identity"],
            "state": document["state"],
            "serial": document["serial"],
            "sha256": document["fingerprint"],
            "not before": document["notBefore"],
            "not after": f"{document['notAfter']} ({remaining(document['notAfter'], now)})",
            "further names": ", ".join(document["names"]),
            "key": document["keyType"],
            "issuer": f"CA generation {document['issuer']}",
            "stored as version": document["version"],
            "revoked": document.get("revokedAt"),
            "reason": document.get("reason"),
        }
    )


def remaining(not_after: str, now: datetime) -> str:
    """`in 29 days`, `in 5 hours`, `in 20 minutes`, `12 days ago`."""
    return remaining_seconds(int((datetime.fromisoformat(not_after) - now).total_seconds()))


def first_names(names: Sequence[str], most: int = 5) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def colon_fingerprint(fingerprint: str) -> str:
    """A SHA-256 fingerprint as OpenSSL prints it: upper-case pairs joined by colons."""
    return bytes.fromhex(fingerprint).hex(":").upper()


_SAMPLE: Final = 500
"""Rows that set the width of the columns; a wider cell further down only widens its own line."""


def print_listing(
    output: Output,
    documents: Iterable[Mapping[str, Any]],
    lines: Iterable[str],
    *,
    columns: Sequence[str] | None = None,
) -> None:
    """Print the documents as a JSON array with `--json`, as CSV when columns are given, else the lines."""
    if output.as_json:
        shown = json_array(documents)
    elif columns is not None:
        shown = csv_lines(columns, documents)
    else:
        shown = map(visible_lines, lines)
    with results():
        for line in shown:
            print(line)


def json_array(documents: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The lines of one JSON array, one element a line."""
    encode = json.JSONEncoder().encode
    before = "["
    for document in documents:
        yield before if before == "[" else f"{before},"
        before = encode(document)
    yield "[]" if before == "[" else before
    if before != "[":
        yield "]"


def csv_lines(columns: Sequence[str], documents: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A heading and one line a document; lists are joined by spaces, other structures are JSON."""
    import csv

    writer = csv.writer(_Echo(), lineterminator="")
    yield writer.writerow(columns)
    for document in documents:
        yield writer.writerow([_cell(document.get(name)) for name in columns])


class _Echo:
    """Stands for the file of a CSV writer, whose `writerow` returns what `write` does."""

    def write(self, line: str) -> str:
        return line


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, Mapping):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    text = str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text  # a spreadsheet would take it for a formula


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str | None = None) -> Iterator[str]:
    """A table with headings in capitals and columns as wide as its first rows need; `empty` if there are no rows."""
    pending = ([visible(cell) for cell in row] for row in chain([map(str.upper, headings)], rows))
    sample = list(islice(pending, 1 + _SAMPLE))
    if len(sample) == 1 and empty is not None:
        yield empty
        return
    widths = [max(map(len, column)) for column in zip(*sample, strict=True)]
    for row in chain(sample, pending):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


class Output(NamedTuple):
    """Prints results and messages, by the options of `daskpki`."""

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    repeat: Callable[[str], str] = str
    """Puts the options of `daskpki` itself that were given into each command of a hint, so that it runs as printed."""

    def result(self, document: object, lines: Iterable[str]) -> None:
        """Print a command's result: the document with `--json`, else the lines."""
        with results():
            if self.as_json:
                print(json.dumps(document, indent=2))
            else:
                for line in lines:
                    print(visible_lines(line))

    def asks(self, *, yes: bool) -> bool:
        """True if an irreversible act has to be confirmed: on a terminal, without `--json` and `--yes`."""
        return not yes and not self.as_json and is_terminal()

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask whether to go on, if `asks`; DaskpkiError for any answer but yes, and at the end of input."""
        if not self.asks(yes=yes):
            return
        if ask(f"{visible_lines(question)} [y/N] ").lower() not in ("y", "yes"):
            raise DaskpkiError("nothing was changed", hint="--yes or DASKPKI_YES=1 answers the question")

    def hint(self, *lines: str) -> None:
        """Print hints on stderr, unless `--quiet`."""
        if not self.quiet:
            for line in lines:
                _say(self.repeat(line))

    def warn(self, line: str) -> None:
        """Print a warning on stderr, also with `--quiet`."""
        _say(f"warning: {line}")

    def error(self, error: DaskpkiError) -> None:
        """Print an error and its hint on stderr; with `--verbose` the traceback, too."""
        _say(f"error: {error}")
        if error.hint:
            _say(f"hint: {self.repeat(error.hint)}")
        if self.verbose:
            traceback.print_exception(error, file=sys.stderr)


def tolerate_characters(stream: TextIO) -> None:
    """Write characters that the stream's encoding lacks as escapes, as stderr does by itself.

    The command's work is done by then, and a UnicodeEncodeError would report it as failed.
    """
    if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")


def _say(line: str) -> None:
    with suppress(OSError):  # a full disk behind stderr: the command matters more than its messages
        print(visible_lines(line), file=sys.stderr)


def visible_lines(text: str) -> str:
    """Escape unprintable characters but line ends and tabs, which are daskpki's."""
    return visible(text, keep="\n\t")


class ReaderGone(Exception):  # noqa: N818 - no fault
    """The reader of stdout has closed the pipe (`daskpki list | head`); typer would report an OSError as a failure."""


@contextmanager
def results() -> Iterator[None]:
    """Surrounds writes to stdout: DaskpkiError if the file is full, ReaderGone for a closed pipe."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as error:
        hint = "the command's changes were made: daskpki list and daskpki audit show it"
        raise DaskpkiError(f"the result could not be written: {error.strerror}", hint=hint) from error


def facts(pairs: Mapping[str, Any]) -> list[str]:
    """Name and value in two columns, one fact a line; empty values are left out."""
    shown = {name: str(value) for name, value in pairs.items() if value not in (None, "", (), [])}
    width = max(map(len, shown), default=0)
    return [f"{name.ljust(width)}  {value}" for name, value in shown.items()]
