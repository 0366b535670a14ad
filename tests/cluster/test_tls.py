"""Sessions that are not resumed, and the dialling side: whom our clients and workers speak to. See also test_matrix."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from distributed import Client, Scheduler, Security, Worker

from daskpki.cluster.security import PkiSecurity, client_security
from daskpki.errors import NotTrustedError
from daskpki.identity import Role
from tests.support.cluster_material import DAY, Authority, Leaf, stock_security
from tests.support.nodes import Cluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def leaves(authority: Authority, revoked: Leaf) -> dict[str, Leaf]:
    return {
        "worker": authority.leaf(Role.WORKER),
        "client": authority.leaf(Role.CLIENT, "alice"),
        "of another trust domain, by our CA": authority.forged(Role.WORKER, ["spiffe://x.internal/worker/worker"]),
        "revoked": revoked,
    }


Show = Callable[[str], Security]


@pytest.fixture
def show(authority: Authority, leaves: dict[str, Leaf], tmp_path: Path) -> Show:
    """Stock Dask's Security with the certificate of that row."""

    def show(name: str) -> Security:
        return stock_security(authority, leaves[name], tmp_path / "shown")

    return show


def test_no_session_can_be_resumed(
    authority: Authority, limited: Cluster, leaves: dict[str, Leaf], tmp_path: Path
) -> None:
    """A resumed session would skip the verification of the chain: there is no ticket, and no old session is taken."""
    files = authority.files(leaves["worker"], tmp_path)
    context = ssl.create_default_context(cafile=files.ca)
    context.check_hostname = False
    context.load_cert_chain(files.cert, files.key)
    first = session(limited.address, context, None)
    assert not first.session.has_ticket
    assert not session(limited.address, context, first.session).reused


class Session(NamedTuple):
    session: ssl.SSLSession
    reused: bool


def session(address: str, context: ssl.SSLContext, previous: ssl.SSLSession | None) -> Session:
    host, port = re.sub(r"^tls://", "", address).rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        wrapped = context.wrap_socket(plain, session=previous)
        wrapped.recv(1)  # tickets of TLS 1.3 come with the first data
        assert wrapped.session is not None
        return Session(wrapped.session, bool(wrapped.session_reused))


class TestAPoserAsScheduler:
    """The dialling side: a client and a worker speak to a scheduler with the scheduler's role, and to nobody else."""

    @pytest.fixture
    def poser(self, authority: Authority, leaves: dict[str, Leaf], tmp_path: Path) -> Security:
        return stock_security(authority, leaves["worker"], tmp_path / "poser")

    @pytest.fixture
    def alice(self, authority: Authority, leaves: dict[str, Leaf]) -> PkiSecurity:
        return client_security(leaves["client"].credential, authority.document())

    def test_a_client_does_not_register_with_a_workers_certificate(self, poser: Security, alice: PkiSecurity) -> None:
        async def scenario() -> int:
            async with Scheduler(
                security=poser, port=0, host="127.0.0.1", dashboard=False, dashboard_address=":0"
            ) as scheduler:
                with pytest.raises(OSError, match="has the role worker, and here only scheduler is accepted"):
                    await Client(scheduler.address, security=alice, asynchronous=True, timeout=5)
                return len(scheduler.client_comms)

        assert asyncio.run(scenario()) == 0

    def test_a_worker_does_not_register_with_a_workers_certificate(
        self, poser: Security, authority: Authority, leaves: dict[str, Leaf]
    ) -> None:
        ours = PkiSecurity({Role.WORKER: authority.enforcement(leaves["worker"])})

        async def scenario() -> int:
            async with Scheduler(
                security=poser, port=0, host="127.0.0.1", dashboard=False, dashboard_address=":0"
            ) as scheduler:
                with pytest.raises(RuntimeError, match="Worker failed to start") as error:
                    await Worker(scheduler.address, security=ours, death_timeout=10)
                assert "has the role worker, and here only scheduler is accepted" in str(error.value.__cause__)
                return len(scheduler.workers)

        assert asyncio.run(scenario()) == 0

    def test_control_stock_dask_registers(self, poser: Security, authority: Authority, tmp_path: Path) -> None:
        stock = stock_security(authority, authority.leaf(Role.CLIENT, "alice"), tmp_path / "alice")

        async def scenario() -> int:
            async with (
                Scheduler(
                    security=poser, port=0, host="127.0.0.1", dashboard=False, dashboard_address=":0"
                ) as scheduler,
                Client(scheduler.address, security=stock, asynchronous=True),
            ):
                return len(scheduler.client_comms)

        assert asyncio.run(scenario()) == 1

    @pytest.mark.parametrize(
        ("name", "reason"),
        [("of another trust domain, by our CA", "is not of trust domain"), ("revoked", "only scheduler is accepted")],
    )
    def test_a_client_does_not_speak_to_whom_it_does_not_trust(
        self, name: str, reason: str, show: Show, alice: PkiSecurity
    ) -> None:
        poser = show(name)

        async def scenario() -> None:
            async with Scheduler(
                security=poser, port=0, host="127.0.0.1", dashboard=False, dashboard_address=":0"
            ) as scheduler:
                with pytest.raises(OSError, match=reason):
                    await Client(scheduler.address, security=alice, asynchronous=True, timeout=5)

        asyncio.run(scenario())


def test_a_client_whose_list_of_revocations_ran_out_speaks_to_nobody(authority: Authority, limited: Cluster) -> None:
    stale = authority.document(lifetime=timedelta(hours=1), at=-2 * DAY)
    security = client_security(authority.leaf(Role.CLIENT, "alice").credential, stale)

    async def scenario() -> None:
        with pytest.raises(OSError, match="revocation list of cluster default expired"):
            await Client(limited.address, security=security, asynchronous=True, timeout=5)

    asyncio.run(scenario())


@pytest.fixture(scope="module", autouse=True)
def _settled(limited: Cluster) -> Iterator[None]:
    """Nobody who was refused has hurt the cluster."""
    yield
    assert limited.scheduler.process.poll() is None
    assert limited.workers.process.poll() is None


@pytest.mark.parametrize(
    ("flaw", "reason"),
    [({"ca": True}, "is a CA's, not a leaf"), ({"without": "extendedKeyUsage"}, "extended key usage lacks clientAuth")],
    ids=["CA:TRUE", "no EKU"],
)
def test_a_leaf_that_openssl_alone_would_take(flaw: dict[str, Any], reason: str, authority: Authority) -> None:
    leaf = authority.forged(Role.WORKER, **flaw)
    ours = authority.enforcement(authority.leaf(Role.SCHEDULER))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = authority.enforcement(leaf).client_context().wrap_bio(outgoing, incoming)
    server = ours.server_context().wrap_bio(incoming, outgoing, server_side=True)
    for side in (theirs, server, theirs, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    shown = server.getpeercert(binary_form=True)
    assert shown == leaf.credential.leaf  # OpenSSL, as strict as it can be, has verified it
    with pytest.raises(NotTrustedError, match=reason):
        ours.admit(shown, frozenset({Role.WORKER}))
