"""The rules as values: default deny, arguments, modes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki.cluster import operations as ops
from daskpki.cluster.policy import (
    CLOSING,
    SERVES,
    Caller,
    Channel,
    Destinations,
    OperationRefusedError,
    Server,
    WorkerClients,
    allowed,
    settled,
    verify_call,
    verify_own_worker,
    verify_sendable,
)
from daskpki.cluster.refusal import PeerRefusedError
from daskpki.credentials.contexts import is_canonical
from daskpki.identity import Identity, Role
from tests.support.attacks import METRICS

DENY, LIMITED, _SUBMIT, ALLOW = WorkerClients
RPC, WORKER_STREAM, CLIENT_STREAM = Channel
OWN = "tls://10.0.0.1:40000"
ANOTHERS = "tls://10.0.0.2:40000"


def worker(mode: WorkerClients = LIMITED) -> Caller:
    return Caller(Role.WORKER, mode, lambda _channel, name: name in {OWN, "Client-worker-1"})


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
    ],
)
def test_a_worker_speaks_for_itself(message: dict[str, Any]) -> None:
    verify_call(Server.SCHEDULER, RPC, message, worker())


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
        ({"op": "register-worker", "address": OWN, "nanny": ANOTHERS}, "nanny='tls://10.0.0.2:40000' is not the"),
        ({"op": "register-worker", "address": OWN, "nanny": "tls://localhost:1"}, "nanny='tls://localhost:1' is not"),
        ({"op": "register-worker", "address": OWN, "nanny": 7}, "nanny=7 is no text"),
        ({"op": "shuffle_get", "id": "i", "worker": ANOTHERS}, "is not the caller's own address"),
        ({"op": "heartbeat_worker", "address": [OWN]}, "address=a list of 1 is no text"),
        ({"op": "identity", "surprise": 1}, "may not give the argument 'surprise'"),
        ({"op": "run_function"}, "act as a client"),
        ({"op": "run"}, "not in daskpki's table for a Scheduler"),
    ],
)
@pytest.mark.parametrize("mode", [DENY, LIMITED])
def test_a_worker_speaks_for_nobody_else(message: dict[str, Any], reason: str, mode: WorkerClients) -> None:
    with pytest.raises(OperationRefusedError, match=reason):
        verify_call(Server.SCHEDULER, RPC, message, worker(mode))


def test_a_client_registers_by_a_name_of_its_own() -> None:
    verify_call(Server.SCHEDULER, RPC, {"op": "register-client", "client": "Client-1"}, CLIENT)
    verify_call(Server.SCHEDULER, RPC, {"op": "register-client", "client": "Client-worker-1"}, worker())


@pytest.mark.parametrize("caller", [CLIENT, worker(), worker(ALLOW)], ids=["client", "worker", "worker in allow"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Client-2", "is somebody else's"),
        ("fire-and-forget", "is no name for a client"),
        ("queue-q", "is no name for a client"),
        ("variable-v", "is no name for a client"),
        (None, "is no name for a client"),
        (["Client-1"], "is no name for a client"),
    ],
)
def test_a_client_registers_by_no_name_of_anothers(caller: Caller, name: Any, reason: str) -> None:
    with pytest.raises(OperationRefusedError, match=reason):
        verify_call(Server.SCHEDULER, RPC, {"op": "register-client", "client": name}, caller)


@pytest.mark.parametrize("topic", ["print", "warn"])
def test_a_workers_client_follows_the_topics_of_every_client(topic: str) -> None:
    verify_call(Server.SCHEDULER, CLIENT_STREAM, {"op": "subscribe-topic", "topic": topic}, worker())


def test_a_workers_client_follows_no_other_topic() -> None:
    message = {"op": "subscribe-topic", "topic": "all"}
    with pytest.raises(OperationRefusedError, match="does not follow 'all'"):
        verify_call(Server.SCHEDULER, CLIENT_STREAM, message, worker())
    with pytest.raises(OperationRefusedError, match="topic=a dict of 0 is no text"):
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
    with pytest.raises(OperationRefusedError, match="belongs to a Scheduler, and the other end is a worker"):
        verify_sendable(Role.WORKER, RPC, registration, CLIENT)


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
    ours, other = (Identity("default.daskpki.internal", Role.WORKER, name) for name in ("w-1", "w-2"))
    scheduler = Identity("default.daskpki.internal", Role.SCHEDULER, "scheduler")
    for server, peer in ((Server.NANNY, ours), (Server.NANNY, scheduler), (Server.WORKER, other)):
        verify_own_worker(server, ours, peer)
    with pytest.raises(PeerRefusedError, match="w-2 is not the worker of this nanny"):
        verify_own_worker(Server.NANNY, ours, other)


def test_at_a_schedulers_address_only_a_scheduler_is_accepted() -> None:
    destinations = Destinations()
    assert destinations.roles("10.0.0.1:8786", Role.CLIENT) == {Role.SCHEDULER}
    assert destinations.roles("10.0.0.2:40000", Role.CLIENT) == {Role.SCHEDULER, Role.WORKER}
    assert destinations.roles("10.0.0.1:8786", Role.WORKER) == {Role.SCHEDULER}
    assert Destinations().roles("10.0.0.2:40000", Role.SCHEDULER) == {Role.WORKER}
