"""Replies are read strictly and to an end, and attempts are made as the rules say: waits, deadline, causes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from itertools import repeat
from math import inf
from traceback import format_exception

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki.boot.http import Connection, Reply, RetryPolicy, TryAgain, parse_date, read_reply
from daskpki.errors import DaskpkiError, NotTrustedError, UnavailableError


@contextmanager
def answering(*answers: bytes, portion: int = 1 << 20) -> Iterator[tuple[str, list[bytes]]]:
    """A server that sends one connection after another these bytes, each after a request, and closes; what it got."""
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, answers, portion, heads), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", heads
        listener.shutdown(socket.SHUT_RDWR)


def _serve(listener: socket.socket, answers: tuple[bytes, ...], portion: int, heads: list[bytes]) -> None:
    with suppress(OSError):  # the test is over
        for answer in answers:
            with listener.accept()[0] as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                heads.append(connection.recv(1000))
                with suppress(OSError):  # the client has had enough
                    for start in range(0, len(answer), portion):
                        connection.sendall(answer[start : start + portion])


def read(data: bytes, *, portion: int = 7) -> Reply:
    with answering(data, portion=portion) as (address, _):
        connection = Connection(address, encrypted=False)
        try:
            return connection.get("/", {}, 5)
        finally:
            connection.close()


def test_a_reply_with_a_length() -> None:
    reply = read(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Name:  value\r\n\r\nabcdef")
    assert reply == Reply(200, {"content-length": "3", "x-name": "value"}, b"abc")


def test_a_reply_in_chunks() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert read(head + b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n").body == b"abc0123456789"


def test_a_reply_to_the_end_of_the_connection() -> None:
    assert read(b"HTTP/1.0 404 Not Found\r\n\r\nno").body == b"no"


def test_a_redirection_is_an_answer_like_others() -> None:
    reply = read(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
    assert (reply.status, reply.body) == (302, b"")


def test_a_request_asks_for_a_reply_as_it_is() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (address, heads):
        Connection(address, encrypted=False).get("/a?b", {"X-Name": "value"}, 5)
    first, *lines = heads[0].decode().split("\r\n")
    assert first == "GET /a?b HTTP/1.1"
    assert set(lines) == {f"Host: {address}", "Accept-Encoding: identity", "X-Name: value", ""}


@pytest.mark.parametrize("value", ["x\r\nEvil: y", "x\nEvil: y"])
def test_a_header_of_two_lines_is_not_sent_and_not_repeated(value: str) -> None:
    """A token is from the metadata server, which may be another one."""
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (address, heads):
        with pytest.raises(TryAgain) as caught:
            Connection(address, encrypted=False).get("/", {"Authorization": value}, 5)
        assert "Evil" not in "".join(format_exception(caught.value))
        assert b"Evil" not in b"".join(heads)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/ht",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        CHUNKED + b"xyz\r\n",
        CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n",
        CHUNKED + b"-1\r\nabcdef\r\n0\r\n\r\n",
        CHUNKED + b"3\r\nabc\r\n",
        b"HTTP/1.1 twohundred\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 70_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    ],
)
def test_what_is_cut_off_or_no_http_may_be_tried_again(data: bytes) -> None:
    with pytest.raises(TryAgain, match=r"cut off|does not speak HTTP|closed connection|reset by peer"):
        read(data, portion=4096)


ENDLESS = {
    "a length": b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n",
    "no length": b"HTTP/1.1 200 OK\r\n\r\n",
    "a chunk": CHUNKED + b"999999\r\n",
    "a negative chunk": CHUNKED + b"-1\r\n",
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_longer_body_than_any_payload_is_not_read(kind: str) -> None:
    with pytest.raises(TryAgain, match="longer than any that is expected"):
        read(ENDLESS[kind] + bytes(3 << 20), portion=1 << 16)


@pytest.mark.parametrize("length", [b"-1", b"x"])
def test_with_a_length_that_is_none_the_body_ends_with_the_connection(length: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: " + length
    assert read(head + b"\r\n\r\nabc").body == b"abc"


@given(st.binary(max_size=300))
def test_any_bytes_are_a_reply_or_to_be_tried_again(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 200 OK\r\n" + data)
        theirs.shutdown(socket.SHUT_WR)
        with HTTPResponse(ours) as response:
            try:
                response.begin()
                reply = read_reply(response, inf)
            except (HTTPException, ValueError, TryAgain):
                return
    assert len(reply.body) <= len(data)


WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup"


def test_a_connection_that_the_server_closed_between_two_requests_is_replaced() -> None:
    """As a server does that has waited long enough for the second one, which then meets the closed connection."""
    notes: list[str] = []
    with answering(*repeat(WHOLE, 2)) as (address, heads):
        connection = Connection(address, encrypted=False)
        policy = RetryPolicy(time.monotonic() + 30, notes.append)
        for _ in range(2):
            assert policy.persist(lambda timeout: connection.get("/", {}, timeout)).body == b"up"
        connection.close()
    assert len(heads) == 2
    assert len(notes) == 1, "the second request failed once"


@pytest.mark.parametrize("status", [101, 102, 103, 199])
def test_a_reply_that_follows_another_status_is_not_taken_for_the_next_one(status: int) -> None:
    """http.client takes a status of 1xx, except 100, for the whole reply."""
    early = f"HTTP/1.1 {status} early\r\n\r\n".encode()
    with answering(early + WHOLE, WHOLE.replace(b"up", b"on")) as (address, _):
        connection = Connection(address, encrypted=False)
        with pytest.raises(TryAgain, match=str(status)):
            connection.get("/first", {}, 5)
        assert connection.get("/second", {}, 5).body == b"on"
        connection.close()


@pytest.mark.parametrize(
    "text",
    [f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT", f"Mon, 01 Jan 2024 {'9' * 20}:00:00 GMT", f"1 Jan 2024 0:0:0 +{'9' * 20}"],
)
def test_a_date_of_huge_numbers_is_none(text: str) -> None:
    assert parse_date(text) is None


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
