"""One connection's rules as values: whatever a peer sends is let through, or refused by name."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskpki.cluster import operations as ops
from daskpki.cluster.conversation import Conversation, Registrations
from daskpki.cluster.peer import Peer
from daskpki.cluster.policy import SERVES, Channel, OperationRefusedError, Server, WorkerClients
from daskpki.cluster.refusal import answer_call, answer_stream
from daskpki.identity import Identity, Role

DENY, LIMITED, _SUBMIT, ALLOW = WorkerClients
OWN, ANOTHERS = "tls://10.0.0.1:1", "tls://10.0.0.2:1"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.sampled_from([OWN, ANOTHERS]),
    lambda inner: st.lists(inner).map(tuple) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
operations = st.sampled_from(
    sorted({*ops.SCHEDULER_FOR_WORKERS, *ops.SCHEDULER_FOR_CLIENTS, *ops.CLIENT_STREAM, *ops.WORKER_STREAM})
)
arguments = st.sampled_from(
    ["address", "worker", "workers", "name", "client", "topic", "keys", "key", "reply", "status"]
)
messages = st.builds(lambda op, rest: rest | {"op": op}, operations | values, st.dictionaries(arguments, values))


def peer(role: Role, name: str = "thief") -> Peer:
    return Peer(Identity("default.daskpki.internal", role, name), 1, 2**31, "")


def on_scheduler(who: Peer, mode: WorkerClients = LIMITED, registrations: Registrations | None = None) -> Conversation:
    ours = Identity("default.daskpki.internal", Role.SCHEDULER, "scheduler")
    return Conversation(ours, who, mode, server=Server.SCHEDULER, registrations=registrations)


def dialled(ours: Role, to: Role, mode: WorkerClients) -> Conversation:
    return Conversation(peer(ours).identity, peer(to), mode)


def test_whatever_is_heard_is_let_through_or_refused_by_name() -> None:
    outcomes: Counter[str] = Counter()

    @settings(deadline=None, max_examples=50)
    @given(st.lists(messages | values, max_size=4), st.sampled_from(Role), st.sampled_from(WorkerClients))
    def hear(heard: list[Any], role: Role, mode: WorkerClients) -> None:
        conversation = on_scheduler(peer(role), mode)
        for message in heard:
            try:
                if conversation.streaming:
                    conversation.check_inbound_stream(message)
                else:
                    conversation.check_inbound_call(message)
                outcomes["let through"] += 1
            except OperationRefusedError as refusal:
                outcomes["refused"] += 1
                answer_call(message, str(refusal))
                if isinstance(message, dict):
                    answer_stream(message, str(refusal))

    hear()
    assert min(outcomes["let through"], outcomes["refused"]) > 0, outcomes


@settings(deadline=None, max_examples=50)
@given(messages, st.sampled_from(Role))
def test_nobody_but_a_worker_reports_as_one(message: dict[str, Any], role: Role) -> None:
    conversation = on_scheduler(peer(role))
    with contextlib.suppress(OperationRefusedError):
        conversation.check_inbound_call(message)
    if conversation.channel is Channel.WORKER_STREAM:
        assert role is Role.WORKER
        assert message["address"] in {OWN, ANOTHERS}


class TestNamesThatAreTaken:
    """What a live connection has registered is no other identity's."""

    @pytest.mark.parametrize(
        ("registration", "by"),
        [
            ({"op": "register-worker", "address": OWN}, Role.WORKER),
            ({"op": "register-client", "client": "Client-1"}, Role.CLIENT),
        ],
    )
    def test_by_somebody_else(self, registration: dict[str, Any], by: Role) -> None:
        registrations = Registrations()
        owner = on_scheduler(peer(by, "owner"), registrations=registrations)
        owner.check_inbound_call(registration)
        with pytest.raises(OperationRefusedError, match=r"not the caller's own|registered by another"):
            on_scheduler(peer(Role.WORKER), registrations=registrations).check_inbound_call(registration)
        again = on_scheduler(
            peer(by, "owner"), registrations=registrations
        )  # a connection that was lost, and is not yet known to be
        again.check_inbound_call(registration)
        del owner
        with pytest.raises(OperationRefusedError):
            on_scheduler(peer(Role.WORKER), registrations=registrations).check_inbound_call(registration)
        del again
        on_scheduler(peer(Role.WORKER), registrations=registrations).check_inbound_call(registration)

    def test_a_worker_has_no_nanny_of_anothers(self) -> None:
        """The scheduler would have that nanny kill and restart its worker in place of the one that named it."""
        registrations = Registrations()
        owner = on_scheduler(peer(Role.WORKER, "owner"), registrations=registrations)
        owner.check_inbound_call({"op": "register-worker", "address": OWN, "nanny": ANOTHERS})
        claim = {"op": "register-worker", "address": "tls://10.0.0.3:1", "nanny": ANOTHERS}
        with pytest.raises(OperationRefusedError, match=r"nanny='tls://10\.0\.0\.2:1' is not the caller's own"):
            on_scheduler(peer(Role.WORKER), registrations=registrations).check_inbound_call(claim)
        sibling = on_scheduler(peer(Role.WORKER, "owner"), registrations=registrations)
        sibling.check_inbound_call(claim)

    def test_a_name_of_a_client_is_no_address_of_a_worker(self) -> None:
        registrations = Registrations()
        squatter = on_scheduler(peer(Role.CLIENT), registrations=registrations)
        squatter.check_inbound_call({"op": "register-client", "client": OWN})
        on_scheduler(peer(Role.WORKER), registrations=registrations).check_inbound_call(
            {"op": "register-worker", "address": OWN}
        )


