"""A small threaded HTTP/1.1 server: keep-alive, many clients, and faults on the wire (reset, half a reply, refusal)."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn

from tests.emulator.faults import ConnectionReset


@dataclass(frozen=True)
class HttpRequest:
    """A request as it arrived; header names in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def target(self) -> str:
        """Path and query."""
        return f"{self.path}?{self.query}" if self.query else self.path


@dataclass(frozen=True)
class HttpReply:
    """What to send; `truncated` sends half of the body that the header promised and closes."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    truncated: bool = False


Answer = Callable[[HttpRequest], HttpReply]


class HttpListener:
    """A server on one loopback port that can stop listening and start again on the same port."""

    def __init__(self, answer: Answer, *, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._answer = answer
        self._tls = tls
        self.host = host
        self.port = port
        self._server: _Server | None = None
        self._thread = threading.Thread()

    def start(self) -> None:
        """Listen, on a free port the first time if the port is 0."""
        self._server = _Server((self.host, self.port), self._answer, self._tls)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port and all connections: whoever connects now is refused."""
        if self._server:
            self._server.socket.shutdown(socket.SHUT_RDWR)
            self._thread.join()
            self._server.server_close()
            self._server.drop_connections()
            self._server = None


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """A server on a free loopback port until the block ends; its address, HOST:PORT."""
    listener = HttpListener(answer, host="127.0.0.1", port=0)
    listener.start()
    try:
        yield f"{listener.host}:{listener.port}"
    finally:
        listener.stop()


class _Server(ThreadingMixIn, TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512
    server_address: tuple[str, int]

    def __init__(self, address: tuple[str, int], answer: Answer, tls: ssl.SSLContext | None) -> None:
        self.answer = answer
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def serve(self) -> None:
        """Until the socket is shut down: serve_forever asks many times a second whether it is to end."""
        while True:
            try:
                request, address = self.get_request()
            except OSError as error:
                if error.errno == errno.EINVAL:
                    return
            else:
                self.process_request(request, address)

    def finish_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override] # typeshed also allows UDP
        """In the connection's own thread, so that a slow TLS handshake holds nobody up."""
        connection = self._tls.wrap_socket(request, server_side=True) if self._tls else request
        with self._lock:
            self._open.add(connection)
        try:
            super().finish_request(connection, client_address)
        finally:
            with self._lock:
                self._open.discard(connection)
            if connection is not request:
                connection.close()

    def drop_connections(self) -> None:
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no event; anything else is a bug of the server, and shown."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type] # typeshed wants a socket


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = 64 * 1024
    server: _Server

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        try:
            reply = self.server.answer(HttpRequest(self.command, path, query, headers, body))
        except ConnectionReset:
            self._reset()
        else:
            self._send(reply)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _serve  # noqa: N815 (the base class looks them up so)

    def _send(self, reply: HttpReply) -> None:
        head = [f"HTTP/1.1 {reply.status} {_reason(reply.status)}"]
        head += [f"{name}: {value}" for name, value in reply.headers.items()]
        head += [f"Content-Length: {len(reply.body)}", "", ""]
        body = reply.body[: len(reply.body) // 2] if reply.truncated else reply.body
        self.wfile.write("\r\n".join(head).encode("latin-1") + body)
        if reply.truncated:
            self.close_connection = True

    def _reset(self) -> None:
        """Close with RST: linger for zero seconds."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
        """The journal is the log."""


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
