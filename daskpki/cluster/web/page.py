"""A snapshot as one HTML page in the look of Dask's dashboard (pure): its style sheet, its bar of tabs, ours below.

All text is escaped where it is put in, since identities, addresses and reasons come from peers. Without a script the
page reloads itself; with it, only what is inside `main` is replaced.

The bar of tabs on top of Dask's dashboard, and how ours gets into it.

Bokeh's pages render the list that belongs to their scheduler (`template_variables` remembers one for each), so the tab
is added to that list. Where there is no Bokeh, there is no bar but our own.

The HTTP handlers of daskpki's own pages: a snapshot at each request, written down by `page` and `metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from importlib import import_module
from importlib.resources import files
from typing import Any, Final

from tornado.web import RequestHandler

from daskpki.cluster.audit import Event
from daskpki.cluster.policy import Server, WorkerClients
from daskpki.cluster.web.metrics import exposition
from daskpki.cluster.web.snapshot import SOON, Ca, Connected, Snapshot, as_json
from daskpki.quoting import rfc3339

ROWS: Final = 500
"""The most that a table shows."""

CONTENT_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
_UNITS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
_TWICE: Final = 2
_SHOWN: Final = 3
_CODE_RUNS: Final = (
    "Mode allow: a worker's certificate can run code on the scheduler, and so can whoever steals one. "
    "Nested work in tasks needs it; --worker-clients limited closes it."
)


def page(snapshot: Snapshot, tabs: Sequence[str]) -> str:
    """The whole page; `tabs` are the pages of Dask's bar, as relative addresses."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Dask: Security</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="statics/css/base.css">
<link rel="stylesheet" href="daskpki.css">
<link rel="shortcut icon" href="statics/images/favicon.ico">
<noscript><meta http-equiv="refresh" content="5"></noscript>
<script src="daskpki.js" defer></script>
</head>
<body>
<div class="navbar" id="myTopnav"><ul>
<li id="dask-logo"><a href="status"><img src="statics/images/dask-logo.svg" alt="Dask"></a></li>
{"".join(map(_tab, tabs))}
</ul></div>
<div class="content">
{_main(snapshot)}
</div>
</body>
</html>
"""


def _tab(name: str) -> str:
    active = ' class="active"' if name == "daskpki" else ""
    return f'<li{active}><a href="{escape(name)}">{escape(name.title())}</a></li>'


def _main(snapshot: Snapshot) -> str:
    trust = snapshot.trust
    ago = _since(snapshot.at)
    return f"""<main>
