"""The health server: `/health`, and `/metrics` on request, in plain HTTP for probes and Prometheus; nothing else.

Dask's own process answers from its event loop: a scheduler, or the process of a machine's nannies. A worker is not
asked, since its loop may stand still for minutes while a task holds the interpreter's lock, and must not be killed for
it. Each worker process serves its own metrics on the next free port.
"""

from __future__ import annotations

import errno
import logging
from functools import partial
from typing import Any, Final

from distributed.http.health import HealthHandler
from tornado.httpserver import HTTPServer
from tornado.web import Application, ErrorHandler

from daskpki.cluster.backend import server_kind
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.pending import Anteroom, keep_few
from daskpki.cluster.web.page import metrics_handler
from daskpki.cluster.web.snapshot import take
from daskpki.errors import DaskpkiError

WORKERS: Final = 256
"""How many ports after the given one are tried for worker processes."""

CONNECTIONS: Final = 32
"""Open at once: anyone who reaches the port may open them, and Dask's peers need the descriptors."""

logger = logging.getLogger("distributed.daskpki")
_SERVING: list[HTTPServer] = []


def serve_health(server: Any, enforcement: Enforcement, address: str, *, metrics: bool) -> None:
    """Serve at ADDRESS:PORT what this process has to say; DaskpkiError when the port is taken.

    Only the first of a process's servers does, and a worker under a nanny only with metrics.
    """
    below_nanny = bool(getattr(server, "nanny", None))
    if _SERVING or (below_nanny and not metrics):
        return
    host, _, text = address.rpartition(":")
    first = int(text)
    ports = range(first + 1, first + 1 + WORKERS) if below_nanny else (first,)
    http_server = HTTPServer(application(server, enforcement, metrics=metrics))
    for port in ports:
        if _listens(http_server, host.strip("[]"), port):
            _SERVING.append(http_server)
            keep_few(http_server, CONNECTIONS)
            Anteroom(enforcement.audit).open(http_server)
            logger.info("/health%s at http://%s:%d", " and /metrics" if metrics else "", host, port)
            return
    raise DaskpkiError(f"--health {address}: the port is taken", hint="another address, or stop what listens there")


def application(server: Any, enforcement: Enforcement, *, metrics: bool) -> Application:
    """What the health server answers."""
    kind = server_kind(server)
    routes: list[Any] = [(r"/health", HealthHandler)]
    if metrics:
        look = partial(take, enforcement, kind.value)
        routes.append((r"/metrics", metrics_handler(kind, look), {"dask_server": server}))
    return Application(routes, default_handler_class=ErrorHandler, default_handler_args={"status_code": 404})


def _listens(http_server: HTTPServer, host: str, port: int) -> bool:
    try:
        http_server.listen(port, host)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise DaskpkiError(f"--health {host}:{port}: {error.strerror}") from error
        return False
    return True
