"""The pure parts of the command line."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki.cli.app import main
from daskpki.cli.invocation import FLAGS, WITH_VALUE, hoist
from daskpki.cli.output import Output, colon_fingerprint, facts, print_listing, remaining, table
from daskpki.quoting import visible

WORDS = st.sampled_from(["issue", "worker", "--name", "w", "--count", "3", "x=y"])
GLOBALS = st.one_of(
    st.sampled_from(FLAGS).map(lambda flag: [flag]),
    st.sampled_from(WITH_VALUE).map(lambda option: [option, "value"]),
    st.sampled_from(WITH_VALUE).map(lambda option: [f"{option}=value"]),
)


@given(st.lists(st.one_of(WORDS.map(lambda word: [word]), GLOBALS)))
def test_global_options_move_to_the_front_and_the_rest_keeps_its_order(pieces: list[list[str]]) -> None:
    is_global = [piece[0].split("=")[0] in (*FLAGS, *WITH_VALUE) for piece in pieces]
    front = ["=".join(piece) for piece, moved in zip(pieces, is_global, strict=True) if moved]
    rest = [word for piece, moved in zip(pieces, is_global, strict=True) if not moved for word in piece]
    hoisted = hoist([word for piece in pieces for word in piece])
    assert hoisted == front + rest
    assert hoist(hoisted) == hoisted


def test_nothing_behind_two_dashes_is_touched() -> None:
    assert hoist(["issue", "--json", "--", "--json", "--store", "x"]) == [
        "--json",
        "issue",
        "--",
        "--json",
        "--store",
        "x",
    ]
    assert hoist(["issue", "--store"]) == ["--store", "issue"]  # the missing value is for typer to complain about


@pytest.mark.parametrize(
    ("not_after", "text"),
    [
        ("2026-12-23T00:00:00Z", "in 30 days"),
        ("2026-11-29T23:55:00Z", "in 7 days"),
        ("2026-11-24T00:00:00Z", "in 1 day"),
        ("2026-11-23T05:20:00Z", "in 5 hours"),
        ("2026-11-23T00:30:20Z", "in 30 minutes"),
        ("2026-11-22T23:59:50Z", "10 seconds ago"),
        ("2026-11-22T23:00:00Z", "1 hour ago"),
        ("2026-11-13T00:00:00Z", "10 days ago"),
    ],
)
def test_time_that_remains_is_told_in_its_largest_unit(not_after: str, text: str) -> None:
    assert remaining(not_after, datetime(2026, 11, 23, tzinfo=UTC)) == text


@given(st.text())
def test_what_is_shown_can_be_seen(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()
    assert visible(text, keep="\n").replace("\n", "").isprintable()


# Clears the screen; the same by one C1 character; writes from right to left; forges a row.
@pytest.mark.parametrize("claim", ["eve\x1b[2J", "eve\x9b2J", "eve\u202e", "eve\n1  alice"])
def test_no_claim_steers_the_terminal(claim: str, capsys: pytest.CaptureFixture[str]) -> None:
    for line in (*table(("who",), [[claim]]), *table(("who",), [["x"]] * 501 + [[claim]], empty="")):
        assert line.isprintable()
    Output().result({}, [claim])
    Output().warn(claim)
    print_listing(Output(), [], [claim])
    printed = capsys.readouterr()
    assert (printed.out + printed.err).replace("\n", "").isprintable()
    assert claim.encode("unicode_escape").decode() in [*table(("who",), [[claim]])][1]


def test_tables_are_padded_and_facts_leave_out_the_empty() -> None:
    assert list(table(("who", "state"), [("worker/w", "issued"), ("x", "y")])) == [
        "WHO       STATE",
        "worker/w  issued",
        "x         y",
    ]
    assert facts({"a": 1, "long": "x", "none": None, "empty": ""}) == ["a     1", "long  x"]
    assert facts({}) == []
    assert colon_fingerprint("00ff10") == "00:FF:10"


def test_what_is_quiet_is_one_command_and_not_the_program_that_runs_it(tmp_path: Path) -> None:
    logger = logging.getLogger("daskpki")
    before = logger.level
    assert main(["--quiet", f"--store=local:{tmp_path / 'none'}", "list"]) == 4
    assert logger.level == before != logging.ERROR
