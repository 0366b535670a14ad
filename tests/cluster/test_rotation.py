"""Newer credentials and a whole CA rollover while tasks run: nothing is lost, nobody restarts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from distributed import Client, Scheduler, Worker
from distributed.comm.core import CommClosedError, FatalCommClosedError, connect

from daskpki.cluster.backend import PkiConnector
from daskpki.cluster.peer import Peer
from daskpki.cluster.refresh import DialRefresh, Poller, Refused
from daskpki.cluster.security import NodeSecurity, client_security
from daskpki.cluster.tls import KeyPair
from daskpki.cluster.trust_updates import TrustMessage
from daskpki.confidential import Confidential
from daskpki.errors import NotTrustedError, UnavailableError
from daskpki.handover import Freshness, load_handover, parse_handover
from daskpki.identity import Role
from daskpki.pki.trust_document import TrustDocument
from tests.support.cluster_material import Authority, Leaf
from tests.support.nodes import handover_of

pytestmark = pytest.mark.cluster


class Shelf:
    """A source whose content the test changes."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.trust: Confidential | None = None
        self.leaf: Leaf | None = None
        self.epoch = 0
        self.broken = False
        self.asked = 0

    def publish(self) -> None:
        document = self.authority.document()
        self.epoch, self.trust = document.epoch, self.authority.signed(document)

    def trust_after(self, held: TrustDocument, refused: Refused) -> TrustMessage | None:  # noqa: ARG002 - the protocol's
        if self.broken:
            raise UnavailableError("no answer")
        return TrustMessage(self.trust) if self.trust is not None and self.epoch > held.epoch else None

    def credential(self, held: KeyPair) -> KeyPair | None:  # noqa: ARG002 - the protocol's signature
        self.asked += 1
        return self.leaf.pair if self.leaf else None


def node(authority: Authority, role: Role, directory: Path) -> NodeSecurity:
    return NodeSecurity(parse_handover(handover_of(authority, authority.leaf(role), directory, "limited").read_bytes()))


def poller(security: NodeSecurity, shelf: Shelf, **options: Any) -> Poller:
    return Poller(security.manager, shelf, **options)


BEGUN, OVER = threading.Semaphore(0), threading.Event()


def hold() -> bool:
    """A task that runs until OVER is set: the workers are in this process."""
    BEGUN.release()
    return OVER.wait(60)


def test_a_rollover_under_load_loses_nothing(tmp_path: Path) -> None:
    authority = Authority()
    scheduling, working = node(authority, Role.SCHEDULER, tmp_path / "s"), node(authority, Role.WORKER, tmp_path / "w")
    old_alice = client_security(authority.leaf(Role.CLIENT, "alice").credential, authority.document())
    shelf = Shelf(authority)

    def everyone_looks() -> None:
        """Each host's own poller, with its own newest credential."""
        for security, role in ((scheduling, Role.SCHEDULER), (working, Role.WORKER)):
            shelf.leaf = authority.leaf(role)
            assert poller(security, shelf).poll()

    async def scenario() -> None:
        async with (
            Scheduler(
                security=scheduling, host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0"
            ) as scheduler,
            Worker(scheduler.address, security=working, host="127.0.0.1", nthreads=2) as one,
            Worker(scheduler.address, security=working, host="127.0.0.1", nthreads=2) as two,
            Client(scheduler.address, security=old_alice, asynchronous=True) as client,
        ):
            before = {address: state.server_id for address, state in scheduler.workers.items()}
            held = [client.submit(hold, workers=[worker.address], pure=False) for worker in (one, two)]
            for _task in held:
                assert await asyncio.to_thread(BEGUN.acquire, timeout=30)
            futures = client.map(lambda x: x + 1, range(800))
            for step in (authority.add_authority, authority.activate_authority, authority.finish_rollover):
                step()
                shelf.publish()
                await asyncio.to_thread(everyone_looks)
                futures += client.map(lambda x: x + 2, range(200), pure=False)
            assert [task.status for task in held] == ["pending"] * 2, "nothing ran through all of it"
            OVER.set()
            assert await client.gather(held) == [True] * 2
            assert sum(await client.gather(futures)) == sum(range(1, 801)) + 3 * sum(range(2, 202))
            assert {address: state.server_id for address, state in scheduler.workers.items()} == before
            assert {one.address, two.address} == set(before)

            newcomer = client_security(authority.leaf(Role.CLIENT, "bob").credential, authority.document())
            async with Client(scheduler.address, security=newcomer, asynchronous=True) as bob:
                assert await bob.submit(sum, [1, 2]) == 3
            with pytest.raises(OSError, match=r"certificate|closed|verify"):
                await Client(scheduler.address, security=old_alice, asynchronous=True, timeout=5)

    asyncio.run(scenario())


class RenewedMeanwhile:
    """Stands where a client looks for newer material: its last step runs `event` once, when TLS is up."""

    def __init__(self, event: Callable[[], object]) -> None:
        self.events = [event]
        self.dials = 0

    async def begin(self) -> None:
        self.dials += 1

    async def finish(self) -> None:
        while self.events:
            self.events.pop()()


