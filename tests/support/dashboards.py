"""A live scheduler under mutual TLS, and what alice needs to see its dashboard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from os import getuid
from pathlib import Path
from typing import NamedTuple

from distributed import Scheduler
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.policy import Dashboard
from daskpki.cluster.security import PkiSecurity, client_security
from daskpki.credentials.credential_files import export_directory
from daskpki.credentials.verified import Pins, verify_credential
from daskpki.dashboard.browser import Entrance, application, owner_by_kernel
from daskpki.dashboard.proxy import Location, Upstream
from daskpki.identity import Role
from tests.support.cluster_material import Authority, Leaf
from tests.support.http_client import Connection, connected


class Running(NamedTuple):
    """A scheduler, its Enforcement, and the port of its dashboard."""

    authority: Authority
    scheduler: Scheduler
    enforcement: Enforcement
    port: int

    @property
    def address(self) -> str:
        return str(self.scheduler.address)

    def upstream(self, leaf: Leaf, location: Location | None = None) -> Upstream:
        return Upstream(self.address, self.security(leaf), location)

    def security(self, leaf: Leaf) -> PkiSecurity:
        return client_security(leaf.credential, self.authority.document())

    def revoke(self, leaf: Leaf) -> None:
        self.authority.revoke(leaf)
        self.enforcement.replace(trust=self.authority.trust())


@asynccontextmanager
async def scheduler(authority: Authority, mode: Dashboard = Dashboard.MTLS) -> AsyncIterator[Running]:
    leaf = authority.leaf(Role.SCHEDULER)
    enforcement = Enforcement(leaf.identity, leaf.pair, authority.trust(), dashboard=mode)
    security = PkiSecurity({Role.SCHEDULER: enforcement})
    async with Scheduler(
        port=0, security=security, host="127.0.0.1", dashboard_address="127.0.0.1:0", dashboard=True
    ) as running:
        yield Running(authority, running, enforcement, running.http_server.port)


class Proxy(NamedTuple):
    """The server for a browser, and its rules."""

    port: int
    entrance: Entrance

    def cookie(self) -> str:
        """Sign in."""
        assert self.entrance.secret is not None
        return f"{self.entrance.cookie_name}={self.entrance.redeem(self.entrance.secret)}"


@asynccontextmanager
async def proxy(upstream: Upstream) -> AsyncIterator[Proxy]:
    sockets = bind_sockets(0, "127.0.0.1")
    port = sockets[0].getsockname()[1]
    entrance = Entrance(port, getuid(), lambda client: owner_by_kernel(client, port))
    server = HTTPServer(application(upstream, entrance, lambda: None))
    server.add_sockets(sockets)
    try:
        yield Proxy(port, entrance)
    finally:
        server.stop()
        await server.close_all_connections()


@asynccontextmanager
async def alices_browser(running: Running, leaf: Leaf) -> AsyncIterator[tuple[Proxy, Connection, str]]:
    """The proxy for that leaf, a connection to it, and the cookie of who has signed in."""
    async with proxy(running.upstream(leaf)) as through, connected(through.port) as browser:
        yield through, browser, through.cookie()


def export(authority: Authority, leaf: Leaf, directory: Path) -> Path:
    """The leaf as `daskpki export` writes it, for DASKPKI_CREDENTIAL_DIR."""
    signed = authority.signed(authority.document())
    export_directory(verify_credential(leaf.credential, signed, pins=Pins(), now=datetime.now(UTC)), directory)
    return directory
