"""Replies are read strictly and to an end, and attempts are made as the rules say: waits, deadline, causes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki.boot.http import Reply, RetryPolicy, TryAgain, read_reply
from daskpki.errors import DaskpkiError, NotTrustedError, UnavailableError


def read(data: bytes, *, portion: int = 7) -> tuple[Reply, bool]:
    portions = [data[start : start + portion] for start in range(0, len(data), portion)]
    return read_reply(lambda: portions.pop(0) if portions else b"")


def test_a_reply_with_a_length() -> None:
    reply, stays = read(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Name:  value \r\n\r\nabc")
    assert reply == Reply(200, {"content-length": "3", "x-name": "value"}, b"abc")
    assert stays


def test_a_reply_in_chunks() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    reply, stays = read(head + b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n")
    assert (reply.body, stays) == (b"abc0123456789", False)


def test_a_reply_to_the_end_of_the_connection() -> None:
    assert read(b"HTTP/1.0 404 Not Found\r\n\r\nno")[0].body == b"no"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n0123456789",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
        b"HTTP/1.1 twohundred\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
)
def test_what_is_cut_off_or_no_http_may_be_tried_again(data: bytes) -> None:
    with pytest.raises(TryAgain):
        read(data, portion=4096)


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_are_a_reply_or_to_be_tried_again(data: bytes, portion: int) -> None:
    try:
        reply, _ = read(b"HTTP/1.1 200 OK\r\n" + data, portion=portion)
    except TryAgain:
        return
    assert len(reply.body) <= len(data)


class Hands:
    """A monotonic clock that only waiting moves."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def patience(self, end: float, notes: list[str]) -> RetryPolicy:
        return RetryPolicy(end, notes.append, sleep=self.waits.append, now=lambda: sum(self.waits), jitter=lambda: 1.0)


def test_waits_double_from_50_ms_to_5_s_and_end_at_the_deadline() -> None:
    hands, notes = Hands(), list[str]()

    def attempt(_timeout: float) -> None:
        raise TryAgain("the cause", hint="the remedy")

    with pytest.raises(UnavailableError, match="gave up at the deadline: the cause") as caught:
        hands.patience(30, notes).persist(attempt)
    assert hands.waits[:4] == [0.05, 0.1, 0.2, 0.4]
    assert max(hands.waits) == 5.0
    assert 25 <= sum(hands.waits) < 30
    assert caught.value.hint == "the remedy"
    assert notes == ["the cause; trying again"]


def test_the_last_answer_is_told_rather_than_what_the_deadline_cut_short() -> None:
    hands = Hands()

    def attempt(timeout: float) -> None:
        if hands.waits:  # each attempt but the first one takes all of its time
            hands.waits.append(timeout)
            raise TryAgain("no answer in time")
        raise TryAgain("the server answers 503", hint="the remedy")

    with pytest.raises(UnavailableError, match="gave up at the deadline: the server answers 503") as caught:
        hands.patience(10, []).persist(attempt)
    assert caught.value.hint == "the remedy"


def test_control_what_was_not_cut_short_is_told() -> None:
    hands = Hands()

    def attempt(timeout: float) -> None:
        hands.waits.append(timeout)
        raise TryAgain(f"no answer to number {len(hands.waits)}")

    with pytest.raises(UnavailableError, match="no answer to number 1"):
        hands.patience(5, []).persist(attempt)


def test_an_error_of_ours_is_not_tried_again() -> None:
    hands = Hands()

    def attempt(_timeout: float) -> None:
        raise NotTrustedError("no")

    with pytest.raises(DaskpkiError, match="no"):
        hands.patience(30, []).persist(attempt)
    assert hands.waits == []
