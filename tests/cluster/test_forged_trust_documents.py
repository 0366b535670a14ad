"""Trust documents that do not hold: who brings them keeps no other out, and least of all his own revocation."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, Scheduler, Worker
from distributed.client import FutureCancelledError
from distributed.comm.core import connect

from daskpki.cluster import trust_updates
from daskpki.cluster.audit import REFUSED, Audit
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.peer import Peer, trust_of
from daskpki.cluster.refresh import Poller, Refused
from daskpki.cluster.security import PkiSecurity, client_security
from daskpki.cluster.tls import KeyPair
from daskpki.cluster.trust_updates import ForgedError, TooManyRefusedError, TrustManager, TrustMessage
from daskpki.confidential import Confidential
from daskpki.errors import NotTrustedError
from daskpki.identity import Role
from daskpki.pki.trust_document import TrustDocument
from tests.support.cluster_material import Authority, Leaf, stock_security
from tests.support.nodes import Cluster, cluster

pytestmark = pytest.mark.cluster

PER_MINUTE = 10


@pytest.fixture
def own() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def ruling() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def running(ruling: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(ruling, tmp_path_factory.mktemp("flooded"), "limited", nworkers=1) as running:
        yield running


def forged() -> Confidential:
    """In the name of the cluster's CA, by another key."""
    stranger = Authority()
    return stranger.signed(stranger.document()._replace(epoch=1000))


def unknown() -> Confidential:
    """By a CA of a generation that the cluster has not heard of, as after a rollover that was missed."""
    stranger = Authority()
    for step in (stranger.add_authority, stranger.activate_authority, stranger.finish_rollover):
        step()
    stranger.sign_by_active_alone()
    return stranger.signed(stranger.document()._replace(epoch=1000))


def peer(leaf: Leaf) -> Peer:
    return Peer(leaf.identity, leaf.serial, 2**40, "some CA")


def security_of(authority: Authority, role: Role, audit: Audit | None = None) -> PkiSecurity:
    leaf, document = authority.leaf(role), authority.document()
    enforcement = Enforcement(leaf.identity, leaf.pair, trust_of(document), audit=audit)
    enforcement.manager = TrustManager(enforcement, document, authority.signed(document))
    return PkiSecurity({role: enforcement})


class Shelf:
    """A source with one document."""

    def __init__(self, signed: Confidential) -> None:
        self.signed = signed

    def trust_after(self, held: TrustDocument, refused: Refused) -> TrustMessage:  # noqa: ARG002 - the protocol's
        return TrustMessage(self.signed)

    def credential(self, held: KeyPair) -> None: ...


def test_each_certificate_has_its_own_limit_and_the_own_source_none(own: Authority) -> None:
    enforcement = own.enforcement(own.leaf(Role.SCHEDULER))
    hands = [0.0]
    manager = TrustManager(enforcement, own.document(), clock=lambda: hands[0])
    mallory, alice = peer(own.leaf(Role.CLIENT, "mallory")), peer(own.leaf(Role.CLIENT, "alice"))
    for _ in range(PER_MINUTE):
        with pytest.raises(NotTrustedError):
            manager.accept_trust(unknown(), sender=mallory)
    newest = own.signed(own.document())
    with pytest.raises(TooManyRefusedError, match="client/mallory"):
        manager.accept_trust(newest, sender=mallory)
    with pytest.raises(NotTrustedError):
        manager.accept_trust(unknown())
    assert manager.accept_trust(newest, sender=alice)
    assert manager.accept_trust(own.signed(own.document()))
    hands[0] = 60.0
    assert manager.accept_trust(own.signed(own.document()), sender=mallory)


def test_what_is_counted_of_senders_is_bounded(own: Authority) -> None:
    manager = TrustManager(own.enforcement(own.leaf(Role.SCHEDULER)), own.document())
    leaf, refused = own.leaf(Role.CLIENT, "many"), unknown()
    for serial in range(1100):
        with pytest.raises(NotTrustedError):
            manager.accept_trust(refused, sender=Peer(leaf.identity, serial, 2**40, "some CA"))
    assert len(manager._refusals._moments) == 1000


def test_forged_is_what_claims_to_be_of_a_ca_that_holds_here(own: Authority) -> None:
    manager = TrustManager(own.enforcement(own.leaf(Role.SCHEDULER)), own.document())
    with pytest.raises(ForgedError):
        manager.accept_trust(forged())
    future = own.document()
    honest = [unknown(), own.signed(future._replace(issued_at=future.issued_at + 86_400))]
    for signed in honest:
        with pytest.raises(NotTrustedError) as refusal:
            manager.accept_trust(signed)
        assert not isinstance(refusal.value, ForgedError)


def push(address: str, security: PkiSecurity, signed: Confidential) -> int:
    return asyncio.run(trust_updates.send_trust(address, security.get_connection_args("client"), signed))


@pytest.mark.long
def test_a_flood_keeps_no_revocation_out_that_is_pushed(ruling: Authority, running: Cluster) -> None:
    leaf = ruling.leaf(Role.CLIENT, "mallory")
    admin = client_security(ruling.leaf(Role.CLIENT, "admin").credential, ruling.document())
    his = client_security(leaf.credential, ruling.document())
    with Client(running.address, security=his, timeout=10) as client:
        assert client.submit(sum, [1, 2]).result(timeout=20) == 3
        for number in range(3 * PER_MINUTE):
            with pytest.raises(PermissionError, match="wait a minute" if number >= PER_MINUTE else "trust document"):
                push(running.address, his, unknown())
        ruling.revoke(leaf)
        document = ruling.document()
        assert push(running.address, admin, ruling.signed(document)) == document.epoch
        running.scheduler.wait_for(re.compile(r'"revoked".*client/mallory'))


