"""Renders a snapshot as an HTML page in the style of Dask's dashboard and as metrics, and serves daskpki's own pages.

Bokeh's pages render the list of tabs of their scheduler (`template_variables` keeps one for each), so our tab is added
to that list. Without Bokeh, only our own page has a bar. The HTTP handlers take a snapshot at each request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.resources import files
from math import floor
from pathlib import Path
from typing import Any, Final

from distributed.http.utils import RequestHandler as DaskHandler
from jinja2 import Environment, StrictUndefined, Template
from tornado.web import RequestHandler, StaticFileHandler

from daskpki.cluster.audit import KINDS, host_of
from daskpki.cluster.policy import Server
from daskpki.cluster.refusal import Reason
from daskpki.cluster.web.snapshot import SOON, Snapshot
from daskpki.quoting import minute, remaining_seconds, rfc3339

ROWS: Final = 500
"""Rows of a table, at most."""

CONTENT_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)


@lru_cache
def template(package: str, name: str) -> Template:
    """Load a template from a file of a package."""
    environment = Environment(autoescape=True, trim_blocks=True, undefined=StrictUndefined)
    environment.filters["label"] = _label
    return environment.from_string(files(package).joinpath(name).read_text("utf-8"))


def page(snapshot: Snapshot, tabs: Sequence[str]) -> str:
    """Render the page; `tabs` are the pages of Dask's bar, as relative addresses."""

    def left(moment: float) -> str:
        return remaining_seconds(floor(moment - snapshot["at"]))

    return template(__package__, "page.html").render(
        snapshot,
        tabs=tabs,
        most=ROWS,
        soon=SOON // 86_400,
        left=left,
        end=lambda moment: f"{minute(moment)} ({left(moment)})",
        host=host_of,
        hosts_of=lambda addresses: sorted(set(map(host_of, addresses))),
        moment=rfc3339,
    )


def exposition(snapshot: Snapshot) -> str:
    """Write all metrics in Prometheus' text format (version 0.0.4)."""
    certificates, connections = Counter[str](), Counter[str]()
    first_ends: dict[str, int] = {}
    for each in snapshot["connected"]:
        role = each["role"]
        certificates[role] += 1
        connections[role] += each["connections"]
        first_ends[role] = min(each["not_after"], first_ends.get(role, each["not_after"]))
    return template(__package__, "metrics.txt").render(
        snapshot,
        kinds=KINDS,
        reasons=list(Reason),
        certificates=certificates,
        connections=connections,
        first_ends=first_ends,
    )


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


TAB: Final = "daskpki"


def tabs_of(server: Any, kind: Server) -> list[str]:
    """List the pages in Dask's bar, ours among them."""
    if kind is not Server.SCHEDULER:
        return []
    tabs: list[str] = ["info"]  # without Bokeh
    if server.http_application.applications:
        from distributed.dashboard.scheduler import template_variables

        tabs = template_variables(server)["pages"]
    if TAB not in tabs:
        tabs.append(TAB)
    return tabs


Take = Callable[[], Snapshot]
Route = tuple[str, type[RequestHandler], dict[str, Any]]

_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_STATIC: Final = str(Path(__file__).with_name("static"))
_METRICS: Final = {
    Server.SCHEDULER: "distributed.http.scheduler.prometheus",
    Server.WORKER: "distributed.http.worker.prometheus",
}


def routes(take: Take, server: Any, kind: Server, tabs: list[str]) -> list[Route]:
    """List the routes that are served beside Dask's own pages, under any prefix."""
    own: list[Route] = [(r".*/metrics", metrics_handler(kind, take), {"dask_server": server})]
    if kind is not Server.SCHEDULER:
        return own
    return [
        *own,
        (r".*/daskpki", Rendered, {"render": lambda: page(take(), tabs)}),
        (r".*/daskpki\.json", Rendered, {"render": take}),
        (r".*/(daskpki\.(?:css|js))", Asset, {"path": _STATIC}),
    ]


def metrics_handler(kind: Server, take: Take) -> type[RequestHandler]:
    """Make a handler of Dask's own metrics of that kind of server, if it has any, followed by ours."""
    inherited = import_module(_METRICS[kind]).routes[0][1] if kind in _METRICS else DaskHandler

    def get(self: Any) -> None:
        if inherited is not DaskHandler:
            inherited.get(self)
        self.set_header("Content-Type", _TEXT)
        self.write(exposition(take()))

    return type("Metrics", (inherited,), {"get": get})


class OwnPage(RequestHandler):
    """A page that loads nothing from elsewhere, and that no cache keeps."""

    policy = CONTENT_POLICY

    def set_default_headers(self) -> None:
        """Set the headers of pages and errors."""
        self.clear_header("Server")
        self.set_header("Content-Security-Policy", self.policy)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")


class Rendered(OwnPage):
    """`/daskpki` and `/daskpki.json`: a snapshot, rendered at each request."""

    def initialize(self, render: Callable[[], str | dict[str, Any]]) -> None:
        """Take the function that renders; tornado writes a dict as JSON."""
        self._show = render

    def get(self) -> None:
        """Write the page or the document."""
        self.finish(self._show())


class Asset(OwnPage, StaticFileHandler):
    """The page's style sheet and script."""


class Refusal(OwnPage):
    """Answers a request that is refused, with the reason in one line."""

    def initialize(self, status: int, reason: str) -> None:
        """Take status and reason."""
        self._status, self._why = status, reason

    def prepare(self) -> None:
        """Answer before any method is looked up."""
        self.set_status(self._status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"daskpki: {self._why}\n")
