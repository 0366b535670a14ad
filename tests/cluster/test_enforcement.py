"""What ends a live connection or a resumed session, and what leaves them: over real TLS, by clocks that tests turn."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from distributed import Client, Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin
from tornado.iostream import IOStream

from daskpki.cluster.audit import EXPIRED, REVOKED
from daskpki.cluster.comm import PkiTLS
from daskpki.cluster.conversation import Conversation
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.peer import Peer, trust_of
from daskpki.cluster.policy import Channel
from daskpki.cluster.refresh import NullSource, Poller
from daskpki.cluster.security import PkiSecurity, client_security
from daskpki.cluster.trust_updates import EPOCH, TrustManager
from daskpki.handover import Freshness
from daskpki.identity import Role
from daskpki.pki.certificates import lifetime, load_certificate
from tests.support.cluster_material import DAY, Authority, Leaf

pytestmark = pytest.mark.cluster


class Leaving(SchedulerPlugin):
    """Knows when a client has gone, without asking again and again."""

    name = "leaving"

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    def remove_client(self, scheduler: Any, client: str) -> None:  # noqa: ARG002 - Dask's signature
        self.gone.set()


@dataclass
class Site:
    """A scheduler of this process, whose rules go by a clock that a test turns."""

    authority: Authority = field(default_factory=Authority)
    ahead: float = 0.0
    allow_stale: bool = False
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    revocations_for: timedelta = 35 * DAY

    def __post_init__(self) -> None:
        leaf = self.authority.leaf(Role.SCHEDULER)
        document = self.authority.document(lifetime=self.revocations_for)
        self.enforcement = Enforcement(
            leaf.identity,
            leaf.pair,
            trust_of(document),
            now=self.now,
            allow_stale=self.allow_stale,
            minimum=self.minimum,
        )
        self.manager = self.enforcement.manager = TrustManager(self.enforcement, document)

    def now(self) -> float:
        return time.time() + self.ahead

    def publish(self) -> None:
        assert self.manager.accept_trust(self.authority.signed(self.authority.document()))

    def details(self, kind: str) -> list[str]:
        rows = [event for event in self.enforcement.audit.latest if event.kind == kind]
        return [row.detail for row in rows for _ in range(row.times)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Scheduler]:
        security = PkiSecurity({Role.SCHEDULER: self.enforcement})
        async with Scheduler(
            security=security, host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0"
        ) as scheduler:
            yield scheduler

    @asynccontextmanager
    async def connected(self, scheduler: Scheduler, leaf: Leaf) -> AsyncIterator[Leaving]:
        """A client that is connected; what is yielded says when the scheduler let it go."""
        security = client_security(leaf.credential, self.manager.document)
        leaving = Leaving()
        scheduler.add_plugin(leaving)
        async with Client(scheduler.address, security=security, asynchronous=True, set_as_default=False):
            yield leaving


# --- the end of a certificate --------------------------------------------------------------------------------------


def test_a_connection_outlives_its_peers_certificate_by_the_grace() -> None:
    site = Site()
    alice = site.authority.leaf(Role.CLIENT, "alice", ttl=int(DAY.total_seconds()))
    poller = Poller(site.manager, NullSource(), freshness=Freshness(grace=100))
    ends = lifetime(load_certificate(alice.credential.leaf)).not_after - time.time()

    async def scenario() -> None:
        async with site.running() as scheduler, site.connected(scheduler, alice) as leaving:
            site.ahead = ends - 10
            poller.poll()
            assert site.details(EXPIRED) == []
            site.ahead = ends + 50
            poller.poll()
            poller.poll()
            connections = len(site.enforcement.connections())
            assert connections > 0
            warnings = site.details(EXPIRED)
            assert len(warnings) == connections
            assert re.fullmatch(r"the certificate has expired; the connection is cut off in \d\d s", warnings[0])
            site.ahead = ends + 101
            poller.poll()
            await asyncio.wait_for(leaving.gone.wait(), 20)
            assert set(site.details(EXPIRED)[connections:]) == {"the certificate expired; no newer one came"}

    asyncio.run(scenario())


# --- a CA that goes ------------------------------------------------------------------------------------------------


def test_an_emergency_cuts_off_what_the_stolen_ca_issued() -> None:
    site = Site()
    alice = site.authority.leaf(Role.CLIENT, "alice")

    async def scenario() -> None:
        async with site.running() as scheduler, site.connected(scheduler, alice) as leaving:
            site.authority.replace_authority()
            site.publish()
            await asyncio.wait_for(leaving.gone.wait(), 20)
            assert set(site.details(REVOKED)) == {"its CA is not trusted any more"}

    asyncio.run(scenario())


def test_a_rollover_leaves_live_connections() -> None:
    """The control: the old CA retires first."""
    site = Site()
    alice = site.authority.leaf(Role.CLIENT, "alice")

    async def scenario() -> None:
        async with site.running() as scheduler, site.connected(scheduler, alice):
            for step in (
                site.authority.add_authority,
                site.authority.activate_authority,
                site.authority.finish_rollover,
            ):
                step()
                site.publish()
            assert site.enforcement.connections()
            assert site.details(REVOKED) == []

    asyncio.run(scenario())


# --- what happens at the same time ---------------------------------------------------------------------------------


class Ending(PkiTLS):
    """A connection that the event loop ends right after another thread has looked at its stream."""

    told = _closed = False

    def __init__(self, stream: IOStream) -> None:
        self._found: IOStream | None = stream

    @property
    def stream(self) -> IOStream | None:
        found, self._found = self._found, None
        return found

    @stream.setter
    def stream(self, stream: IOStream | None) -> None:
        self._found = stream

    def _send(self, message: Mapping[str, Any]) -> Coroutine[Any, Any, None]:
        self.told = True
        return super()._send(message)


def tell_soon(comm: PkiTLS) -> None:
    """As a scheduler that hands a newer trust document on."""
    comm.send_soon({"op": "nothing"})


@pytest.mark.parametrize("act", [PkiTLS.abort_soon, tell_soon], ids=["cut", "told"])
def test_a_connection_that_ends_while_a_thread_cuts_it_stops_no_poll(act: Callable[[PkiTLS], None]) -> None:
    site = Site()
    worker = Peer(site.authority.leaf(Role.WORKER).identity, serial=7, not_after=0, issuer="a CA")

    async def scenario() -> bool:
        near, far = socket.socketpair()
        with far, contextlib.closing(IOStream(near)) as stream:
            comm = Ending(stream)
            comm.remote_info = {EPOCH: 1}
            comm.conversation = Conversation(site.enforcement.identity, worker, site.enforcement.mode)
            comm.conversation.channel = Channel.WORKER_STREAM
            await asyncio.to_thread(act, comm)
            await asyncio.sleep(0)  # the event loop's turn, in which it aborts or sends
            return comm.closed() or comm.told

    assert asyncio.run(scenario())


def revoke(site: Site, alice: Leaf) -> None:
    site.authority.revoke(alice)


def replace_authority(site: Site, _alice: Leaf) -> None:
    site.authority.replace_authority()


@pytest.mark.parametrize("change", [revoke, replace_authority])
def test_a_certificate_that_is_revoked_while_it_is_admitted_does_not_stay(
    change: Callable[[Site, Leaf], None], tmp_path: Path
) -> None:
    site = Site()
    alice = site.authority.leaf(Role.CLIENT, "alice")
    context, admit = shown(site, alice, tmp_path), site.enforcement.admit

    def admit_then_revoke(certificate: bytes | None, roles: frozenset[Role]) -> Peer:
        peer = admit(certificate, roles)
        change(site, alice)
        site.publish()
        return peer

    async def scenario() -> None:
        async with site.running() as scheduler:
            site.enforcement.admit = admit_then_revoke  # type: ignore[method-assign]
            with contextlib.suppress(OSError):
                await asyncio.to_thread(visit, scheduler.address, context)
            assert site.details(REVOKED) == ["its certificate was revoked, or its CA dropped, as it connected"]
            assert site.enforcement.connections() == {}

    asyncio.run(scenario())


# --- sessions that are resumed -------------------------------------------------------------------------------------


class Visit(NamedTuple):
    """What came of one connection: the session to be resumed, whether one was, and the first words of the server."""

    session: ssl.SSLSession
    resumed: bool
    words: bytes


def shown(site: Site, leaf: Leaf, directory: Path) -> ssl.SSLContext:
    """What stock TLS shows of a leaf."""
    files = site.authority.files(leaf, directory)
    context = ssl.create_default_context(cafile=files.ca)
    context.check_hostname = False
    context.load_cert_chain(files.cert, files.key)
    return context


def visit(address: str, context: ssl.SSLContext, previous: ssl.SSLSession | None = None) -> Visit:
    with staying(address, context, previous) as found:
        return found


@contextlib.contextmanager
def staying(address: str, context: ssl.SSLContext, previous: ssl.SSLSession | None = None) -> Iterator[Visit]:
    """A visit for as long as the connection is open: by its abrupt end, a listener forgets the session."""
    host, port = address.removeprefix("tls://").rsplit(":", 1)
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, session=previous) as wrapped,
    ):
        words = wrapped.recv(1 << 16)  # the ticket comes before it
        assert wrapped.session is not None
        yield Visit(wrapped.session, bool(wrapped.session_reused), words)


def give_tickets(site: Site) -> None:
    """What our listeners never do."""
    served = site.enforcement.server_context()
    served.num_tickets, served.options = 1, served.options & ~ssl.OP_NO_TICKET


def finish(site: Site, _alice: Leaf) -> None:
    site.authority.add_authority()
    site.authority.activate_authority()
    site.authority.finish_rollover()


@pytest.mark.parametrize(
    ("change", "reason"),
    [(revoke, b"is revoked"), (finish, b"comes from default/daskpki CA 1, which is not trusted any more")],
    ids=["revoked", "finished"],
)
def test_a_resumed_session_is_judged_like_a_new_one(
    change: Callable[[Site, Leaf], None], reason: bytes, tmp_path: Path
) -> None:
    """Sessions can be resumed here only because the test lets the listener hand out tickets."""
    site = Site()
    alice = site.authority.leaf(Role.CLIENT, "alice")
    context = shown(site, alice, tmp_path)

    async def scenario() -> None:
        async with site.running() as scheduler:
            give_tickets(site)
            first = await asyncio.to_thread(visit, scheduler.address, context)
            second = await asyncio.to_thread(visit, scheduler.address, context, first.session)
            assert second.resumed
            assert reason not in second.words
            change(site, alice)
            site.enforcement.trust = trust_of(site.authority.document())  # and the listener keeps its context
            third = await asyncio.to_thread(visit, scheduler.address, context, second.session)
            assert third.resumed
            assert reason in third.words

    asyncio.run(scenario())


def test_a_session_that_is_resumed_by_its_id_does_not_outlive_the_certificate(tmp_path: Path) -> None:
    """TLS 1.2 resumes without tickets too, from the listener's memory, and then OpenSSL does not look at dates."""
    site = Site(minimum=ssl.TLSVersion.TLSv1_2)
    alice = site.authority.leaf(Role.CLIENT, "alice", ttl=int(DAY.total_seconds()))
    context = shown(site, alice, tmp_path)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def three_times(address: str) -> list[Visit]:
        with staying(address, context) as first, staying(address, context, first.session) as second:
            site.ahead = 2 * DAY.total_seconds()
            return [first, second, visit(address, context, first.session)]

    async def scenario() -> list[Visit]:
        async with site.running() as scheduler:
            return await asyncio.to_thread(three_times, scheduler.address)

    first, second, third = asyncio.run(scenario())
    assert (first.resumed, second.resumed, third.resumed) == (False, True, True)
    assert b"has expired" not in second.words
    assert f"the certificate of {alice.identity.uri} has expired".encode() in third.words