def test_a_forger_is_cut_off_with_all_his_connections(ruling: Authority, running: Cluster) -> None:
    his = client_security(ruling.leaf(Role.CLIENT, "forger").credential, ruling.document())
    with Client(running.address, security=his, timeout=10) as client:
        waiting = client.submit(sum, [3, 4], resources={"of no worker": 1})
        assert client.submit(sum, [1, 2]).result(timeout=20) == 3
        with pytest.raises(PermissionError, match="trust document"):
            push(running.address, his, forged())
        with pytest.raises(FutureCancelledError, match="connection"):
            waiting.result(timeout=20)
        running.scheduler.wait_for(re.compile(r'"refused".*client/forger.*forged trust document'))


def test_a_flood_keeps_no_revocation_out_that_is_polled(own: Authority) -> None:
    leaf = own.leaf(Role.CLIENT, "mallory")
    scheduling = security_of(own, Role.SCHEDULER)
    enforcement = scheduling.enforcement(Role.SCHEDULER)
    manager = enforcement.manager
    assert isinstance(manager, TrustManager)
    his = client_security(leaf.credential, own.document())

    async def scenario() -> None:
        async with (
            Scheduler(
                security=scheduling, host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0"
            ) as scheduler,
            Client(scheduler.address, security=his, asynchronous=True, timeout=10) as client,
        ):
            pending = client.submit(sum, [1, 2])  # nobody works here, so it waits
            for _ in range(2 * PER_MINUTE):
                with pytest.raises(PermissionError):
                    await trust_updates.send_trust(scheduler.address, his.get_connection_args("client"), unknown())
            own.revoke(leaf)
            newest = own.document()
            poller = Poller(manager, Shelf(own.signed(newest)), share=0)
            await asyncio.to_thread(poller.poll)
            assert enforcement.trust.epoch == newest.epoch
            with pytest.raises(Exception, match=r"cancelled|lost"):
                await asyncio.wait_for(pending, 20)
            async with asyncio.timeout(20):
                while scheduler.client_comms:  # noqa: ASYNC110 - Dask tells nobody that it has removed a client
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())


class Signalling(Audit):
    """Sets an event when something was refused."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = asyncio.Event()

    def record(self, kind: str, **fields: Any) -> None:
        super().record(kind, **fields)
        if kind == REFUSED:
            self.refused.set()


def test_a_worker_does_not_cut_its_scheduler_for_a_forged_document(own: Authority) -> None:
    audit = Signalling()
    scheduling, working = security_of(own, Role.SCHEDULER), security_of(own, Role.WORKER, audit)
    alice = client_security(own.leaf(Role.CLIENT, "alice").credential, own.document())

    async def scenario() -> None:
        async with (
            Scheduler(
                security=scheduling, host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0"
            ) as scheduler,
            Worker(scheduler.address, security=working, host="127.0.0.1") as worker,
            Client(scheduler.address, security=alice, asynchronous=True) as client,
        ):
            message = trust_updates.message(forged())
            for comm in scheduling.enforcement(Role.SCHEDULER).connections():
                if comm.conversation.peer.identity.role is Role.WORKER:
                    comm.send_soon(message)
            await asyncio.wait_for(audit.refused.wait(), 20)
            assert await client.submit(sum, [1, 2]) == 3
            assert list(scheduler.workers) == [worker.address]

    asyncio.run(scenario())


class Turns(Audit):
    """Notes at each refusal how many turns of the event loop there have been."""

    def __init__(self) -> None:
        super().__init__(None)
        self.turns = 0
        self.noted: list[int] = []

    def record(self, kind: str, **fields: Any) -> None:
        super().record(kind, **fields)
        if kind == REFUSED:
            self.noted.append(self.turns)


def test_more_connections_bring_no_more_answers(own: Authority) -> None:
    """Beyond the limit a certificate has ten a second, on however many connections it asks; others do not wait."""
    hands = [0.0]
    manager = TrustManager(own.enforcement(own.leaf(Role.SCHEDULER)), own.document(), clock=lambda: hands[0])
    mallory = peer(own.leaf(Role.CLIENT, "mallory"))
    for _ in range(PER_MINUTE):
        with pytest.raises(NotTrustedError):
            manager.accept_trust(unknown(), sender=mallory)

    def wait() -> float:
        with pytest.raises(TooManyRefusedError) as refused:
            manager.accept_trust(Confidential(b"not even looked at"), sender=mallory)
        return refused.value.wait

    assert [wait() for _ in range(300)] == pytest.approx([number / 10 for number in range(1, 301)])
    hands[0] = 30.1
    assert wait() == pytest.approx(0.1)
    assert manager.accept_trust(own.signed(own.document()), sender=peer(own.leaf(Role.CLIENT, "alice")))


def test_a_flood_on_one_connection_leaves_the_loop_to_others(own: Authority, tmp_path: Path) -> None:
    """What was sent ahead is read without waiting, so the reader itself has to let others have their turn."""
    sent, audit = 200, Turns()
    scheduling = security_of(own, Role.SCHEDULER, audit)
    his = stock_security(own, own.leaf(Role.CLIENT, "mallory"), tmp_path)

    async def scenario() -> None:
        async with Scheduler(
            security=scheduling, host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0"
        ) as scheduler:
            comm = await connect(scheduler.address, **his.get_connection_args("client"))
            for _ in range(sent):
                await comm.write({"op": "no-such-operation", "reply": False})

            async def others() -> None:
                while len(audit.noted) < sent:
                    audit.turns += 1
                    await asyncio.sleep(0)

            await asyncio.wait_for(others(), 30)
            comm.abort()
            assert len(set(audit.noted)) > sent / 2, "there was a turn for others between most of the messages"

    asyncio.run(scenario())
