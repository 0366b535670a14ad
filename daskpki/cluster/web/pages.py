"""The HTTP handlers of daskpki's own pages: a snapshot at each request, written down by `page` and `metrics`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.resources import files
from typing import Any, Final

from tornado.web import RequestHandler

from daskpki.cluster.roles import Server
from daskpki.cluster.web.metrics import exposition
from daskpki.cluster.web.page import CONTENT_POLICY, page
from daskpki.cluster.web.snapshot import Snapshot, as_json

Take = Callable[[], Snapshot]
Route = tuple[str, type[RequestHandler], dict[str, Any]]

TAB: Final = "daskpki"
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_TYPES: Final = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
_METRICS: Final = {
    Server.SCHEDULER: "distributed.http.scheduler.prometheus",
    Server.WORKER: "distributed.http.worker.prometheus",
}


def routes(take: Take, server: Any, kind: Server, tabs: list[str]) -> list[Route]:
    """What is served beside Dask's own pages, under whatever prefix they have."""
    own: list[Route] = [(r".*/metrics", metrics_handler(kind, take), {"dask_server": server})]
    if kind is not Server.SCHEDULER:
        return own
    return [
        *own,
        (r".*/daskpki", Page, {"take": take, "tabs": tabs}),
        (r".*/daskpki\.json", Document, {"take": take}),
        (r".*/(daskpki\.(css|js))", Asset, {}),
    ]


def metrics_handler(kind: Server, take: Take) -> type[RequestHandler]:
    """Dask's own metrics of that kind of server, if it has any, and then ours."""
    inherited = import_module(_METRICS[kind]).routes[0][1] if kind in _METRICS else _NoMetrics

    def get(self: Any) -> None:
        inherited.get(self)
        self.set_header("Content-Type", _TEXT)
        self.write(exposition(take()))

    return type("Metrics", (inherited,), {"get": get})


class _NoMetrics(RequestHandler):
    """In the place of Dask's handler where it has none: a nanny's."""

    def initialize(self, dask_server: Any) -> None:
        """Take what Dask's handlers take."""

    def get(self) -> None:
        """Nothing."""


class _Own(RequestHandler):
    def set_default_headers(self) -> None:
        self.set_header("Content-Security-Policy", CONTENT_POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")


class Page(_Own):
    """`/daskpki`."""

    def initialize(self, take: Take, tabs: list[str]) -> None:
        """See tornado."""
        self._take, self._tabs = take, tabs

    def get(self) -> None:
        """The page."""
        self.finish(page(self._take(), self._tabs))


class Document(_Own):
    """`/daskpki.json`."""

    def initialize(self, take: Take) -> None:
        """See tornado."""
        self._take = take

    def get(self) -> None:
        """The same as JSON."""
        self.finish(as_json(self._take()))


class Asset(_Own):
    """The page's style sheet and script."""

    def get(self, name: str, kind: str) -> None:
        """The file of that name; the route lets through two."""
        self.set_header("Content-Type", _TYPES[kind])
        self.finish(files("daskpki.cluster.web").joinpath("static", name).read_bytes())


class Refusal(_Own):
    """Anything that is not served: why, in one line."""

    def initialize(self, status: int, reason: str) -> None:
        """See tornado."""
        self._status, self._why = status, reason

    def prepare(self) -> None:
        """Before any method is looked up."""
        self.set_status(self._status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"daskpki: {self._why}\n")
