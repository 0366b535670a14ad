"""Forwards a browser's requests to an `Upstream`: pages as they come, WebSockets as bytes.

Only methods that read pass, and only headers that pages need (allow lists): no cookie, token or address of the
person's other servers reaches the scheduler. Host and Origin are the dashboard's own there, since its rules compare
them (`daskpki.cluster.web.access`); `browser` and `jupyter` decide who may connect.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, HTTPServerRequest, RequestStartLine, ResponseStartLine
from tornado.iostream import IOStream, StreamClosedError
from tornado.web import RequestHandler

from daskpki.dashboard.upstream import Upstream
from daskpki.errors import DaskpkiError, NotFoundError, NotTrustedError

Route = Callable[[HTTPServerRequest], Awaitable[tuple[Upstream, str]]]
"""Returns the dashboard of a request, and the path there; NotTrustedError, NotFoundError, DaskpkiError."""

REQUEST_HEADERS: Final = (
    *("Accept", "Accept-Encoding", "Accept-Language", "Cache-Control", "If-Modified-Since", "If-None-Match", "Range"),
    *("Connection", "Upgrade", "Sec-WebSocket-Extensions", "Sec-WebSocket-Key", "Sec-WebSocket-Protocol"),
    *("Sec-WebSocket-Version", "User-Agent"),
)
RESPONSE_HEADERS: Final = (
    *("Accept-Ranges", "Cache-Control", "Content-Encoding", "Content-Length", "Content-Range", "Content-Type", "ETag"),
    *("Content-Security-Policy", "Last-Modified", "Location", "Referrer-Policy", "Vary", "X-Content-Type-Options"),
)
_TEXT: Final = "text/plain; charset=utf-8"
_LIMITS: Final = HTTP1ConnectionParameters(max_header_size=1 << 16, header_timeout=60)
_CHUNK: Final = 1 << 16
_SWITCHING, _BAD_REQUEST, _FORBIDDEN, _NOT_FOUND, _NOT_ALLOWED, _BAD_GATEWAY = 101, 400, 403, 404, 405, 502

logger = logging.getLogger("daskpki.dashboard")


class Forward(RequestHandler):
    """Forwards every path of the dashboard."""

    _upstream: IOStream | None = None

    def initialize(self, route: Route) -> None:
        """Take the route."""
        self._route = route

    def set_default_headers(self) -> None:
        """Set the headers of pages and errors: no page of another origin frames these."""
        self.clear_header("Server")
        self.set_header("Content-Security-Policy", "frame-ancestors 'self'")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")

    async def prepare(self) -> None:
        """Forward an allowed request; answer all others."""
        if not (self.request.uri or "").startswith("/"):
            self.refuse(_BAD_REQUEST, "only paths are served")
            return
        if self.request.method not in {"GET", "HEAD"}:
            self.refuse(_NOT_ALLOWED, f"{self.request.method} is refused: these pages are read-only")
            return
        try:
            upstream, path = await self._route(self.request)
            await self._forward(upstream, path)
        except NotFoundError as error:
            self.refuse(_NOT_FOUND, error.with_hint)
        except NotTrustedError as error:
            self.refuse(_FORBIDDEN, error.with_hint)
        except DaskpkiError as error:
            self.refuse(_BAD_GATEWAY, error.with_hint)

    def refuse(self, status: int, reason: str) -> None:
        """Answer with a status and the reason in one line."""
        logger.info("%s %s: %s", self.request.method, self.request.path, reason)
        self.set_status(status)
        self.set_header("Content-Type", _TEXT)
        self.finish(f"daskpki: {reason}\n")

    def on_connection_close(self) -> None:
        """Close the dashboard's connection when the browser's is closed."""
        if self._upstream is not None:
            self._upstream.close()

    async def _forward(self, upstream: Upstream, path: str) -> None:
        place = await upstream.location()
        self._upstream = stream = await upstream.connect()
        connection = HTTP1Connection(stream, is_client=True, params=_LIMITS)
        relay = _Relay(self, connection)
        method = str(self.request.method)
        try:
            headers = headers_for(self.request.headers, place.netloc)
            await connection.write_headers(RequestStartLine(method, path, "HTTP/1.1"), headers)
            connection.finish()
            await connection.read_response(relay)
            if relay.switched is not None:
                await _tunnel(self.detach(), relay.switched)
        except StreamClosedError:
            pass
        finally:
            stream.close()
        if not self._finished:
            if self._headers_written:  # cut off midway: show that to the browser
                self.detach().close()
            else:
                self.refuse(_BAD_GATEWAY, f"the dashboard at {place.netloc} closed the connection")


def headers_for(headers: HTTPHeaders, netloc: str) -> HTTPHeaders:
    """Filter the headers of a browser's request for the dashboard at `netloc`."""
    kept = HTTPHeaders({name: headers[name] for name in REQUEST_HEADERS if name in headers})
    kept["Host"] = netloc
    if "Upgrade" not in headers:
        kept["Connection"] = "close"
    if "Origin" in headers:
        kept["Origin"] = f"https://{netloc}"
    return kept


class _Relay(HTTPMessageDelegate):
    """Streams the dashboard's answer to the browser."""

    def __init__(self, handler: Forward, connection: HTTP1Connection) -> None:
        self._handler = handler
        self._connection = connection
        self.switched: tuple[IOStream, HTTPHeaders] | None = None

    def headers_received(self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders) -> None:
        assert isinstance(start_line, ResponseStartLine)
        if start_line.code == _SWITCHING:
            self.switched = self._connection.detach(), headers
            return
        self._handler.set_status(start_line.code, start_line.reason)
        for name in RESPONSE_HEADERS:
            for value in headers.get_list(name):
                if name == "Content-Security-Policy":  # browsers enforce all of them
                    self._handler.add_header(name, value)
                else:
                    self._handler.set_header(name, value)

    async def data_received(self, chunk: bytes) -> None:
        with suppress(StreamClosedError):  # the browser left: `Forward.on_connection_close` ends the rest
            self._handler.write(chunk)
            await self._handler.flush()

    def finish(self) -> None:
        self._handler.finish()

    def on_connection_close(self) -> None:
        """Do nothing; `_forward` reports it."""


async def _tunnel(browser: IOStream, switched: tuple[IOStream, HTTPHeaders]) -> None:
    """Forward a WebSocket as bytes, both ways, until one side ends."""
    dashboard, headers = switched
    lines = [f"{name}: {value}" for name, value in headers.get_all() if name != "Server"]
    await browser.write("\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""]).encode("latin-1"))
    await asyncio.gather(_pump(browser, dashboard), _pump(dashboard, browser))


async def _pump(source: IOStream, sink: IOStream) -> None:
    try:
        while True:
            await sink.write(await source.read_bytes(_CHUNK, partial=True))
    except StreamClosedError:
        pass
    finally:
        source.close()
        sink.close()
