"""Guards a Dask server's HTTP application, and serves `/health` and `/metrics` to probes.

Each request passes the guard, WebSockets and Bokeh's pages included.

Handlers are allowed by class, not by path: a prefix or a configured route can change any path. A handler that a newer
version adds is not served until it has been reviewed; the tests start each server and compare.

The guard is installed when the server begins to listen for comms, after its HTTP port is bound but before the event
loop has turned once, so no request gets in earlier. It judges each request by the certificate of its connection, so
that a revocation takes effect on kept-alive connections; WebSockets are closed.

Dask's pages are read-only, but its dashboard takes WebSockets from any origin and any method. So only reading requests
pass, and a browser must have loaded these pages before (its Origin is our Host): otherwise any website could read the
dashboard with the visitor's certificate or through the visitor's tunnel. Through a tunnel it could even have our Host,
once its own name resolves to 127.0.0.1 (DNS rebinding), so without TLS the Host must be a name that only the local
machine has.

The health server speaks plain HTTP from the event loop of a scheduler, or of the process of a machine's nannies.
Workers are not probed: a worker's loop may stand still for minutes while a task holds the interpreter's lock, and it
must not be killed for that. Each worker process serves its own metrics on the next free port.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from http import HTTPStatus
from ssl import SSLContext
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import dask
from distributed.http.health import HealthHandler
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.iostream import IOStream, SSLIOStream
from tornado.routing import Router
from tornado.web import Application, ErrorHandler, RequestHandler

from daskpki.cluster.audit import REVOKED, TURNED_AWAY
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.peer import Peer, parse_peer, shown_certificate
from daskpki.cluster.pending import PendingConnections, keep_few, usual_limit
from daskpki.cluster.policy import Dashboard, Server, server_kind
from daskpki.cluster.refusal import PeerRefusedError, Reason
from daskpki.cluster.web import page
from daskpki.cluster.web.page import Contact, metrics_handler, take
from daskpki.errors import DaskpkiError, NotTrustedError, PolicyError
from daskpki.identity import Role
from daskpki.settings import is_loopback

HEALTH: Final = "distributed.http.health.HealthHandler"
_INFO: Final = "distributed.http.scheduler.info"
_BOKEH: Final = "bokeh.server.views"

ALLOWED: Final = frozenset(
    {
        HEALTH,
        "distributed.http.prometheus.PrometheusNotAvailableHandler",
        "distributed.http.scheduler.json.CountsJSON",
        "distributed.http.scheduler.json.IdentityJSON",
        "distributed.http.scheduler.json.IndexJSON",
        "distributed.http.scheduler.missing_bokeh.MissingBokeh",
        "distributed.http.scheduler.prometheus.core.PrometheusHandler",
        "distributed.http.worker.prometheus.core.PrometheusHandler",
        "distributed.http.utils.redirect.<locals>.Redirect",
        f"{_INFO}.EventstreamHandler",
        f"{_INFO}.Exceptions",
        f"{_INFO}.IndividualPlots",
        f"{_INFO}.Logs",
        f"{_INFO}.Task",
        f"{_INFO}.TaskCallStack",
        f"{_INFO}.Worker",
        f"{_INFO}.WorkerCallStacks",
        f"{_INFO}.WorkerLogs",
        f"{_INFO}.Workers",
        "tornado.web.ErrorHandler",
        "tornado.web.RedirectHandler",
        "tornado.web.StaticFileHandler",
        f"{_BOKEH}.autoload_js_handler.AutoloadJsHandler",
        f"{_BOKEH}.doc_handler.DocHandler",
        f"{_BOKEH}.ico_handler.IcoHandler",
        f"{_BOKEH}.metadata_handler.MetadataHandler",
        f"{_BOKEH}.multi_root_static_handler.MultiRootStaticHandler",
        f"{_BOKEH}.root_handler.RootHandler",
        f"{_BOKEH}.static_handler.StaticHandler",
        f"{_BOKEH}.ws.WSHandler",
    }
)

_API: Final = "distributed.http.scheduler.api"
DENIED: Final[Mapping[str, str]] = {
    "distributed.http.proxy.GlobalProxyHandler": "it connects to whatever address it is asked for",
    "distributed.http.routing.DirectoryHandler": "it lists the files that are served, and fails where Bokeh's are",
    f"{_API}.APIHandler": "the API retires workers for anyone who reaches it",
    f"{_API}.RetireWorkersHandler": "it retires workers for anyone who reaches it",
    f"{_API}.GetWorkersHandler": "it belongs to the API that retires workers",
    f"{_API}.AdaptiveTargetHandler": "it belongs to the API that retires workers",
    f"{_API}.CheckIdleHandler": "it belongs to the API that retires workers",
}
"""Handlers that are known and not served, with the reason."""


def qualified_name(handler: type) -> str:
    """Return the name of a handler class in these tables."""
    return f"{handler.__module__}.{handler.__qualname__}"


def why_denied(handler: type) -> str | None:
    """Return why a handler is not served; None if it is."""
    name = qualified_name(handler)
    if name in ALLOWED:
        return None
    return DENIED.get(name, f"{name} is not a page that daskpki knows")


_NAME_IT: Final = "name that host in distributed.scheduler.dashboard.bokeh-application.allow_websocket_origin"
_HOST: Final = re.compile(r"(?P<name>[A-Za-z0-9.]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?")
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Visit(NamedTuple):
    """One request: `address` is the other end's IP address, `origin` is a browser's header."""

    method: str
    address: str
    host: str
    origin: str | None = None


def verify_visit(visit: Visit, dashboard: Dashboard, named: Collection[str] = ()) -> None:
    """Raise NotTrustedError for a visitor from elsewhere, PolicyError for a request that does more than read.

    `named` are hosts (with ports, except the scheme's own) under which a proxy shows these pages, or pages that embed
    them.
    """
    if dashboard is not Dashboard.MTLS:
        if not is_loopback(visit.address):
            raise NotTrustedError(
                "these pages are for this machine only", hint="use a tunnel to it, or start with --dashboard mtls"
            )
        if not is_local_name(visit.host) and visit.host not in named:
            way_out = f"ask for 127.0.0.1 or localhost, or {_NAME_IT}"
            raise PolicyError(f"Host {visit.host!r} is not this machine's own name", hint=way_out)
    if visit.method not in READING:
        raise PolicyError(f"{visit.method} is refused: these pages are read-only")
    if visit.origin is not None and visit.origin.partition("://")[2] not in {visit.host, *named}:
        reason = f"a page of {visit.origin} may not read these pages, which are at {visit.host}"
        raise PolicyError(reason, hint=_NAME_IT)


def is_local_name(host: str) -> bool:
    """True if a Host (RFC 9110, 7.2), with or without a port, means this machine whatever DNS says."""
    found = _HOST.fullmatch(host)
    return found is not None and (found["name"].lower() == "localhost" or is_loopback(found["name"].strip("[]")))


VISITORS: Final = frozenset({Role.CLIENT})
"""Roles whose certificates open the pages under mutual TLS."""

_MINUTE: Final = 60_000


class HttpGuard(Router):
    """The guard of one server, which has its HTTP application and server by now."""

    def __init__(self, enforcement: Enforcement, server: Any, kind: Server) -> None:
        self._enforcement = enforcement
        self._dashboard = enforcement.dashboard
        self._http_server = server.http_server
        self._dask = server.http_application
        self._loop = IOLoop.current()
        self._visitors: WeakKeyDictionary[IOStream, Contact] = WeakKeyDictionary()
        look = partial(take, enforcement, kind.value)
        self._pending = PendingConnections(enforcement.audit)
        self._ours = Application(page.routes(lambda: look(self.visitors()), server, kind))
        if self._dashboard is Dashboard.MTLS:
            self._http_server.ssl_options = enforcement.server_context()
            self._http_server.handle_stream = self._take_in
            server.periodic_callbacks["daskpki-visitors"] = PeriodicCallback(self.judge_again, _MINUTE)
        else:
            keep_few(self._http_server, usual_limit())
        self._http_server.request_callback = self
        self._pending.open(self._http_server)
        enforcement.listeners.add(self)

    def find_handler(self, request: HTTPServerRequest, **_: Any) -> HTTPMessageDelegate | None:
        """Choose the handler: ours, a reviewed one of Dask's, else a refusal."""
        try:
            self._admit(request)
        except DaskpkiError as refusal:
            self._record(TURNED_AWAY, refusal, _stream(request))
            return self._refusal(request, HTTPStatus.FORBIDDEN, refusal.with_hint)
        found = self._ours.find_handler(request)
        if issubclass(_handler(found), ErrorHandler):
            found = self._dask.find_handler(request)
        reason = self._why_not(_handler(found))
        return found if reason is None else self._refusal(request, HTTPStatus.NOT_FOUND, reason)

    async def _take_in(self, stream: SSLIOStream, address: tuple[Any, ...]) -> None:
        """Serve an accepted connection (tornado's hook) once TLS is up; a failure is a refusal, and is recorded."""
        if await self._pending.handshake(stream, str(address[0]), "dashboard: "):
            HTTPServer.handle_stream(self._http_server, stream, address)

    def _record(self, kind: str, refusal: DaskpkiError, stream: IOStream) -> None:
        """Record a refusal with the identity in the visitor's certificate, if there is one."""
        address, detail = _peer_address(stream), f"dashboard: {refusal}"
        if isinstance(refusal, PolicyError) or self._dashboard is not Dashboard.MTLS:
            try:
                who = parse_peer(shown_certificate(stream)).identity.uri
            except NotTrustedError:
                who = ""
            refusal = PeerRefusedError(str(refusal), Reason.PAGE, who)
        self._enforcement.audit.refuse(kind, refusal, address=address, detail=detail)

    def renew(self, context: SSLContext) -> None:
        """Accept new connections under another context, and judge live ones again; may be called from any thread."""
        if self._dashboard is Dashboard.MTLS:
            self._http_server.ssl_options = context
            self._loop.add_callback(self.judge_again)

    def judge_again(self) -> None:
        """Close the connections of visitors that are no longer admitted."""
        for stream in list(self._visitors):
            if stream.closed():
                continue
            try:
                self._peer(stream)
            except NotTrustedError as refusal:
                self._record(REVOKED, refusal, stream)
                stream.close()

    def visitors(self) -> Iterator[Contact]:
        """Return the visitors of the pages under mutual TLS, also those whose certificates expired since they came."""
        return (contact for stream, contact in list(self._visitors.items()) if not stream.closed())

    def _admit(self, request: HTTPServerRequest) -> None:
        stream = _stream(request)
        if self._dashboard is Dashboard.MTLS:
            peer = self._peer(stream)
            if stream not in self._visitors:
                self._visitors[stream] = Contact(peer, _peer_address(stream), self._enforcement.now(), "dashboard")
                self._enforcement.record_admitted(peer, _peer_address(stream), "dashboard")
        verify_visit(
            Visit(str(request.method), _peer_address(stream), request.host, request.headers.get("Origin")),
            self._dashboard,
            _named_hosts(),
        )

    def _peer(self, stream: IOStream) -> Peer:
        return self._enforcement.admit(shown_certificate(stream), VISITORS)

    def _why_not(self, handler: type[RequestHandler]) -> str | None:
        if self._dashboard is Dashboard.OFF and qualified_name(handler) != HEALTH:
            return "the dashboard is off (--dashboard)"
        return None if handler.__module__ == page.__name__ else why_denied(handler)

    def _refusal(self, request: HTTPServerRequest, status: int, reason: str) -> HTTPMessageDelegate:
        return self._ours.get_handler_delegate(request, page.RefusalPage, {"status": status, "reason": reason})


def install_guard(server: Any, kind: Server, enforcement: Enforcement) -> None:
    """Put a guard before the server's pages: now, or once it serves them (a worker, a little later)."""
    if http_server := getattr(server, "http_server", None):
        if not isinstance(http_server.request_callback, HttpGuard):  # a scheduler with several addresses
            HttpGuard(enforcement, server, kind)
        return
    start = server.start_http_server

    def start_guarded(*args: Any, **kwargs: Any) -> None:
        start(*args, **kwargs)
        HttpGuard(enforcement, server, kind)

    server.start_http_server = start_guarded


def verify_guarded(server: Any) -> None:
    """Raise NotTrustedError if pages of this server are served without the guard."""
    http_server = getattr(server, "http_server", None)
    if http_server is not None and not isinstance(http_server.request_callback, HttpGuard):
        raise NotTrustedError(f"{type(server).__name__} serves its pages without daskpki's rules")


def _named_hosts() -> Collection[str]:
    """Return the hosts in Dask's configuration that show or embed these pages; "*" is none."""
    settings = dask.config.get("distributed.scheduler.dashboard.bokeh-application", {})
    return [origin for origin in settings.get("allow_websocket_origin", ()) if origin != "*"]


def _handler(found: Any) -> type[RequestHandler]:
    return found.handler_class  # type: ignore[no-any-return] # tornado's _HandlerDelegate; distributed relies on it too


def _stream(request: HTTPServerRequest) -> IOStream:
    return request.connection.stream  # type: ignore[union-attr, no-any-return] # as tornado's own get_ssl_certificate


def _peer_address(stream: IOStream) -> str:
    return str(stream.socket.getpeername()[0]) if stream.socket is not None else ""


WORKERS: Final = 256
"""Ports after the given one that are tried for worker processes."""

CONNECTIONS: Final = 32
"""Open connections of the health server: anyone may open them, and Dask's peers need the descriptors."""

logger = logging.getLogger("distributed.daskpki")
_SERVING: list[HTTPServer] = []


def serve_health(server: Any, enforcement: Enforcement, address: str, *, metrics: bool) -> None:
    """Serve health and metrics at ADDRESS:PORT; DaskpkiError if the port is taken.

    Only the first server of a process does, and a worker under a nanny only with metrics.
    """
    below_nanny = bool(getattr(server, "nanny", None))
    if _SERVING or (below_nanny and not metrics):
        return
    host, _, text = address.rpartition(":")
    first = int(text)
    ports = range(first + 1, first + 1 + WORKERS) if below_nanny else (first,)
    routes: list[Any] = [(r"/health", HealthHandler)]
    if metrics:
        kind = server_kind(server)
        look = partial(take, enforcement, kind.value)
        routes.append((r"/metrics", metrics_handler(kind, look), {"dask_server": server}))
    http_server = HTTPServer(Application(routes))
    for port in ports:
        try:
            http_server.listen(port, host.strip("[]"))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise DaskpkiError(f"--health {host}:{port}: {error.strerror}") from error
        _SERVING.append(http_server)
        keep_few(http_server, CONNECTIONS)
        PendingConnections(enforcement.audit).open(http_server)
        logger.info("/health%s at http://%s:%d", " and /metrics" if metrics else "", host, port)
        return
    raise DaskpkiError(f"--health {address}: the port is taken", hint="another address, or stop what listens there")
