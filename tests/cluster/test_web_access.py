"""The guard before a live scheduler's and worker's pages: who is let in, to what, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import dask
import pytest
from distributed import Scheduler, Worker
from tornado.httpserver import HTTPServer
from tornado.routing import PathMatches, RuleRouter
from tornado.web import Application, RequestHandler

from daskpki.cluster.audit import TURNED_AWAY
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.peer import trust_of
from daskpki.cluster.policy import Dashboard
from daskpki.cluster.security import PkiSecurity
from daskpki.cluster.tls import server_context
from daskpki.cluster.web.server import ALLOWED, DENIED, qualified_name, verify_guarded, why_denied
from daskpki.errors import NotTrustedError
from daskpki.identity import Role
from tests.support.cluster_material import DAY, Authority, Leaf
from tests.support.http_client import Connection, connected, visitor

BOKEH = "distributed.scheduler.dashboard.bokeh-application"


def enforcement(authority: Authority, role: Role, dashboard: Dashboard) -> Enforcement:
    leaf = authority.leaf(role)
    return Enforcement(leaf.identity, leaf.pair, authority.trust(), dashboard=dashboard)


@asynccontextmanager
async def scheduler(authority: Authority, mode: Dashboard, **options: Any) -> AsyncIterator[tuple[Scheduler, int]]:
    security = PkiSecurity({Role.SCHEDULER: enforcement(authority, Role.SCHEDULER, mode)})
    options = {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"} | options
    async with Scheduler(port=0, security=security, **options) as running:
        yield running, running.http_server.port


def ours(running: Scheduler) -> Enforcement:
    assert isinstance(running.security, PkiSecurity)
    return running.security.enforcement(Role.SCHEDULER)


# --- which pages ----------------------------------------------------------------------------------------------------


def live_handlers(server: Any) -> Iterator[type[RequestHandler]]:
    for application in (server.http_application, *server.http_application.applications):
        yield from _handlers(application.default_router)
        yield from _handlers(application.wildcard_router)


def _handlers(router: RuleRouter) -> Iterator[type[RequestHandler]]:
    for rule in router.rules:
        if isinstance(rule.target, RuleRouter):
            yield from _handlers(rule.target)
        elif isinstance(rule.matcher, PathMatches):
            yield rule.target


def test_every_handler_of_every_live_server_was_reviewed(authority: Authority) -> None:
    async def start() -> set[str]:
        working = enforcement(authority, Role.WORKER, Dashboard.LOOPBACK)
        everything = [
            *dask.config.get("distributed.scheduler.http.routes"),
            "distributed.http.scheduler.api",
            "distributed.http.scheduler.missing_bokeh",
        ]
        with dask.config.set({"distributed.scheduler.http.routes": everything}):
            async with (
                scheduler(authority, Dashboard.LOOPBACK, dashboard=True) as (running, _),
                Worker(running.address, security=PkiSecurity({Role.WORKER: working}), dashboard=True) as worker,
            ):
                return {qualified_name(each) for server in (running, worker) for each in live_handlers(server)}

    found = asyncio.run(start())
    assert found - ALLOWED - set(DENIED) == set()
    assert {"bokeh.server.views.ws.WSHandler", "distributed.http.proxy.GlobalProxyHandler"} <= found  # it looked


def test_a_handler_that_a_newer_version_adds_is_not_served(authority: Authority) -> None:
    class Brand(RequestHandler):
        def get(self) -> None:
            self.write("new")

    async def scenario() -> tuple[int, int]:
        async with scheduler(authority, Dashboard.LOOPBACK) as (running, port), connected(port) as browser:
            running.http_application.add_handlers(".*", [(r"/brand", Brand)])
            unguarded = HTTPServer(running.http_application)  # the control: the handler itself answers
            unguarded.listen(0, "127.0.0.1")
            (listening,) = unguarded._sockets.values()
            async with connected(listening.getsockname()[1]) as stranger:
                return (await browser.ask("/brand")).status, (await stranger.ask("/brand")).status

    assert asyncio.run(scenario()) == (404, 200)
    assert "not a page that daskpki knows" in str(why_denied(Brand))


@pytest.mark.parametrize("path", ["/proxy/8786/127.0.0.1/status", "/api/v1/retire_workers", "/api/v1/adaptive_target"])
def test_risky_routes_are_off_even_when_they_are_configured(authority: Authority, path: str) -> None:
    async def scenario() -> tuple[int, int]:
        routes = [*dask.config.get("distributed.scheduler.http.routes"), "distributed.http.scheduler.api"]
        with dask.config.set({"distributed.scheduler.http.routes": routes}):
            async with scheduler(authority, Dashboard.LOOPBACK) as (_, port), connected(port) as browser:
                return (await browser.ask(path)).status, (await browser.ask(path, "POST", Content_Length="0")).status

    assert asyncio.run(scenario()) == (404, 403)


def test_the_pages_and_their_policy(authority: Authority) -> None:
    async def scenario() -> None:
        async with scheduler(authority, Dashboard.LOOPBACK, dashboard=True) as (_, port), connected(port) as browser:
            page = await browser.ask("/daskpki")
            assert (page.status, "default-src 'none'" in page.headers) == (200, True)
            for path in ("/health", "/daskpki.json", "/daskpki.css", "/daskpki.js", "/metrics", "/json/counts.json"):
                assert (await browser.ask(path)).status == 200
            assert 'href="daskpki"' in (await browser.ask("/status")).body
            assert "daskpki_trust_epoch 1" not in (await browser.ask("/daskpki")).body
            metrics = (await browser.ask("/metrics")).body
            assert "dask_scheduler_workers" in metrics
            assert "daskpki_trust_epoch" in metrics
            assert (await browser.ask("/../daskpki.py")).status == 404
            for origin in ("https://evil.example", "http://[::1"):
                assert (await browser.ask("/status", Origin=origin)).status == 403
            assert (await browser.ask("/sitemap.json")).status == 404

    asyncio.run(scenario())


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@pytest.mark.parametrize(("path", "more", "open_"), [("/daskpki", {}, 200), ("/eventstream", UPGRADE, 101)])
def test_a_name_that_was_led_here_opens_nothing(
    authority: Authority, path: str, more: dict[str, str], open_: int
) -> None:
    """DNS rebinding: a page of evil.example, whose name leads to 127.0.0.1 by now, has our Host as its Origin."""

    async def ask(port: int, host: str) -> int:
        async with connected(port) as browser:
            browser.host = host
            return (await browser.ask(path, Origin=f"http://{host}", **more)).status

    async def scenario() -> list[int]:
        async with scheduler(authority, Dashboard.LOOPBACK) as (_, port):
            found = [await ask(port, host) for host in ("evil.example", "localhost:9999", "hub.example")]
            with dask.config.set({f"{BOKEH}.allow_websocket_origin": ["hub.example"]}):
                return [*found, await ask(port, "hub.example")]

    assert asyncio.run(scenario()) == [403, open_, 403, open_]


def test_the_page_without_bokeh(authority: Authority) -> None:
    async def scenario() -> str:
        async with scheduler(authority, Dashboard.LOOPBACK, dashboard=False) as (_, port), connected(port) as browser:
            return (await browser.ask("/daskpki")).body

    page = asyncio.run(scenario())
    assert 'href="info"' in page
    assert 'href="tasks"' not in page


def test_off_is_off_save_for_health(authority: Authority) -> None:
    async def scenario() -> list[int]:
        async with scheduler(authority, Dashboard.OFF) as (_, port), connected(port) as browser:
            paths = ("/health", "/daskpki", "/daskpki.json", "/metrics", "/json/identity.json", "/sitemap.json")
            return [(await browser.ask(path)).status for path in paths]

    assert asyncio.run(scenario()) == [200, 404, 404, 404, 404, 404]


def test_a_server_without_the_guard_does_not_start(authority: Authority) -> None:
    async def scenario() -> None:
        async with scheduler(authority, Dashboard.LOOPBACK) as (running, _):
            verify_guarded(running)
            running.http_server.request_callback = Application()
            verify_guarded(running)

    with pytest.raises(NotTrustedError, match="without daskpki's rules"):
        asyncio.run(scenario())


# --- who --------------------------------------------------------------------------------------------------------------


def cases(authority: Authority, other: Authority) -> dict[str, tuple[Authority, Leaf | None, str]]:
    return {
        "alice": (authority, authority.leaf(Role.CLIENT, "alice"), "200"),
        "worker": (authority, authority.leaf(Role.WORKER), "403 has the role worker"),
        "scheduler": (authority, authority.leaf(Role.SCHEDULER), "403 has the role scheduler"),
        "none": (authority, None, "closed"),
        "other CA": (other, other.leaf(Role.CLIENT, "alice"), "closed"),
        "expired": (authority, authority.leaf(Role.CLIENT, "late", at=-2 * DAY, ttl=3600), "closed"),
        "not yet": (authority, authority.leaf(Role.CLIENT, "early", at=DAY), "closed"),
        "another trust domain": (
            authority,
            authority.forged(Role.CLIENT, ["spiffe://elsewhere.example/client/alice"]),
            "403 is not of trust domain",
        ),
    }


async def outcome(port: int, context: ssl.SSLContext | None, path: str = "/daskpki") -> str:
    try:
        async with connected(port, context) as browser:
            answer = await browser.ask(path)
    except (ssl.SSLError, ConnectionError):
        return "closed"
    return "200" if answer.status == 200 else f"{answer.status} {answer.body}"


def test_holders_of_a_clients_certificate_and_nobody_else(authority: Authority, tmp_path: Path) -> None:
    async def scenario() -> tuple[dict[str, tuple[str, str]], set[str]]:
        found = {}
        async with scheduler(authority, Dashboard.MTLS) as (running, port):
            for name, (whose, leaf, expected) in cases(authority, Authority()).items():
                context = visitor(whose, leaf, tmp_path / name, trusted=authority)
                found[name] = (await outcome(port, context), expected)
            found["no TLS"] = (await outcome(port, None), "closed")
            refused = {event.detail for event in ours(running).audit.latest if event.kind == TURNED_AWAY}
        return found, refused

    answers, refused = asyncio.run(scenario())
    for failure in ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "CERTIFICATE_VERIFY_FAILED", "HTTP_REQUEST"):
        assert [each for each in refused if each.startswith("dashboard: no TLS: ") and failure in each], refused
    for name, (found, expected) in answers.items():
        assert found.startswith(expected[:3]), (name, found)
        assert expected[4:] in found or expected == "closed", (name, found)


def test_revocation_reaches_connections_that_are_kept_alive_websockets_and_sessions(tmp_path: Path) -> None:
    authority = Authority()
    alice, bob = authority.leaf(Role.CLIENT, "alice"), authority.leaf(Role.CLIENT, "bob")
    hers, his = visitor(authority, alice, tmp_path / "a"), visitor(authority, bob, tmp_path / "b")

    async def ended(connection: Connection) -> bool:
        """After what was on its way."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while await asyncio.wait_for(connection.reader.read(1 << 16), 20):
                pass
        return True

    async def scenario() -> None:
        async with scheduler(authority, Dashboard.MTLS) as (running, port):
            async with connected(port, hers) as kept, connected(port, hers) as stream, connected(port, his) as control:
                assert (await kept.ask("/daskpki")).status == 200
                assert (await control.ask("/daskpki")).status == 200
                assert (await stream.ask("/eventstream", **UPGRADE)).status == 101
                authority.revoke(alice)
                ours(running).replace(trust=authority.trust())
                assert await ended(kept)
                assert await ended(stream)
                assert (await control.ask("/daskpki")).status == 200
            assert (await outcome(port, hers)).startswith("403")
            assert "is revoked" in await outcome(port, hers)
            assert await outcome(port, his) == "200"

    asyncio.run(scenario())