<h1>Cluster {escape(trust.cluster)} <small>{escape(snapshot.identity)} &middot; {_moment(snapshot.at)}
<span class="lost">&middot; connection lost, not live</span></small></h1>
{_warnings(snapshot)}
<div class="tiles">{"".join(_tile(*tile) for tile in _tiles(snapshot))}</div>
<h2>Connected now</h2>
{_table(_CONNECTED, (_connected(each, snapshot.at) for each in snapshot.connected[:ROWS]))}
{_rest(len(snapshot.connected))}
<h2>Refused lately</h2>
{_table(_EVENTS, (_event(each, ago) for each in snapshot.refused[:ROWS]))}
<h2>Trust document {trust.epoch}</h2>
{_table(_CAS, (_ca(ca, snapshot.at) for ca in trust.cas))}
<h2>Revoked and reloaded</h2>
{_table(_EVENTS, (_event(each, ago) for each in snapshot.changes[:ROWS]))}
<h2>Ends within {SOON // 86_400} days</h2>
{_table(("what", "ends"), ((what, _end(end, snapshot.at)) for what, end in snapshot.ending[:ROWS]))}
</main>"""


def _warnings(snapshot: Snapshot) -> str:
    stale = snapshot.trust.next_update is not None and snapshot.trust.next_update < snapshot.at
    said = [
        _CODE_RUNS if snapshot.worker_clients == WorkerClients.ALLOW else "",
        "The revocation list has run out: nobody knows who was revoked since. `daskpki renew --due` signs a new one."
        if stale
        else "",
    ]
    return "".join(f'<p class="warning">{escape(text)}</p>' for text in said if text)


def _tiles(snapshot: Snapshot) -> Iterable[tuple[str, str, str]]:
    """Heading, value and a word on it, for what matters at a glance."""
    trust = snapshot.trust
    certificates = len(snapshot.connected)
    connections = sum(each.connections for each in snapshot.connected)
    yield "connected", str(certificates), f"certificates, by {connections} connections"
    refused = snapshot.counts.get("turned-away", 0) + snapshot.counts.get("refused", 0)
    yield "refused", str(refused), f"and {snapshot.counts.get('revoked', 0)} cut off, since the start"
    yield "workers as clients", snapshot.worker_clients, f"dashboard: {snapshot.dashboard}"
    signed = f"signed {_span(snapshot.at - trust.issued_at)} ago" if trust.issued_at is not None else ""
    yield "trust epoch", str(trust.epoch), signed
    until = _end(trust.next_update, snapshot.at) if trust.next_update is not None else "none"
    yield "revoked", str(trust.revoked), f"list good until {until}"
    yield "own certificate", _span(snapshot.not_after - snapshot.at), f"until {_moment(snapshot.not_after)}"


def _tile(heading: str, value: str, word: str) -> str:
    return f"<div><h3>{escape(heading)}</h3><b>{escape(value)}</b><span>{escape(word)}</span></div>"


_CONNECTED: Final = ("identity", "role", "hosts", "by", "serial", "since", "certificate ends")
_EVENTS: Final = ("when", "what", "who", "address", "why")
_CAS: Final = ("CA", "state", "SHA-256", "ends", "revocation list", "next update")


class _Code(str):
    """Text to be set as code, such as a serial."""

    __slots__ = ()


def _connected(each: Connected, now: float) -> tuple[str, ...]:
    hosts = sorted({address.rpartition("://")[2].rpartition(":")[0] or address for address in each.addresses})
    more = len(hosts) - _SHOWN
    addresses = ", ".join(hosts[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    by = f"{' and '.join(each.via)} ({each.connections})"
    since = f"{_span(now - each.since)} ago"
    return each.identity, each.role, addresses, by, _Code(each.serial), since, _end(each.not_after, now)


def _event(event: Event, ago: Callable[[float], str]) -> tuple[str, ...]:
    return ago(event.at), event.kind, event.peer or "unknown", event.address, event.detail


def _ca(ca: Ca, now: float) -> tuple[str, ...]:
    number = "none" if ca.crl_number is None else f"number {ca.crl_number}"
    update = "" if ca.next_update is None else _end(ca.next_update, now)
    return str(ca.generation), ca.state, _Code(ca.sha256), _end(ca.not_after, now), number, update


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    if not body:
        return '<p class="none">Nothing.</p>'
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _cell(text: str) -> str:
    return f"<td><code>{escape(text)}</code></td>" if isinstance(text, _Code) else f"<td>{escape(text)}</td>"


def _rest(number: int) -> str:
    return f'<p class="none">And {number - ROWS} more: daskpki.json has all.</p>' if number > ROWS else ""


def _since(now: float) -> Callable[[float], str]:
    return lambda moment: f"{_span(now - moment)} ago"


def _end(end: float, now: float) -> str:
    left = f"in {_span(end - now)}" if end > now else f"over for {_span(now - end)}"
    return f"{_moment(end)} ({left})"


def _span(seconds: float) -> str:
    """A length of time in its largest unit, of which there are at least two: 47 hours, 2 days."""
    for length, unit in _UNITS:
        if seconds >= _TWICE * length:
            return f"{int(seconds // length)} {unit}s"
    return f"{max(0, int(seconds))} s"


def _moment(since_epoch: float) -> str:
    return f"{rfc3339(since_epoch)[:-1].replace('T', ' ')} UTC"


TAB: Final = "daskpki"
_WITHOUT_BOKEH: Final = ("info",)


def tabs_of(server: Any, kind: Server) -> list[str]:
    """The pages that the bar shows, ours among them."""
    if kind is not Server.SCHEDULER:
        return []
    tabs = _dasks_own(server)
    if TAB not in tabs:
        tabs.append(TAB)
    return tabs


def _dasks_own(scheduler: Any) -> list[str]:
    if not scheduler.http_application.applications:
        return list(_WITHOUT_BOKEH)
    from distributed.dashboard.scheduler import template_variables

    pages: list[str] = template_variables(scheduler)["pages"]
    return pages


Take = Callable[[], Snapshot]
Route = tuple[str, type[RequestHandler], dict[str, Any]]

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
