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
from typing import Any, Final

from jinja2 import Environment, StrictUndefined, Template
from tornado.web import RequestHandler

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


@lru_cache(maxsize=2)
def _template(name: str) -> Template:
    """Load `page.html` or `metrics.txt`."""
    environment = Environment(autoescape=True, trim_blocks=True, undefined=StrictUndefined)
    environment.filters["label"] = _label
    return environment.from_string(files(__package__).joinpath(name).read_text("utf-8"))


def page(snapshot: Snapshot, tabs: Sequence[str]) -> str:
    """Render the page; `tabs` are the pages of Dask's bar, as relative addresses."""

    def left(moment: float) -> str:
        return remaining_seconds(floor(moment - snapshot["at"]))

    return _template("page.html").render(
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
    return _template("metrics.txt").render(
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
_TYPES: Final = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
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
        (r".*/(daskpki\.(css|js))", Asset, {}),
    ]


def metrics_handler(kind: Server, take: Take) -> type[RequestHandler]:
    """Make a handler of Dask's own metrics of that kind of server, if it has any, followed by ours."""
    inherited = import_module(_METRICS[kind]).routes[0][1] if kind in _METRICS else _NoMetrics

    def get(self: Any) -> None:
        inherited.get(self)
        self.set_header("Content-Type", _TEXT)
        self.write(exposition(take()))

    return type("Metrics", (inherited,), {"get": get})


class _NoMetrics(RequestHandler):
    """The handler for a nanny, which has none of Dask's."""

    def initialize(self, dask_server: Any) -> None:
        """Take the argument of Dask's handlers."""

    def get(self) -> None:
        """Write nothing."""


class _Own(RequestHandler):
    def set_default_headers(self) -> None:
        self.set_header("Content-Security-Policy", CONTENT_POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")


class Rendered(_Own):
    """`/daskpki` and `/daskpki.json`: a snapshot, rendered at each request."""

    def initialize(self, render: Callable[[], str | dict[str, Any]]) -> None:
        """Take the function that renders; tornado writes a dict as JSON."""
        self._show = render

    def get(self) -> None:
        """Write the page or the document."""
        self.finish(self._show())


class Asset(_Own):
    """The page's style sheet and script."""

    def get(self, name: str, kind: str) -> None:
        """Write the file of that name; the route allows two."""
        self.set_header("Content-Type", _TYPES[kind])
        self.finish(files("daskpki.cluster.web").joinpath("static", name).read_bytes())


class Refusal(_Own):
    """Answers a request that is refused, with the reason in one line."""

    def initialize(self, status: int, reason: str) -> None:
        """Take status and reason."""
        self._status, self._why = status, reason

    def prepare(self) -> None:
        """Answer before any method is looked up."""
        self.set_status(self._status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"daskpki: {self._why}\n")
