"""Renders a snapshot as an HTML page in the style of Dask's dashboard, and serves daskpki's own pages.

Bokeh's pages render the list of tabs of their scheduler (`template_variables` keeps one for each), so our tab is added
to that list. Without Bokeh, only our own page has a bar. The HTTP handlers take a snapshot at each request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, StrictUndefined, Template
from tornado.web import RequestHandler

from daskpki.cluster.audit import REFUSED, REVOKED, TURNED_AWAY, Event, host_of
from daskpki.cluster.policy import Server
from daskpki.cluster.web.snapshot import SOON, Ca, Connected, Snapshot, as_json, exposition
from daskpki.quoting import rfc3339

ROWS: Final = 500
"""Rows of a table, at most."""

CONTENT_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
_EVENTS: Final = ("last", "first", "times", "what", "reason", "who", "host", "why")
_CODES: Final = frozenset({"serial", "SHA-256"})
_UNITS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
_TWICE: Final = 2
_SHOWN: Final = 3


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string(files(__package__).joinpath("page.html").read_text("utf-8"))


def page(snapshot: Snapshot, tabs: Sequence[str]) -> str:
    """Render the page; `tabs` are the pages of Dask's bar, as relative addresses."""
    now = snapshot.at
    return _template().render(
        snapshot=snapshot,
        tabs=tabs,
        now=_moment(now),
        ran_out=snapshot.trust.next_update is not None and snapshot.trust.next_update < now,
        tiles=list(_tiles(snapshot)),
        connected=[_connected(each, now) for each in snapshot.connected[:ROWS]],
        events=_EVENTS,
        codes=_CODES,
        refused=[_event(each, now) for each in snapshot.refused[:ROWS]],
        changes=[_event(each, now) for each in snapshot.changes[:ROWS]],
        cas=[_ca(ca, now) for ca in snapshot.trust.cas],
        ending=[(what, _end(end, now)) for what, end in snapshot.ending[:ROWS]],
        soon=SOON // 86_400,
    )


def _tiles(snapshot: Snapshot) -> Iterable[tuple[str, str, str]]:
    """Yield heading, value and comment of each tile at the top; the template explains them."""
    trust, now = snapshot.trust, snapshot.at
    connections = sum(each.connections for each in snapshot.connected)
    yield "connected", str(len(snapshot.connected)), f"certificates, by {connections} connections"
    refused = snapshot.counts.get(TURNED_AWAY, 0) + snapshot.counts.get(REFUSED, 0)
    yield "refused", str(refused), f"and {snapshot.counts.get(REVOKED, 0)} cut off, since the start"
    yield "workers as clients", snapshot.worker_clients, ""
    if (sealed := snapshot.sealed) is not None:
        counts = ", ".join(f"{sealed[what]:.0f} {what}" for what in ("refused", "helpers", "killed"))
        yield "sealed", f"{sealed['graphs']:.0f}", f"graphs; {counts}"
    signed = f", signed {_span(now - trust.issued_at)} ago" if trust.issued_at is not None else ""
    yield "trust epoch", str(trust.epoch), f"grows with each revocation{signed}"
    until = _end(trust.next_update, now) if trust.next_update is not None else "none"
    yield "revoked", str(trust.revoked), f"list valid until {until}"
    left = _span(snapshot.not_after - now) if snapshot.not_after > now else "expired"
    yield "own certificate", left, f"until {_moment(snapshot.not_after)}; dashboard: {snapshot.dashboard}"


def _connected(each: Connected, now: float) -> tuple[str, ...]:
    hosts = sorted({host_of(address) for address in each.addresses})
    more = len(hosts) - _SHOWN
    addresses = ", ".join(hosts[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    by = f"{' and '.join(each.via)} ({each.connections})"
    return (
        each.identity,
        each.role,
        addresses,
        by,
        each.serial,
        f"{_span(now - each.since)} ago",
        _end(each.not_after, now),
    )


def _event(event: Event, now: float) -> tuple[str, ...]:
    first = f"{_span(now - event.first)} ago" if event.times > 1 else ""
    who = event.peer or "unknown"
    host = host_of(event.address)
    return f"{_span(now - event.at)} ago", first, str(event.times), event.kind, event.reason, who, host, event.detail


def _ca(ca: Ca, now: float) -> tuple[str, ...]:
    number = "none" if ca.crl_number is None else f"number {ca.crl_number}"
    update = "" if ca.next_update is None else _end(ca.next_update, now)
    return str(ca.generation), ca.state, ca.sha256, _end(ca.not_after, now), number, update


def _end(end: float, now: float) -> str:
    left = f"in {_span(end - now)}" if end > now else f"expired {_span(now - end)} ago"
    return f"{_moment(end)} ({left})"


def _span(seconds: float) -> str:
    """Format a duration in the largest unit that it has at least two of: 47 hours, 2 days."""
    for length, unit in _UNITS:
        if seconds >= _TWICE * length:
            return f"{int(seconds // length)} {unit}s"
    return f"{max(0, int(seconds))} s"


def _moment(since_epoch: float) -> str:
    return f"{rfc3339(since_epoch)[:-1].replace('T', ' ')} UTC"


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
        (r".*/daskpki\.json", Rendered, {"render": lambda: as_json(take())}),
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
