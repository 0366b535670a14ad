"""Takes a snapshot of one Dask server, and serves it as JSON, as an HTML page in the style of Dask's, and as metrics.

The snapshot is the JSON document of format 1. Names and addresses in it come from peers, so code that writes them
into another format has to escape them.

Bokeh's pages render the list of tabs of their scheduler (`template_variables` keeps one for each), so our tab is added
to that list. Without Bokeh, only our own page has a bar. The HTTP handlers take a snapshot at each request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.resources import files
from itertools import chain
from math import floor
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

from distributed.http.utils import RequestHandler as DaskHandler
from jinja2 import Environment, StrictUndefined, Template
from tornado.web import RequestHandler, StaticFileHandler

from daskpki.cluster.audit import EXPIRED, KINDS, REFUSED, RELOADED, REVOKED, TURNED_AWAY, host_of
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.peer import Peer
from daskpki.cluster.policy import Server
from daskpki.cluster.refusal import Reason
from daskpki.pki.certificates import lifetime, load_certificate
from daskpki.pki.pem import fingerprint, parse_certificates
from daskpki.pki.trust_document import TrustDocument
from daskpki.quoting import minute, remaining_seconds, rfc3339

FORMAT: Final = 1
SOON: Final = 7 * 86_400
"""Seconds before its end from which a certificate or list counts as ending soon."""

Snapshot = dict[str, Any]
"""The document that docs/reference/formats.md describes; times in seconds since the epoch."""


class Contact(NamedTuple):
    """One live connection: peer, address, begin (seconds since the epoch), and `via` tls or dashboard."""

    peer: Peer
    address: str
    since: float
    via: str


def take(enforcement: Enforcement, server: str, visitors: Iterable[Contact] = ()) -> Snapshot:
    """Take a snapshot of the server with this Enforcement; `visitors` are the connections to its pages.

    `sealed` has the counters of a sealed scheduler's helpers, and is None for any other server. `trust` is the trust
    document in force, as far as it is known here.
    """
    events = [event._asdict() for event in reversed(enforcement.audit.latest)]
    trust, document = enforcement.trust, enforcement.manager.document if enforcement.manager is not None else None
    live = (
        Contact(comm.conversation.peer, comm.peer_address, since, "tls")
        for comm, since in enforcement.connections().items()
        if not comm.closed()
    )
    own = parse_certificates(enforcement.pair.certificates.encode(), "our certificate")[0]
    snapshot = {
        "format": FORMAT,
        "at": enforcement.now(),
        "server": server,
        "identity": enforcement.identity.uri,
        "not_after": ends(own),
        "worker_clients": enforcement.mode.value,
        "dashboard": enforcement.dashboard.value,
        "trust": {
            "cluster": trust.cluster,
            "trust_domain": trust.trust_domain,
            "epoch": trust.epoch,
            "issued_at": document.issued_at if document else None,
            "next_update": trust.next_update,
            "revoked": len(trust.revoked),
            "cas": cas(document) if document else [],
        },
        "connected": group(chain(live, visitors)),
        "refused": [event for event in events if event["kind"] in (REFUSED, TURNED_AWAY)],
        "changes": [event for event in events if event["kind"] in (REVOKED, EXPIRED, RELOADED)],
        "counts": dict(enforcement.audit.counts),
        "refusals": dict(enforcement.audit.refusals),
        "sealed": enforcement.measure_seal() if enforcement.measure_seal is not None else None,
    }
    return snapshot | {"ending": ending(snapshot)}


def group(contacts: Iterable[Contact]) -> list[dict[str, Any]]:
    """Group connections by certificate, ordered by identity."""
    found: dict[tuple[str, int], list[Contact]] = {}
    for contact in contacts:
        found.setdefault((contact.peer.identity.uri, contact.peer.serial), []).append(contact)
    return [
        {
            "identity": uri,
            "role": contacts[0].peer.identity.role.value,
            "serial": f"{serial:x}",
            "not_after": contacts[0].peer.not_after,
            "since": min(contact.since for contact in contacts),
            "connections": len(contacts),
            "addresses": sorted({contact.address for contact in contacts}),
            "via": sorted({contact.via for contact in contacts}),
        }
        for (uri, serial), contacts in sorted(found.items(), key=itemgetter(0))
    ]


def cas(document: TrustDocument) -> list[dict[str, Any]]:
    """List the document's CAs, oldest first; number and end of the CRL are None for a CA without one."""
    lists = {part.generation: (part.number, part.next_update) for part in document.crls}
    listed = []
    for anchor in sorted(document.authorities):
        number, next_update = lists.get(anchor.generation, (None, None))
        listed.append(
            {
                "generation": anchor.generation,
                "state": anchor.state,
                "sha256": fingerprint(anchor.certificate),
                "not_after": ends(anchor.certificate),
                "crl_number": number,
                "next_update": next_update,
            }
        )
    return listed