@pytest.mark.parametrize("rotations", [1, 2])
def test_no_websocket_of_a_revoked_person_outlives_rotations(tmp_path: Path, rotations: int) -> None:
    """The pages are judged by the present CAs, so a WebSocket ends at the latest when its CA is dropped."""
    authority = Authority()
    alice = authority.leaf(Role.CLIENT, "alice")
    hers = visitor(authority, alice, tmp_path / "a")

    async def scenario() -> None:
        async with (
            scheduler(authority, Dashboard.MTLS) as (running, port),
            connected(port, hers) as stream,
        ):
            assert (await stream.ask("/eventstream", **UPGRADE)).status == 101
            for _ in range(rotations):
                for document in authority.rotate():
                    ours(running).replace(trust=trust_of(document))
            authority.revoke(alice)
            ours(running).replace(trust=authority.trust())
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while await asyncio.wait_for(stream.reader.read(1 << 16), 20):
                    pass
            assert alice.serial in ours(running).trust.revoked
            assert [event for event in ours(running).audit.latest if event.detail.startswith("dashboard: ")][-1:]

    asyncio.run(scenario())


class Talk(NamedTuple):
    """One request over a connection of its own: the answer, the session to go on with, and whether one was resumed."""

    answer: str
    session: ssl.SSLSession | None
    resumed: bool | None


