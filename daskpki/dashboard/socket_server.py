"""Access through Jupyter: a server on a Unix socket, which jupyter-server-proxy starts and sends requests to.

Jupyter has authenticated the user, and compared Host and Origin. The socket is in a folder of mode 0700 (checked here),
so nobody else reaches it, and no cookie is needed. The path's first part names the scheduler, and only those of this
user's logins are served: `/daskpki/HOST:PORT/status` in Jupyter is `/HOST:PORT/status` here.

The pages run in Jupyter's origin. Whoever controls the scheduler (with stock code, every client) can act in your
Jupyter; `daskpki dashboard` uses an origin of its own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import unquote

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.netutil import bind_unix_socket
from tornado.web import Application, RequestHandler

from daskpki.cluster.web.page import template
from daskpki.credentials.contexts import parse_scheduler
from daskpki.dashboard.proxy import Forward, Upstream, known_schedulers, upstream_of
from daskpki.errors import NotFoundError, UsageError
from daskpki.files import check_private
from daskpki.settings import SCHEME


def scheduler_in(path: str) -> tuple[str, str]:
    """Split `/HOST:PORT/rest?query` into the scheduler's address and `/rest?query`; NotFoundError."""
    place, _, rest = path.removeprefix("/").partition("/")
    try:
        return parse_scheduler(SCHEME + unquote(place)), f"/{rest}"
    except UsageError as error:
        raise NotFoundError(str(error), hint="the address is /daskpki/HOST:PORT/status") from error


class Schedulers:
    """The dashboards of a user's logins; `known` lists the addresses, `reach` opens one with its credential."""

    def __init__(self, known: Callable[[], Iterable[str]], reach: Callable[[str], Upstream]) -> None:
        self._known = known
        self._reach = reach
        self._reached: dict[str, Upstream] = {}

    def addresses(self) -> list[str]:
        """List the addresses, sorted."""
        return sorted(set(self._known()))

    async def route(self, request: HTTPServerRequest) -> tuple[Upstream, str]:
        """Route a request to its dashboard (`proxy.Router`)."""
        address, path = scheduler_in(request.uri or "")
        known = await asyncio.to_thread(self.addresses)
        if address not in known:
            raise NotFoundError(
                f"no login of yours is for {address}",
                hint=f"known: {', '.join(known) or 'none'}; daskpki login --scheduler",
            )
        if address not in self._reached:
            self._reached[address] = await asyncio.to_thread(self._reach, address)
        return self._reached[address], path


class Index(RequestHandler):
    """The page `/`: a link for each scheduler."""

    def initialize(self, schedulers: Schedulers) -> None:
        """Take the schedulers."""
        self._schedulers = schedulers

    async def get(self) -> None:
        """Write the page."""
        known = await asyncio.to_thread(self._schedulers.addresses)
        places = [address.removeprefix(SCHEME) for address in known]
        self.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'self'")
        self.finish(template(__package__, "index.html").render(places=places))


def application(schedulers: Schedulers) -> Application:
    """Make the server's application."""
    return Application([(r"/", Index, {"schedulers": schedulers}), (r".*", Forward, {"route": schedulers.route})])


async def serve(path: Path, schedulers: Schedulers) -> None:
    """Serve at that socket until the process ends; AccessDeniedError for a folder in which others could reach it."""
    check_private(path.parent)
    server = HTTPServer(application(schedulers))
    server.add_socket(bind_unix_socket(str(path), mode=0o600))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Schedulers(known_schedulers, upstream_of)))