@pytest.mark.parametrize("renewed", [True, False])
def test_a_dial_during_which_the_credential_is_renewed_is_made_again(tmp_path: Path, renewed: bool) -> None:  # noqa: FBT001
    """The old one's CA is dropped during the handshake. A worker that believed that refusal would end."""
    authority = Authority()
    scheduling, working = node(authority, Role.SCHEDULER, tmp_path / "s"), node(authority, Role.WORKER, tmp_path / "w")
    enforcement = working.enforcement(Role.WORKER)

    async def scenario() -> None:
        async with Scheduler(
            security=scheduling, host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0"
        ) as scheduler:
            dialled = RenewedMeanwhile(lambda: roll_over(authority, scheduling, working, renewed=renewed))
            enforcement.on_dial = cast("DialRefresh", dialled)
            arguments = working.get_connection_args("worker")
            if not renewed:
                with pytest.raises(NotTrustedError, match="is not trusted any more"):
                    await connect(scheduler.address, **arguments)
                return
            comm = await connect(scheduler.address, **arguments)
            assert dialled.dials == 2
            await comm.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("renewed", [True, False])
def test_a_refusal_of_a_credential_that_is_renewed_since_is_not_final(tmp_path: Path, renewed: bool) -> None:  # noqa: FBT001
    authority = Authority()
    scheduling, working = node(authority, Role.SCHEDULER, tmp_path / "s"), node(authority, Role.WORKER, tmp_path / "w")

    async def scenario() -> None:
        async with Scheduler(
            security=scheduling, host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0"
        ) as scheduler:
            location = scheduler.address.removeprefix("tls://")
            comm = await PkiConnector().connect(location, **working.get_connection_args("worker"))
            roll_over(authority, scheduling, working, renewed=renewed)
            await comm.write(comm.handshake_info())
            with pytest.raises(
                CommClosedError if renewed else NotTrustedError, match="is not trusted any more"
            ) as caught:
                await comm.read()
            assert not isinstance(caught.value, FatalCommClosedError)

    asyncio.run(scenario())


