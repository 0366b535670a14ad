"""Forwards a browser's requests to a scheduler's dashboard under mutual TLS: pages as they come, WebSockets as bytes.

`Upstream` is the dashboard, and says why it cannot be reached. `browser` and `socket_server` decide who may connect.

Only methods that read pass, and only headers that pages need (allow lists): no cookie, token or address of the
person's other servers reaches the scheduler. Host and Origin are replaced by the dashboard's own, since its rules
compare them (`daskpki.cluster.web.server`).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, HTTPServerRequest, RequestStartLine, ResponseStartLine
from tornado.iostream import IOStream, StreamClosedError
from tornado.util import TimeoutError as TornadoTimeoutError
from tornado.web import RequestHandler

from daskpki.cluster.security import PkiSecurity, open_stream, scheduler_services
from daskpki.credentials.contexts import LIMIT_OF_PORTS, split_scheduler
from daskpki.credentials.source_selection import CredentialSource, Wanted, choose
from daskpki.credentials.sources import Environment, obtain, this_process
from daskpki.errors import DaskpkiError, NotFoundError, NotTrustedError, UsageError
from daskpki.loader import dial_security
from daskpki.quoting import shown

_PROBE: Final = 2.0
"""Seconds for a server to show whether it speaks HTTP without TLS."""


class Location(NamedTuple):
    """Address at which a dashboard listens."""

    host: str
    port: int

    @property
    def netloc(self) -> str:
        """HOST:PORT, as in a URL and the header Host."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_location(text: str) -> Location:
    """Parse HOST:PORT; UsageError."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port or parts.netloc != text or "@" in text:
        raise UsageError(f"{shown(text)} is not HOST:PORT", hint="for example --dashboard-address 127.0.0.1:8787")
    return Location(host, port)


class Upstream:
    """The dashboard of one scheduler, reached with one person's credential.

    `location` is for a tunnel that ends at another port; without it the scheduler is asked.
    """

    def __init__(self, address: str, security: PkiSecurity, location: Location | None = None) -> None:
        self.address = address
        self._security = security
        self._given = location
        self._asked: Location | None = None

    async def location(self) -> Location:
        """Find where the dashboard listens; DaskpkiError if the scheduler does not tell."""
        if self._given is not None:
            return self._given
        if self._asked is None:
            self._asked = await self._ask()
        return self._asked

    async def _ask(self) -> Location:
        try:
            services = await scheduler_services(self.address, self._security)
        except OSError as error:
            raise DaskpkiError(
                f"the scheduler at {self.address} does not answer: {error}", hint="run daskpki doctor"
            ) from error
        port = services.get("dashboard") if isinstance(services, dict) else None
        if not isinstance(port, int) or not 0 < port < LIMIT_OF_PORTS:
            raise DaskpkiError(
                f"the scheduler at {self.address} has no dashboard (it names port {shown(port)})",
                hint="--dashboard-address HOST:PORT, if there is one",
            )
        return Location(split_scheduler(self.address)[0], port)

    async def connect(self) -> IOStream:
        """Connect to the dashboard; DaskpkiError names the causes, NotTrustedError if another role answers."""
        place = await self.location()
        try:
            return await open_stream(self._security, place.host, place.port)
        except (OSError, StreamClosedError, TornadoTimeoutError) as error:
            self._asked = None  # it may listen elsewhere after a restart
            raise await _explained(self.address, place, error) from error


async def _explained(address: str, place: Location, error: Exception) -> DaskpkiError:
    real = getattr(error, "real_error", None) or error
    if isinstance(real, ssl.SSLError) and real.reason != "WRONG_VERSION_NUMBER":
        return DaskpkiError(f"no TLS with the dashboard at {place.netloc}: {real}", hint="run daskpki doctor")
    if await asyncio.to_thread(_speaks_plain_http, place):
        return DaskpkiError(
            f"{place.netloc} answers without TLS: this dashboard runs with --dashboard loopback",
            hint=f"open http://{place.netloc}/status itself, or start the scheduler with --dashboard mtls",
        )
    host, port = split_scheduler(address)[0], place.port
    return DaskpkiError(
        f"the dashboard of {address} does not answer at {place.netloc}: {str(real) or 'no answer in time'}",
        hint="one of three: (1) the scheduler runs with --dashboard loopback, the default: "
        f"ssh -N -L {port}:127.0.0.1:{port} {host}, and open http://127.0.0.1:{port}/status, or start it with "
        f"--dashboard mtls; (2) a firewall does not let you reach port {port}; (3) your tunnel lacks the port: add "
        f"-L {port}:127.0.0.1:{port} to it, or say by --dashboard-address where it ends",
    )


def _speaks_plain_http(place: Location) -> bool:
    """True if an HTTP server answers without TLS; after a TLS greeting, such a server would only wait."""
    with suppress(OSError, HTTPException), closing(HTTPConnection(place.host, place.port, timeout=_PROBE)) as plain:
        plain.request("HEAD", "/health")
        plain.getresponse()
        return True
    return False


def known_schedulers() -> Iterable[str]:
    """List the addresses in this user's logins, or those of the credential that the environment names."""
    here = this_process()
    if choose(Wanted(), here.environ).source is CredentialSource.KEYRING:
        return [address for saved in here.contexts.all() for address in saved.context.schedulers]
    return obtain(Wanted(), here).schedulers


def upstream_of(address: str | None, location: Location | None = None, here: Environment | None = None) -> Upstream:
    """Open the dashboard of a scheduler, or of the active login's; raises as `obtain`, UsageError without address."""
    here = here or this_process()
    wanted = Wanted(address=address)
    obtained = obtain(wanted, here)
    hint = "daskpki dashboard tls://HOST:8786, or daskpki login --scheduler tls://HOST:8786"
    target = obtained.scheduler(address, hint)
    return Upstream(target, dial_security(obtained, wanted, here), location)


Router = Callable[[HTTPServerRequest], Awaitable[tuple[Upstream, str]]]
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
_SWITCH: Final = ("Connection", "Upgrade", "Sec-WebSocket-Accept", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol")
"""Headers of an answer that switches to a WebSocket."""
_TEXT: Final = "text/plain; charset=utf-8"
_LIMITS: Final = HTTP1ConnectionParameters(max_header_size=1 << 16, header_timeout=60)
_CHUNK: Final = 1 << 16  # bytes of a WebSocket that are forwarded at once
_STATUS: Final = {NotFoundError.exit_code: HTTPStatus.NOT_FOUND, NotTrustedError.exit_code: HTTPStatus.FORBIDDEN}
"""The status by the error's exit code; 502 for any other."""

logger = logging.getLogger("daskpki.dashboard")


class Forward(RequestHandler):
    """Forwards every path of the dashboard."""

    _upstream: IOStream | None = None

    def initialize(self, route: Router) -> None:
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
            self.refuse(HTTPStatus.BAD_REQUEST, "only paths are served")
            return
        if self.request.method not in {"GET", "HEAD"}:
            self.refuse(HTTPStatus.METHOD_NOT_ALLOWED, f"{self.request.method} is refused: these pages are read-only")
            return
        try:
            upstream, path = await self._route(self.request)
            await self._forward(upstream, path)
        except DaskpkiError as error:
            self.refuse(_STATUS.get(error.exit_code, HTTPStatus.BAD_GATEWAY), error.with_hint)

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
                self.refuse(HTTPStatus.BAD_GATEWAY, f"the dashboard at {place.netloc} closed the connection")


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
        if start_line.code == HTTPStatus.SWITCHING_PROTOCOLS:
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
    lines = [f"{name}: {value}" for name in _SWITCH for value in headers.get_list(name)]
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
