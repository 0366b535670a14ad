"""`daskpki list` finds by role, state and expiry, `show` by number; they print JSON, CSV or a table."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki.cli.output import csv_lines, json_array, table
from tests.support.running import Run

JSON_VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())


def test_one_is_found_by_serial_or_fingerprint(run: Run) -> None:
    run("init-ca", "--with", "scheduler,worker,client/alice")
    worker = run("list", "--role", "worker", "--json").json()[0]
    for number in (worker["serial"], worker["fingerprint"]):
        assert run("show", number, "--json").json() == worker
    run("show", "abcdef", code=4)
    run("show", "xyz", code=2)
    assert run("list", "--role", "client", "--state", "revoked").out == "no certificates\n"
    assert run("list", "--expiring-in", "8d", "--json").json() == []
    assert len(run("list", "--expiring-in", "400d", "--json").json()) == 3


def test_csv_holds_what_json_holds(run: Run) -> None:
    run("init-ca", "--with", "scheduler,client/alice")
    run("issue", "worker", "--ip", "10.0.0.1", "--ip", "10.0.0.2")
    run("revoke", "client/alice", "--reason", "superseded")
    documents = run("list", "--json").json()
    rows = list(csv.DictReader(io.StringIO(run("list", "--csv").out)))
    assert len(rows) == 3
    for row, document in zip(rows, documents, strict=True):
        for name, value in row.items():
            expected = document.get(name)
            assert value == (" ".join(expected) if isinstance(expected, list) else str(expected or ""))
    assert rows[1]["reason"] == "superseded"
    assert rows[2]["names"] == "ip:10.0.0.1 ip:10.0.0.2"


@given(st.lists(st.dictionaries(st.text(), JSON_VALUES)))
def test_the_lines_are_one_json_array(documents: list[dict[str, object]]) -> None:
    assert json.loads("\n".join(json_array(documents))) == documents


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["C", "Z"])), st.integers(0)), max_size=5))
def test_csv_reads_back(values: list[tuple[str, int]]) -> None:
    lines = list(csv_lines(("a", "b"), [{"a": text, "b": number} for text, number in values]))
    read = list(csv.reader(lines))
    assert read[0] == ["a", "b"]
    formula = ("=", "+", "-", "@")
    assert read[1:] == [[f"'{a}" if a.startswith(formula) else a, str(b)] for a, b in values]


@pytest.mark.parametrize("count", [1, 500, 502])
def test_a_table_of_any_length_keeps_its_columns(count: int) -> None:
    lines = list(table(("who", "n"), ((f"w-{n:04}", str(n)) for n in range(count)), empty="none"))
    assert len(lines) == count + 1
    assert {line.index("  ") for line in lines[1:]} == {6}


def test_nothing_to_list_is_said() -> None:
    assert list(table(("a",), [], empty="no certificates")) == ["no certificates"]
    assert list(json_array([])) == ["[]"]
