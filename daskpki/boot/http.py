"""HTTP/1.1 messages, as far as a GET needs them: writing a request, reading a reply. Pure: bytes come from a function.

Of our own, since `urllib.request` and `http.client` (which pulls in `email`) cost 25 to 35 ms to import, as much as all
else that happens here between the start and Dask, and know a time limit for each read, but none for an exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from daskpki.boot.retry import TryAgain

Receive = Callable[[], bytes]
"""The next bytes from the other side, empty at its end; raises OSError, TimeoutError among them."""

_MAX_LINE: Final = 8 * 1024
_MAX_HEAD: Final = 64 * 1024
_MAX_BODY: Final = 1 << 20
_END: Final = b"\r\n"


class Reply(NamedTuple):
    """What came back; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def encode_head(first: str, headers: Mapping[str, str]) -> bytes:
    """A request's first line and headers, up to the empty line."""
    lines = [first, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def read_reply(receive: Receive) -> tuple[Reply, bool]:
    """A reply to GET, and whether the connection stays open after it; TryAgain when it is cut off or no HTTP."""
    reader = Reader(receive)
    status, headers = read_head(reader)
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = _read_chunks(reader)
    elif "content-length" in headers:
        body = reader.exactly(_number(headers["content-length"], 10))
    else:
        return Reply(status, headers, reader.rest()), False
    return Reply(status, headers, body), headers.get("connection", "").lower() != "close"


def read_head(reader: Reader) -> tuple[int, dict[str, str]]:
    """The status and the headers of a reply; TryAgain when it is cut off or no HTTP."""
    head = reader.until(_END + _END, _MAX_HEAD)
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise _not_http()
    pairs = (line.partition(":") for line in lines)
    return _number(rest[:3], 10), {name.strip().lower(): value.strip() for name, _, value in pairs}


class Reader:
    """Bytes as they come, in the portions that HTTP asks for, none of them without a limit."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._buffer = b""

    def until(self, mark: bytes, limit: int = _MAX_LINE) -> bytes:
        """What comes before `mark`, at most `limit` bytes."""
        while mark not in self._buffer:
            if len(self._buffer) > limit:
                raise _endless()
            self._more()
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    def exactly(self, length: int) -> bytes:
        """The next `length` bytes."""
        if length > _MAX_BODY:
            raise _endless()
        while len(self._buffer) < length:
            self._more()
        found, self._buffer = self._buffer[:length], self._buffer[length:]
        return found

    def rest(self) -> bytes:
        """All until the other side closes."""
        while part := self._receive():
            self._buffer += part
            if len(self._buffer) > _MAX_BODY:
                raise _endless()
        return self._buffer

    def _more(self) -> None:
        part = self._receive()
        if not part:
            raise TryAgain("the reply was cut off")
        self._buffer += part


def _read_chunks(reader: Reader) -> bytes:
    """A body in chunks (RFC 9112, 7.1)."""
    body = b""
    while size := _number(reader.until(_END).partition(b";")[0].decode("latin-1").strip(), 16):
        body += reader.exactly(size)
        if reader.exactly(len(_END)) != _END:
            raise _not_http()
        if len(body) > _MAX_BODY:
            raise _endless()
    while reader.until(_END):  # trailers
        pass
    return body


def _number(text: str, base: int) -> int:
    try:
        return int(text if text.isalnum() else "", base)  # int() would also take signs, blanks and underscores
    except ValueError:
        raise _not_http() from None


def _not_http() -> TryAgain:
    return TryAgain("what answers there does not speak HTTP/1.1")


def _endless() -> TryAgain:
    return TryAgain("the reply is longer than any that is expected")