def talk(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Talk:
    with (
        socket.create_connection(("127.0.0.1", port), 20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as stream,
    ):
        stream.sendall(f"GET /daskpki.json HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        return Talk(stream.recv(1 << 16).decode(), stream.session, stream.session_reused)


TLS_VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", TLS_VERSIONS)
def test_no_session_is_resumed_and_nobody_revoked_comes_in_by_one(version: ssl.TLSVersion, tmp_path: Path) -> None:
    """Also were sessions resumed, as they are in the control by a context that gives out tickets."""
    authority = Authority()
    alice, leaf = authority.leaf(Role.CLIENT, "alice"), authority.leaf(Role.SCHEDULER)
    context = visitor(authority, alice, tmp_path)
    context.maximum_version = version
    mine = Enforcement(leaf.identity, leaf.pair, authority.trust(), minimum=version, dashboard=Dashboard.MTLS)
    with_tickets = server_context(leaf.pair, authority.trust().anchors, version)
    with_tickets.options &= ~ssl.OP_NO_TICKET
    with_tickets.num_tickets = 2

    async def scenario() -> list[Talk]:
        security = PkiSecurity({Role.SCHEDULER: mine})
        async with Scheduler(port=0, host="127.0.0.1", security=security, dashboard_address="127.0.0.1:0") as running:

            async def visit(session: ssl.SSLSession | None) -> Talk:
                return await asyncio.to_thread(talk, running.http_server.port, context, session)

            first = await visit(None)
            again = await visit(first.session)
            running.http_server.ssl_options = with_tickets
            resumable = await visit(None)
            resumed = await visit(resumable.session)
            authority.revoke(alice)
            mine.replace(trust=authority.trust())
            strict = await visit(first.session)
            running.http_server.ssl_options = with_tickets
            return [first, again, resumed, strict, await visit(resumable.session)]

    *before, strict, resumed = asyncio.run(scenario())
    assert [each.resumed for each in before] == [False, False, True]
    assert all(each.answer.startswith("HTTP/1.1 200") for each in before)
    assert (strict.resumed, resumed.resumed) == (False, True)
    for each in (strict, resumed):
        assert each.answer.startswith("HTTP/1.1 403")
        assert "is revoked" in each.answer


def test_a_newer_credential_and_another_ca_are_shown_at_once(tmp_path: Path) -> None:
    authority = Authority()
    old = visitor(authority, authority.leaf(Role.CLIENT, "alice"), tmp_path / "old")

    async def scenario() -> None:
        async with scheduler(authority, Dashboard.MTLS) as (running, port):
            assert await outcome(port, old) == "200"
            authority.add_authority()
            authority.activate_authority()
            authority.finish_rollover()
            mine = ours(running)
            mine.replace(trust=authority.trust(), pair=authority.leaf(Role.SCHEDULER).pair)
            assert await outcome(port, old) == "closed"

    asyncio.run(scenario())


def test_a_certificate_that_ends_ends_the_visit(tmp_path: Path) -> None:
    authority = Authority()
    alice = visitor(authority, authority.leaf(Role.CLIENT, "alice", ttl=3600), tmp_path)

    async def scenario() -> list[int]:
        async with scheduler(authority, Dashboard.MTLS) as (running, port), connected(port, alice) as browser:
            mine = ours(running)
            before, now = await browser.ask("/daskpki"), mine.now
            mine.now = lambda: now() + timedelta(hours=2).total_seconds()
            return [before.status, (await browser.ask("/daskpki")).status]

    assert asyncio.run(scenario()) == [200, 403]


def test_a_visitor_whose_certificate_ended_keeps_the_pages_from_nobody(tmp_path: Path) -> None:
    authority = Authority()
    alice = visitor(authority, authority.leaf(Role.CLIENT, "alice", ttl=3600), tmp_path / "a")
    bob = visitor(authority, authority.leaf(Role.CLIENT, "bob"), tmp_path / "b")

    async def scenario() -> list[int]:
        async with (
            scheduler(authority, Dashboard.MTLS) as (running, port),
            connected(port, alice) as hers,
            connected(port, bob) as his,
        ):
            assert (await hers.ask("/daskpki")).status == 200
            mine = ours(running)
            now = mine.now
            mine.now = lambda: now() + timedelta(hours=2).total_seconds()
            return [(await his.ask(path)).status for path in ("/daskpki", "/daskpki.json", "/metrics")]

    assert asyncio.run(scenario()) == [200, 200, 200]


def test_a_workers_pages_are_behind_the_guard_too(authority: Authority, tmp_path: Path) -> None:
    alice = visitor(authority, authority.leaf(Role.CLIENT, "alice"), tmp_path)
    security = PkiSecurity({Role.WORKER: enforcement(authority, Role.WORKER, Dashboard.MTLS)})

    async def scenario() -> tuple[str, str]:
        alice.check_hostname = False  # a worker's certificate has no address in it
        async with (
            scheduler(authority, Dashboard.MTLS) as (running, _),
            Worker(running.address, security=security, dashboard_address="127.0.0.1:0") as worker,
        ):
            port = worker.http_server.port
            return await outcome(port, alice, "/metrics"), await outcome(port, None, "/metrics")

    assert asyncio.run(scenario()) == ("200", "closed")