def test_no_session_outlives_a_newer_document(tmp_path: Path) -> None:
    """Each one brings new contexts, so that no earlier ticket is understood."""
    site = Site()
    alice = site.authority.leaf(Role.CLIENT, "alice")
    context = shown(site, alice, tmp_path)

    async def scenario() -> None:
        async with site.running() as scheduler:
            found = None
            for resumed in (False, True, False):
                give_tickets(site)
                session = found.session if found else None
                found = await asyncio.to_thread(visit, scheduler.address, context, session)
                assert found.resumed == resumed
                if resumed:
                    site.publish()

    asyncio.run(scenario())


# --- a revocation list that ran out --------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [False, True], ids=["refuse", "allow"])
def test_new_peers_once_the_revocation_list_ran_out(
    *, allowed: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(allow_stale=allowed, revocations_for=DAY)
    context = shown(site, site.authority.leaf(Role.CLIENT, "alice"), tmp_path)
    freshness, hands = Freshness(stale_trust="allow" if allowed else "refuse"), [0.0]
    poller = Poller(site.manager, NullSource(), freshness=freshness, clock=lambda: hands[0])

    async def scenario() -> bytes:
        async with site.running() as scheduler:
            assert b"expired at" not in (await asyncio.to_thread(visit, scheduler.address, context)).words
            site.ahead = (2 * DAY).total_seconds()
            return (await asyncio.to_thread(visit, scheduler.address, context)).words

    words = asyncio.run(scenario())
    assert (b"revocation list of cluster default expired at" in words) != allowed
    assert (b"refused the connection" in words) != allowed
    for minutes in (0, 1, 59, 61):
        hands[0] = minutes * 60.0
        poller.poll()
    assert caplog.text.count("the revocation list has expired") == 2  # at once, and an hour later
    assert ("accepts new peers nevertheless" in caplog.text) == allowed
