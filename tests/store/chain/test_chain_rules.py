"""The rules of a chain that need no store, at the values where each of them decides."""

from __future__ import annotations

import pytest

from daskpki.store.append_chain import ChainHead, Link, Tip, best, first_after


def head(number: int, seq: int, prev: int = 0) -> ChainHead[str]:
    return ChainHead(number, f"payload {number}", Link(seq, prev, f"operation {number}"))


@pytest.mark.parametrize("seq", [1, 2, 7])
def test_what_follows_has_the_next_number_and_names_its_predecessor(seq: int) -> None:
    assert Tip(head(9, seq), 11).next_link("mine") == Link(seq + 1, 9, "mine")


def test_the_first_follows_nothing() -> None:
    assert Tip[str](None, 4).next_link("mine") == Link(1, 0, "mine")


def test_the_greatest_seq_counts_and_on_a_tie_the_lowest_number() -> None:
    heads = [head(2, 1), head(7, 3), head(5, 3), head(6, 3), head(9, 2)]
    assert best(heads) == best(reversed(heads)) == head(5, 3)


def test_riders_are_no_heads() -> None:
    assert best([head(4, 0), head(5, 0)]) is None


@pytest.mark.parametrize(
    ("hint", "first"),
    [
        (None, 1),
        (head(5, 3, prev=3), 4),  # what it supersedes is passed over
        (head(5, 0, prev=3), 3),  # a rider supersedes nothing
        (head(2, 0, prev=0), 1),
        (head(1, 9, prev=40), 1),  # in a secret that was made anew
    ],
)
def test_where_the_search_begins(hint: ChainHead[str] | None, first: int) -> None:
    assert first_after(hint) == first
