"""Long results, printed while they are read: one JSON array, CSV (RFC 4180), or a table.

So a list of 100,000 certificates takes no more memory than one of ten. What is found damaged on the way ends the
command with its error and exit code, behind what was printed already.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final

from daskpki.cli.output import Output, results, table, visible, visible_lines

_SAMPLE: Final = 500
"""Rows that decide how wide the columns are; a wider cell further down pushes its own line only."""


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
    """The lines of one JSON array, each element on a line of its own."""
    encode = json.JSONEncoder(ensure_ascii=False).encode
    before = "["
    for document in documents:
        yield before if before == "[" else f"{before},"
        before = encode(document)
    yield "[]" if before == "[" else before
    if before != "[":
        yield "]"


def csv_lines(columns: Sequence[str], documents: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A heading and one line a document; lists are joined by spaces, other structures are JSON."""
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="")
    for row in chain([columns], ([_cell(document.get(name)) for name in columns] for document in documents)):
        line.seek(0)
        line.truncate()
        writer.writerow(row)
        yield line.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, Mapping):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    text = str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text  # a spreadsheet would take it for a formula


def table_lines(headings: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> Iterator[str]:
    """A table whose columns are as wide as its first rows ask for; `empty` when there are none."""
    pending = ([visible(cell) for cell in row] for row in rows)
    sample = list(islice(pending, _SAMPLE))
    if not sample:
        yield empty
        return
    yield from table(headings, sample)
    widths = [max(map(len, column)) for column in zip(headings, *sample, strict=True)]
    for row in pending:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