def test_a_refusal_of_a_credential_that_is_renewed_while_the_scheduler_is_verified_is_not_final(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by the thread that polls, at the last moment before the connection's rules are set."""
    authority = Authority()
    scheduling, working = node(authority, Role.SCHEDULER, tmp_path / "s"), node(authority, Role.WORKER, tmp_path / "w")
    enforcement = working.enforcement(Role.WORKER)
    admit = enforcement.admit

    def admit_and_renew(certificate: bytes | None, roles: frozenset[Role]) -> Peer:
        peer = admit(certificate, roles)
        roll_over(authority, scheduling, working, renewed=True)
        return peer

    async def scenario() -> None:
        async with Scheduler(
            security=scheduling, host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0"
        ) as scheduler:
            location = scheduler.address.removeprefix("tls://")
            monkeypatch.setattr(enforcement, "admit", admit_and_renew)
            comm = await PkiConnector().connect(location, **working.get_connection_args("worker"))
            await comm.write(comm.handshake_info())
            with pytest.raises(CommClosedError, match="is not trusted any more"):
                await comm.read()

    asyncio.run(scenario())


ROLLOVER = ("add_authority", "activate_authority", "finish_rollover")


@pytest.mark.parametrize(
    ("steps", "stays"),
    [
        (ROLLOVER, True),
        (("replace_authority",), False),
        (("replace_authority", "add_authority"), False),
        ((*ROLLOVER, "replace_authority"), False),
    ],
    ids=["a rollover", "an emergency", "an emergency and a newer document", "a rollover and an emergency"],
)
def test_a_scheduler_of_the_stolen_ca_is_left_though_the_emergency_comes_while_it_is_verified(
    steps: tuple[str, ...],
    stays: bool,  # noqa: FBT001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The documents come as by the thread that polls, before the connection is listed; the impostor takes none."""
    authority = Authority()
    scheduling, working = node(authority, Role.SCHEDULER, tmp_path / "s"), node(authority, Role.WORKER, tmp_path / "w")
    enforcement = working.enforcement(Role.WORKER)
    admit = enforcement.admit

    def admit_and_learn(certificate: bytes | None, roles: frozenset[Role]) -> Peer:
        peer = admit(certificate, roles)
        for step in steps:
            getattr(authority, step)()
            assert working.manager.accept_trust(authority.signed(authority.document()))
        return peer

    async def scenario() -> None:
        async with Scheduler(
            security=scheduling, host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0"
        ) as scheduler:
            location = scheduler.address.removeprefix("tls://")
            monkeypatch.setattr(enforcement, "admit", admit_and_learn)
            comm = await PkiConnector().connect(location, **working.get_connection_args("worker"))
            await asyncio.sleep(0)  # the event loop's turn, in which it aborts
            assert (bool(enforcement.connections()), comm.closed()) == (stays, not stays)
            comm.abort()

    asyncio.run(scenario())


def roll_over(authority: Authority, scheduling: NodeSecurity, working: NodeSecurity, *, renewed: bool) -> None:
    """Drop the first CA. The scheduler knows it at once, and so does the worker if he is `renewed`."""
    for step in (authority.add_authority, authority.activate_authority, authority.finish_rollover):
        step()
    scheduling.enforcement(Role.SCHEDULER).replace(trust=authority.trust(), pair=authority.leaf(Role.SCHEDULER).pair)
    if renewed:
        working.enforcement(Role.WORKER).replace(trust=authority.trust(), pair=authority.leaf(Role.WORKER).pair)


def test_what_a_restarted_worker_gets_is_the_newest(tmp_path: Path) -> None:
    authority = Authority()
    security = node(authority, Role.WORKER, tmp_path)
    path = security.hand_to_children()
    shelf = Shelf(authority)
    shelf.publish()
    shelf.leaf = authority.leaf(Role.WORKER)
    assert poller(security, shelf).poll()
    restarted = NodeSecurity(load_handover(path))
    assert restarted.manager.document.epoch == security.manager.document.epoch
    assert restarted.enforcement(Role.WORKER).pair == shelf.leaf.pair


def test_an_older_or_foreign_credential_changes_nothing(tmp_path: Path) -> None:
    authority = Authority()
    security = node(authority, Role.WORKER, tmp_path)
    manager, enforcement = security.manager, security.enforcement(Role.WORKER)
    before = enforcement.pair
    wrong = [
        (authority.leaf(Role.WORKER, at=timedelta(days=-1)), "older than the one in use"),
        (authority.leaf(Role.WORKER, "another"), "is named another"),
        (authority.leaf(Role.SCHEDULER), "is a scheduler, where a worker is expected|is named scheduler"),
        (Authority().leaf(Role.WORKER), "certificate"),
    ]
    for leaf, reason in wrong:
        with pytest.raises(NotTrustedError, match=reason):
            manager.renew(leaf.pair)
        assert enforcement.pair is before


def test_a_renewal_that_comes_during_news_is_not_lost(tmp_path: Path) -> None:
    """One is pushed, the other polled by a thread; each replaces its half."""
    authority = Authority()
    enforcement = node(authority, Role.WORKER, tmp_path).enforcement(Role.WORKER)
    renewed, newer = authority.leaf(Role.WORKER).pair, authority.trust()
    renewal = threading.Thread(target=enforcement.replace, kwargs={"pair": renewed})

    def anchors() -> Iterator[bytes]:
        """They take long to load: long enough for the renewal to be done, if nothing holds it back."""
        renewal.start()
        renewal.join(0.5)
        yield from newer.anchors

    class Slow(list[bytes]):
        def __iter__(self) -> Iterator[bytes]:
            return anchors() if renewal.ident is None else iter(newer.anchors)

    enforcement.replace(trust=newer._replace(anchors=cast("tuple[bytes, ...]", Slow())))
    renewal.join()
    assert enforcement.trust.epoch == newer.epoch
    assert enforcement.pair == renewed


def test_a_revocation_makes_no_new_context_for_dialling(tmp_path: Path) -> None:
    """Each node of a fleet waits for what is made. A listener's is made anew, lest it resume an earlier session."""
    authority = Authority()
    enforcement = node(authority, Role.WORKER, tmp_path).enforcement(Role.WORKER)
    dialling, listening = enforcement.client_context(), enforcement.server_context()
    authority.revoke(revoked := authority.leaf(Role.WORKER, "stolen"))
    enforcement.replace(trust=authority.trust())
    assert revoked.serial in enforcement.trust.revoked
    assert enforcement.client_context() is dialling
    assert enforcement.server_context() is not listening
    enforcement.replace(pair=authority.leaf(Role.WORKER).pair)
    renewed = enforcement.client_context()
    authority.add_authority()
    enforcement.replace(trust=authority.trust())
    assert len({dialling, renewed, enforcement.client_context()}) == 3


def test_a_source_that_does_not_answer_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority()
    security = node(authority, Role.SCHEDULER, tmp_path)
    shelf, now = Shelf(authority), 0.0
    shelf.broken = True
    polling = poller(security, shelf, freshness=Freshness(fetch_age=100), clock=lambda: now)
    assert not polling.poll()
    assert "last fetched" not in caplog.text
    now = 101.0
    assert not polling.poll()
    assert "last fetched 101 s ago" in caplog.text
    shelf.broken = False
    assert polling.poll()


def test_the_poller_looks_again_and_again(tmp_path: Path) -> None:
    authority = Authority()
    security = node(authority, Role.SCHEDULER, tmp_path)
    shelf = Shelf(authority)
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        shelf.publish()
        if len(pauses) > 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(poller(security, shelf).run(pause))
    assert all(54 <= seconds <= 66 for seconds in pauses)
    assert security.manager.document.epoch == authority.document().epoch - 2