@lru_cache(maxsize=16)
def ends(certificate: bytes) -> int:
    """Return the end of a certificate (DER) in seconds since the epoch."""
    return lifetime(load_certificate(certificate)).not_after


def ending(snapshot: Snapshot) -> list[dict[str, Any]]:
    """List the certificates and lists that end within SOON, the earliest first."""
    found = [
        (f"this {snapshot['server'].lower()}'s certificate", snapshot["not_after"]),
        *((f"the certificate of {each['identity']}", each["not_after"]) for each in snapshot["connected"]),
        *((f"CA {ca['generation']} ({ca['state']})", ca["not_after"]) for ca in snapshot["trust"]["cas"]),
        *((f"the revocation list of CA {ca['generation']}", ca["next_update"]) for ca in snapshot["trust"]["cas"]),
    ]
    soon = [{"what": what, "not_after": end} for what, end in found if end is not None and end < snapshot["at"] + SOON]
    return sorted(soon, key=itemgetter("not_after"))


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
    return template(__package__, "metrics.txt").render(snapshot, kinds=KINDS, reasons=list(Reason))


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


TAB: Final = "daskpki"


def tabs_of(server: Any) -> list[str]:
    """List the pages in the bar of a scheduler's dashboard, ours among them."""
    tabs: list[str] = ["info"]  # without Bokeh
    if server.http_application.applications:
        from distributed.dashboard.scheduler import template_variables

        tabs = template_variables(server)["pages"]
    if TAB not in tabs:
        tabs.append(TAB)
    return tabs


Look = Callable[[], Snapshot]
Route = tuple[str, type[RequestHandler], dict[str, Any]]

_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_STATIC: Final = str(Path(__file__).with_name("static"))
_METRICS: Final = {
    Server.SCHEDULER: "distributed.http.scheduler.prometheus",
    Server.WORKER: "distributed.http.worker.prometheus",
}


def routes(look: Look, server: Any, kind: Server) -> list[Route]:
    """List the routes that are served beside Dask's own pages, under any prefix."""
    own: list[Route] = [(r".*/metrics", metrics_handler(kind, look), {"dask_server": server})]
    if kind is not Server.SCHEDULER:
        return own
    tabs = tabs_of(server)
    return [
        *own,
        (r".*/daskpki", Rendered, {"render": lambda: page(look(), tabs)}),
        (r".*/daskpki\.json", Rendered, {"render": look}),
        (r".*/(daskpki\.(?:css|js))", Asset, {"path": _STATIC}),
    ]


def metrics_handler(kind: Server, look: Look) -> type[RequestHandler]:
    """Make a handler of Dask's own metrics of that kind of server, if it has any, followed by ours."""
    inherited = import_module(_METRICS[kind]).routes[0][1] if kind in _METRICS else DaskHandler

    def get(self: Any) -> None:
        if inherited is not DaskHandler:
            inherited.get(self)
        self.set_header("Content-Type", _TEXT)
        self.write(exposition(look()))

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


class RefusalPage(OwnPage):
    """Answers a request that is refused, with the reason in one line."""

    def initialize(self, status: int, reason: str) -> None:
        """Take status and reason."""
        self._status, self._why = status, reason

    def prepare(self) -> None:
        """Answer before any method is looked up."""
        self.set_status(self._status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"daskpki: {self._why}\n")
