"""The rules as values: default deny, arguments, modes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgpack
import pytest
from distributed import Nanny, Scheduler, Worker
from distributed.core import Server as BaseServer
from hypothesis import given
from hypothesis import strategies as st

from daskpki.cluster import operations as ops
from daskpki.cluster.policy import (
    CLOSING,
    SERVES,
    Caller,
    Channel,
    ContestedAddressError,
    Destinations,
    OperationRefusedError,
    Server,
    WorkerClients,
    allowed,
    server_kind,
    settled,
    stricter,
    verify_call,
    verify_own_worker,
    verify_sendable,
)
from daskpki.cluster.refusal import PeerRefusedError
from daskpki.credentials.contexts import is_canonical
from daskpki.errors import NotTrustedError
from daskpki.identity import Identity, Role
from tests.support.attacks import METRICS

DENY, LIMITED, SUBMIT, ALLOW = WorkerClients
RPC, WORKER_STREAM, CLIENT_STREAM = Channel
OWN = "tls://10.0.0.1:40000"
ANOTHERS = "tls://10.0.0.2:40000"


def worker(mode: WorkerClients = LIMITED) -> Caller:
    return Caller(Role.WORKER, mode, lambda _channel, name: name in {OWN, "Client-worker-1", "Worker-1"})


def received(message: dict[str, Any]) -> Any:
    """As it comes over the wire: its texts are equal to those of the tables, and not the same objects."""
    return msgpack.loads(msgpack.packb(message))


def anybody(_channel: Channel, _name: str) -> bool:
    return True


CLIENT = Caller(Role.CLIENT, LIMITED, lambda _channel, name: name == "Client-1")
SCHEDULER = Caller(Role.SCHEDULER, LIMITED, lambda _channel, _name: False)

known = frozenset(
    name for server in Server for channel in Channel for role in Role for name in allowed(server, channel, role, ALLOW)
)


@given(
    operation=st.text().filter(lambda name: name not in known | CLOSING) | st.integers() | st.none() | st.binary(),
    server=st.sampled_from(Server),
    channel=st.sampled_from(Channel),
    role=st.sampled_from(Role),
    mode=st.sampled_from(WorkerClients),
)
def test_what_is_in_no_table_is_denied(
    operation: Any, server: Server, channel: Channel, role: Role, mode: WorkerClients
) -> None:
    with pytest.raises(OperationRefusedError):
        verify_call(server, channel, {"op": operation}, Caller(role, mode, anybody))


@pytest.mark.parametrize("server", Server)
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("mode", WorkerClients)
def test_nobody_opens_a_stream_without_registering(server: Server, role: Role, mode: WorkerClients) -> None:
    with pytest.raises(OperationRefusedError, match="never registered"):
        verify_call(server, RPC, {"op": "connection_stream"}, Caller(role, mode, anybody))


def test_each_mode_adds_to_the_one_before() -> None:
    for channel in Channel:
        modes = [allowed(Server.SCHEDULER, channel, Role.WORKER, mode) for mode in WorkerClients]
        assert all(stricter <= laxer for stricter, laxer in pairwise(modes))
    assert allowed(Server.SCHEDULER, CLIENT_STREAM, Role.WORKER, DENY) == frozenset()


@pytest.mark.parametrize("mode", [DENY, LIMITED])
def test_a_worker_may_call_nothing_that_runs_code_on_the_scheduler(mode: WorkerClients) -> None:
    runs_code = {"run_function", "feed", "register_scheduler_plugin", "update-graph", "workers_to_close", "broadcast"}
    for channel in Channel:
        assert not runs_code & allowed(Server.SCHEDULER, channel, Role.WORKER, mode)


def test_an_operation_in_calls_and_streams_is_allowed_to_the_same_roles() -> None:
    """So that a peer gains nothing by making Dask and us disagree whether a connection carries a stream."""
    for mode in WorkerClients:
        calls = allowed(Server.SCHEDULER, RPC, Role.WORKER, mode)
        streams = allowed(Server.SCHEDULER, WORKER_STREAM, Role.WORKER, mode)
        everything = {name for role in Role for name in allowed(Server.SCHEDULER, RPC, role, mode)}
        assert streams & everything <= calls


@pytest.mark.parametrize(
    "message",
    [
        {"op": "retire_workers", "workers": [OWN], "close_workers": False, "remove": False, "stimulus_id": "s"},
        {"op": "heartbeat_worker", "address": OWN, "metrics": METRICS},
        {"op": "unregister", "address": OWN, "stimulus_id": "s", "close": True, "reply": False},
        {"op": "register-worker", "address": OWN},
        {"op": "register-worker", "address": OWN, "name": OWN},
        {"op": "register-worker", "address": OWN, "name": 7},
        {"op": "register-worker", "address": OWN, "name": "worker-7"},
        {"op": "register-worker", "address": OWN, "nanny": None},
        {"op": "register-worker", "address": OWN, "nanny": OWN},
        {"op": "register-worker", "address": OWN, "server_id": "Worker-1"},
    ],
)
@pytest.mark.parametrize("mode", WorkerClients)
def test_a_worker_speaks_for_itself(message: dict[str, Any], mode: WorkerClients) -> None:
    verify_call(Server.SCHEDULER, RPC, received(message), worker(mode))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"op": "retire_workers", "workers": [ANOTHERS]}, "is not the caller's own address"),
        ({"op": "retire_workers", "workers": [OWN, ANOTHERS]}, "is not the caller's own address"),
        ({"op": "retire_workers", "workers": []}, "is not the caller's own address"),
        ({"op": "retire_workers"}, "is not the caller's own address"),
        ({"op": "retire_workers", "workers": [OWN], "key": b"x"}, "may not give the argument 'key'"),
        ({"op": "retire_workers", "names": ["a"]}, "may not give the argument 'names'"),
        ({"op": "heartbeat_worker", "address": ANOTHERS}, "is not the caller's own address"),
        ({"op": "unregister", "address": ANOTHERS}, "is not the caller's own address"),
        ({"op": "register-worker", "address": ANOTHERS}, "is not the caller's own address"),
        ({"op": "register-worker", "address": "tls://worker-1:40000"}, "is not of the form tls://IP:PORT"),
        ({"op": "register-worker", "address": OWN, "name": ANOTHERS}, "is an address, but not the caller's own"),
        ({"op": "register-worker", "address": OWN, "name": "tls://10.0.0.0:1"}, "is an address, but not the caller's"),
        (
            {"op": "register-worker", "address": OWN, "server_id": "Worker-2"},
            "server_id='Worker-2' is another worker's",
        ),
        ({"op": "register-worker", "address": OWN, "nanny": ANOTHERS}, "nanny='tls://10.0.0.2:40000' is not the"),
        ({"op": "register-worker", "address": OWN, "nanny": "tls://localhost:1"}, "nanny='tls://localhost:1' is not"),
        ({"op": "register-worker", "address": OWN, "nanny": 7}, "nanny=7 is not a valid text"),
        ({"op": "shuffle_get", "id": "i", "worker": ANOTHERS}, "is not the caller's own address"),
        ({"op": "heartbeat_worker", "address": [OWN]}, "address=a list of 1 is not a valid text"),
        ({"op": "identity", "surprise": 1}, "may not give the argument 'surprise'"),
        ({"op": "run_function"}, "act as a client"),
        ({"op": "run"}, "not in daskpki's table for a Scheduler"),
    ],
)
@pytest.mark.parametrize("mode", [DENY, LIMITED])
def test_a_worker_speaks_for_nobody_else(message: dict[str, Any], reason: str, mode: WorkerClients) -> None:
    with pytest.raises(OperationRefusedError, match=reason):
        verify_call(Server.SCHEDULER, RPC, message, worker(mode))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"op": "register-worker", "address": ANOTHERS}, "is not the caller's own address"),
        ({"op": "register-worker", "address": OWN, "name": ANOTHERS}, "is an address, but not the caller's own"),
        ({"op": "register-worker", "address": OWN, "nanny": 7}, "nanny=7 is not the caller's own address"),
        ({"op": "register-worker", "address": [OWN]}, "address=a list of 1 is not the caller's own address"),
        ({"op": "shuffle_get", "id": "i", "worker": ANOTHERS}, "is not the caller's own address"),
        ({"op": "heartbeat_worker", "address": OWN, "surprise": 1}, "may not give the argument 'surprise'"),
    ],
)
def test_a_worker_speaks_for_nobody_else_in_allow_either(message: dict[str, Any], reason: str) -> None:
    with pytest.raises(OperationRefusedError, match=reason):
        verify_call(Server.SCHEDULER, RPC, received(message), worker(ALLOW))


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        (RPC, {"op": "heartbeat_worker", "address": OWN, "metrics": 7}),
        (RPC, {"op": "register-worker", "address": OWN, "server_id": 7}),
        (RPC, {"op": "retire_workers", "workers": [ANOTHERS]}),
        (RPC, {"op": "identity", "surprise": 1}),
        (WORKER_STREAM, {"op": "task-finished", "surprise": 1}),
        (CLIENT_STREAM, {"op": "update-graph", "surprise": 1}),
    ],
)
def test_in_allow_arguments_are_checked_for_ownership_only(channel: Channel, message: dict[str, Any]) -> None:
    verify_call(Server.SCHEDULER, channel, received(message), worker(ALLOW))
    for mode in (DENY, LIMITED, SUBMIT):
        with pytest.raises(OperationRefusedError):
            verify_call(Server.SCHEDULER, channel, received(message), worker(mode))


@pytest.mark.parametrize("operation", sorted(ops.OWN_ADDRESS.keys() - ops.SCHEDULER_FOR_CLIENTS))
def test_only_a_registration_contests_an_address(operation: str) -> None:
    with pytest.raises(OperationRefusedError, match="is not the caller's own address") as refused:
        verify_call(Server.SCHEDULER, RPC, {"op": operation, ops.OWN_ADDRESS[operation]: ANOTHERS}, worker(ALLOW))
    registers = operation in {"register-worker", "register_nanny"}
    assert getattr(refused.value, "address", None) == (ANOTHERS if registers else None)
    assert isinstance(refused.value, ContestedAddressError) == registers


@pytest.mark.parametrize("mode", [DENY, LIMITED, SUBMIT])
@pytest.mark.parametrize("channel", Channel)
def test_a_refused_task_learns_which_mode_would_allow_it(mode: WorkerClients, channel: Channel) -> None:
    lax, strict = (allowed(Server.SCHEDULER, channel, Role.WORKER, each) for each in (ALLOW, mode))
    for operation in lax - strict - ops.DENIED.keys() - CLOSING:
        with pytest.raises(OperationRefusedError) as refused:
            verify_call(Server.SCHEDULER, channel, received({"op": operation}), worker(mode))
        tried = "submit work" if operation == "update-graph" else "act as a client"
        limit = f"which DASKPKI_WORKER_CLIENTS={mode.value} does not allow"
        if mode is SUBMIT:
            tried, limit = "manage the cluster", "which on a sealed scheduler may submit work and nothing else"
        assert f"this task tried to {tried} ({operation}) with the worker's certificate, {limit}" in str(refused.value)


def test_a_client_registers_by_a_name_of_its_own() -> None:
    verify_call(Server.SCHEDULER, RPC, {"op": "register-client", "client": "Client-1"}, CLIENT)
    verify_call(Server.SCHEDULER, RPC, {"op": "register-client", "client": "Client-worker-1"}, worker())


@pytest.mark.parametrize("caller", [CLIENT, worker(), worker(ALLOW)], ids=["client", "worker", "worker in allow"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Client-2", "is registered by another identity"),
        ("fire-and-forget", "is not allowed as a client's name"),
        ("queue-q", "is not allowed as a client's name"),
        ("variable-v", "is not allowed as a client's name"),
        (None, "is not allowed as a client's name"),
        (["Client-1"], "is not allowed as a client's name"),
    ],
)
def test_a_client_registers_by_no_name_of_anothers(caller: Caller, name: Any, reason: str) -> None:
    with pytest.raises(OperationRefusedError, match=reason):
        verify_call(Server.SCHEDULER, RPC, {"op": "register-client", "client": name}, caller)


TOPICS = pytest.mark.parametrize("operation", ["subscribe-topic", "unsubscribe-topic"])


@TOPICS
@pytest.mark.parametrize("topic", ["print", "warn"])
def test_a_workers_client_follows_the_topics_of_every_client(operation: str, topic: str) -> None:
    verify_call(Server.SCHEDULER, CLIENT_STREAM, received({"op": operation, "topic": topic}), worker())


@TOPICS
def test_a_workers_client_follows_no_other_topic(operation: str) -> None:
    message = {"op": operation, "topic": "all"}
    with pytest.raises(OperationRefusedError, match="does not follow 'all'"):
        verify_call(Server.SCHEDULER, CLIENT_STREAM, message, worker())
    with pytest.raises(OperationRefusedError, match="topic=a dict of 0 is not a valid text"):
        verify_call(Server.SCHEDULER, CLIENT_STREAM, message | {"topic": {}}, worker())
    verify_call(Server.SCHEDULER, CLIENT_STREAM, message, worker(ALLOW))


@pytest.mark.parametrize("operation", sorted(ops.WORKER_FOR_SCHEDULER - ops.WORKER_FOR_WORKERS))
def test_what_a_scheduler_orders_a_worker_does_not(operation: str) -> None:
    verify_call(Server.WORKER, RPC, {"op": operation}, SCHEDULER)
    with pytest.raises(OperationRefusedError, match=f"{operation}.*only"):
        verify_call(Server.WORKER, RPC, {"op": operation}, worker(ALLOW))


@pytest.mark.parametrize("operation", sorted(ops.NANNY_FOR_SCHEDULER - ops.NANNY_FOR_WORKERS))
def test_what_a_scheduler_orders_of_a_nanny(operation: str) -> None:
    verify_call(Server.NANNY, RPC, {"op": operation}, SCHEDULER)
    with pytest.raises(OperationRefusedError, match="only scheduler may call it"):
        verify_call(Server.NANNY, RPC, {"op": operation}, worker(ALLOW))


def test_orders_to_workers_are_not_sent_by_clients() -> None:
    with pytest.raises(OperationRefusedError, match="only scheduler may call it, and the caller is a client"):
        verify_call(Server.WORKER, RPC, {"op": "run"}, CLIENT)


def test_operations_of_a_scheduler_are_sent_to_schedulers_only() -> None:
    registration = {"op": "register-client", "client": "Client-1"}
    verify_sendable(Role.SCHEDULER, RPC, registration, CLIENT)
    with pytest.raises(OperationRefusedError, match="belongs to a Scheduler, and the peer is a worker"):
        verify_sendable(Role.WORKER, RPC, registration, CLIENT)


def test_what_nobody_could_accept_is_not_sent() -> None:
    for sender, others in ((CLIENT, "Scheduler"), (worker(), "Scheduler"), (SCHEDULER, "Worker")):
        with pytest.raises(OperationRefusedError, match=f"belongs to a {others}, and the peer is a client"):
            verify_sendable(Role.CLIENT, RPC, {"op": "identity"}, sender)
    with pytest.raises(OperationRefusedError, match="not in daskpki's table for a Scheduler"):
        verify_sendable(Role.SCHEDULER, RPC, {"op": "no-such-operation"}, CLIENT)


def test_nothing_is_sent_to_whom_serves_nothing() -> None:
    assert SERVES[Role.CLIENT] == frozenset()
    with pytest.raises(OperationRefusedError, match="a client serves nothing"):
        verify_sendable(Role.CLIENT, RPC, {"op": "no-such-operation"}, SCHEDULER)


@pytest.mark.parametrize("address", ["tls://10.0.0.1:1", "tls://[::1]:65535", "tls://127.0.0.1:40001"])
def test_canonical_addresses(address: str) -> None:
    assert is_canonical(address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "worker-1",
        "tcp://10.0.0.1:1",
        "tls://localhost:1",
        "tls://10.0.0.01:1",
        "tls://10.0.0.1:01",
        "tls://10.0.0.1",
        "tls://10.0.0.1:",
        "tls://[0:0::1]:1",
        "tls://[fe80::1%eth0]:1",
        "tls://10.0.0.1:0",
        "tls://10.0.0.1:65536",
        "tls://10.0.0.1:" + "9" * 5000,
        "tls://::1:1",
        "10.0.0.1:1",
    ],
)
def test_addresses_that_may_be_another_name_of_a_workers(address: str) -> None:
    assert not is_canonical(address)


@given(st.text())
def test_any_text_is_judged(text: str) -> None:
    is_canonical(text)


ADVERSE = st.dictionaries(st.sampled_from(["workers", "address", "worker", "topic", "key", "client", "x"]), st.text())


@given(
    arguments=ADVERSE,
    server=st.sampled_from(Server),
    channel=st.sampled_from(Channel),
    role=st.sampled_from(Role),
    mode=st.sampled_from(WorkerClients),
)
def test_what_is_settled_by_its_name_is_allowed_with_any_arguments(
    arguments: dict[str, str], server: Server, channel: Channel, role: Role, mode: WorkerClients
) -> None:
    caller = Caller(role, mode, lambda _channel, _name: False)
    for operation in settled((server,), channel, role, mode):
        verify_call(server, channel, arguments | {"op": operation}, caller)


def test_what_depends_on_arguments_is_not_settled() -> None:
    streamed = settled((Server.SCHEDULER,), CLIENT_STREAM, Role.WORKER, LIMITED)
    assert streamed == frozenset()
    assert settled((Server.SCHEDULER,), CLIENT_STREAM, Role.WORKER, ALLOW) == ops.CLIENT_STREAM
    assert settled((Server.SCHEDULER,), RPC, Role.WORKER, ALLOW) == frozenset()
    assert "connection_stream" not in settled(Server, RPC, Role.CLIENT, ALLOW)


def test_a_nanny_listens_to_its_own_worker_and_to_schedulers() -> None:
    ours, again, scheduler, *others = (
        Identity("default.daskpki.internal", role, name)
        for role, name in (
            *((Role.WORKER, "w-1"), (Role.WORKER, "w-1"), (Role.SCHEDULER, "scheduler")),
            *((Role.WORKER, "w-0"), (Role.WORKER, "w-2")),
        )
    )
    verify_own_worker(Server.NANNY, ours, again)
    verify_own_worker(Server.NANNY, ours, scheduler)
    for other in others:
        verify_own_worker(Server.WORKER, ours, other)
        with pytest.raises(PeerRefusedError, match=f"{other.name} is not the worker of this nanny"):
            verify_own_worker(Server.NANNY, ours, other)


@pytest.mark.parametrize("kind", [Scheduler, Worker, Nanny])
def test_a_server_is_what_dask_calls_it_or_its_base(kind: type[BaseServer]) -> None:
    for own in (kind, type("Own", (kind,), {})):
        assert server_kind(object.__new__(own)) == kind.__name__


@pytest.mark.parametrize("kind", [BaseServer, type("Worker", (), {})])
def test_no_other_class_is_a_server(kind: type) -> None:
    with pytest.raises(NotTrustedError, match=f"daskpki has no rules for the server {kind.__name__}"):
        server_kind(object.__new__(kind))


def test_the_stricter_of_two_modes_permits_less() -> None:
    for index, mode in enumerate(WorkerClients):
        for other in list(WorkerClients)[index:]:
            assert stricter(mode, other) is stricter(other, mode) is mode


def test_at_a_schedulers_address_only_a_scheduler_is_accepted() -> None:
    destinations, host, port = Destinations(), "10.0.0.1", 8786
    assert destinations.roles(f"{host}:{port}", Role.CLIENT) == {Role.SCHEDULER}
    for other in ("10.0.0.0:8786", "10.0.0.2:40000"):
        assert destinations.roles(other, Role.CLIENT) == {Role.SCHEDULER, Role.WORKER}
    assert destinations.roles(f"{host}:{port}", Role.WORKER) == {Role.SCHEDULER}
    assert Destinations().roles("10.0.0.2:40000", Role.SCHEDULER) == {Role.WORKER}