@pytest.mark.parametrize("role", [Role.CLIENT, Role.WORKER])
def test_a_client_speaks_for_itself_and_fires_and_forgets(role: Role) -> None:
    conversation = on_scheduler(peer(role), ALLOW)
    conversation.check_inbound_call({"op": "register-client", "client": "Client-1"})
    wants = {"op": "client-desires-keys", "keys": ["x"]}
    for client in ("Client-1", "fire-and-forget"):
        conversation.check_inbound_stream(wants | {"client": client})
    for message in (
        wants | {"client": "Client-2"},
        wants | {"client": "fire-and-forget", "worker": OWN},
        {"op": "client-releases-keys", "keys": ["x"], "client": "fire-and-forget"},
        {"op": "close-client", "client": "fire-and-forget"},
    ):
        with pytest.raises(OperationRefusedError, match=r"=.* is not the sender"):
            conversation.check_inbound_stream(message)


@pytest.mark.parametrize("server", Server)
def test_only_a_worker_takes_the_receipt_of_data(server: Server) -> None:
    """Dask's other servers raise a TypeError for a call that is a text."""
    conversation = Conversation(peer(Role.SCHEDULER).identity, peer(Role.WORKER), LIMITED, server=server)
    if server is Server.WORKER:
        conversation.check_inbound_call("OK")
        return
    with pytest.raises(OperationRefusedError, match="a call is a dict"):
        conversation.check_inbound_call("OK")


def test_the_thousandth_registration_costs_no_more_than_the_first() -> None:
    class Connection:
        """Of which a weak reference can be made."""

    registrations, connections = Registrations(), [Connection() for _ in range(20_000)]
    begun = time.process_time()
    for number, connection in enumerate(connections):
        registrations.register(
            Channel.WORKER_STREAM, f"tls://10.0.0.2:{number}", peer(Role.WORKER).identity, connection
        )
    assert time.process_time() - begun < 5  # looking through all at each one takes a minute
    assert registrations.holders(Channel.WORKER_STREAM, "tls://10.0.0.2:7") == [connections[7]]
    del connection, connections
    assert registrations.owner(Channel.WORKER_STREAM, "tls://10.0.0.2:7") is None


class TestTheModeThatTheSchedulerAnnounces:
    """A worker that was started with another mode than its scheduler must not be lost."""

    @pytest.mark.parametrize(
        ("ours", "announced", "guarded"),
        [
            (ALLOW, "limited", True),
            (ALLOW, "deny", True),
            (ALLOW, "allow", False),
            (LIMITED, "allow", True),
            (ALLOW, None, False),
            (ALLOW, "surprise", False),
            (ALLOW, [], False),
        ],
    )
    def test_the_stricter_holds(self, ours: WorkerClients, announced: object, guarded: bool) -> None:  # noqa: FBT001
        conversation = dialled(Role.WORKER, Role.SCHEDULER, ours)
        conversation.use_mode(announced)
        assert conversation.guarded is guarded

    def test_what_a_task_may_submit_goes_by_it(self) -> None:
        conversation = dialled(Role.WORKER, Role.SCHEDULER, ALLOW)
        conversation.use_mode("limited")
        conversation.check_outbound_call({"op": "register-client", "client": "Client-worker-1"})
        with pytest.raises(OperationRefusedError, match="DASKPKI_WORKER_CLIENTS=limited"):
            conversation.check_outbound({"op": "update-graph"})

    def test_nobody_else_announces(self) -> None:
        conversation = on_scheduler(peer(Role.WORKER), LIMITED)
        conversation.use_mode("allow")
        assert conversation.no_pickle
        other = on_scheduler(peer(Role.WORKER), ALLOW)
        other.use_mode("deny")
        assert not other.no_pickle


@pytest.mark.parametrize("server", Server)
@pytest.mark.parametrize("mode", [DENY, LIMITED])
def test_what_is_read_without_unpickling(server: Server, mode: WorkerClients) -> None:
    ours = next(role for role in Role if server in SERVES[role])
    here = Identity("default.daskpki.internal", ours, "server")
    strict = {role for role in Role if Conversation(here, peer(role), mode, server=server).no_pickle}
    assert strict == (set() if server is Server.WORKER else {Role.WORKER})
    assert dialled(Role.SCHEDULER, Role.WORKER, mode).no_pickle  # replies
