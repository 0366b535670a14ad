"""What a stolen worker credential may ask a live scheduler, a worker and a nanny; beside it what stock Dask answers."""

from __future__ import annotations

import asyncio
import re
import struct
from typing import Any

import pytest
from distributed import Client, Security

from daskpki.cluster import operations as ops
from daskpki.cluster.security import client_security
from daskpki.identity import Role
from tests.support.attacks import registration
from tests.support.cluster_material import Authority, stock_security
from tests.support.nodes import Cluster
from tests.support.rogue import call, dial

pytestmark = pytest.mark.cluster

FORBIDDEN = sorted(ops.SCHEDULER_FOR_CLIENTS - set(ops.SCHEDULER_FOR_WORKERS) - set(ops.SCHEDULER_FOR_WORKER_CLIENTS))


@pytest.fixture(scope="module")
def thief(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Security:
    return stock_security(authority, authority.leaf(Role.WORKER, "thief"), tmp_path_factory.mktemp("thief"))


@pytest.fixture(scope="module")
def mallory(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Security:
    return stock_security(authority, authority.leaf(Role.CLIENT, "mallory"), tmp_path_factory.mktemp("mallory"))


def present(authority: Authority, cluster: Cluster) -> set[str]:
    """Addresses of the workers that the scheduler knows."""
    security = client_security(authority.leaf(Role.CLIENT, "alice").credential, authority.document())
    with Client(cluster.address, security=security, set_as_default=False) as client:
        return set(client.scheduler_info(n_workers=-1)["workers"])


def test_every_operation_of_clients_is_refused_by_name(limited: Cluster, thief: Security) -> None:
    async def scenario() -> dict[str, Any]:
        return {name: await call(limited.address, thief, op=name) for name in FORBIDDEN}

    for name, reply in asyncio.run(scenario()).items():
        assert isinstance(reply, PermissionError), name
        assert re.search(rf"refused spiffe://\S+/worker/thief: '{name}' is refused: .*\({name}\)", str(reply))


def test_a_refused_call_leaves_the_connection_open(limited: Cluster, thief: Security) -> None:
    async def scenario() -> Any:
        comm = await dial(limited.address, thief)
        for operation in ("run_function", "no-such-operation", "identity"):
            await comm.write({"op": operation})
            reply = await asyncio.wait_for(comm.read(), 10)
        comm.abort()
        return reply

    assert asyncio.run(scenario())["type"] == "Scheduler"


def test_control_stock_dask_answers_a_worker_as_a_client(stock: Cluster, thief: Security) -> None:
    reply = asyncio.run(call(stock.address, thief, op="get_cluster_state", exclude=[]))
    assert "workers" in reply


@pytest.mark.parametrize("operation", ["unregister", "heartbeat_worker", "retire_workers"])
def test_a_worker_does_not_speak_for_another(
    operation: str, authority: Authority, limited: Cluster, thief: Security
) -> None:
    victim = limited.worker
    arguments = {"workers": [victim]} if operation == "retire_workers" else {"address": victim}
    reply = asyncio.run(call(limited.address, thief, op=operation, **arguments))
    assert isinstance(reply, PermissionError)
    assert "is not the caller's own address" in str(reply)
    assert victim in present(authority, limited)


@pytest.mark.parametrize("alias", ["tls://localhost:{port}", "tls://127.0.0.1:0{port}", "{name}"])
def test_nor_by_another_name_of_it(alias: str, authority: Authority, limited: Cluster, thief: Security) -> None:
    victim = limited.worker
    name = alias.format(port=victim.rsplit(":", 1)[1], name=victim.removeprefix("tls://"))
    reply = asyncio.run(call(limited.address, thief, op="unregister", address=name, stimulus_id="s"))
    assert isinstance(reply, PermissionError)
    assert victim in present(authority, limited)


def test_control_stock_dask_lets_a_worker_speak_for_another(stock: Cluster, thief: Security) -> None:
    victim = stock.worker
    reply = asyncio.run(call(stock.address, thief, op="heartbeat_worker", address=victim, metrics={}, now=0))
    assert not isinstance(reply, PermissionError)


def test_a_stream_names_no_other_worker(authority: Authority, limited: Cluster, thief: Security) -> None:
    victim = limited.worker

    async def scenario() -> None:
        comm = await dial(limited.address, thief)
        await comm.write(registration("tls://127.0.0.1:2"))
        assert (await asyncio.wait_for(comm.read(), 10))["status"] == "OK"
        message = {"op": "worker-status-change", "status": "closing", "stimulus_id": "s", "worker": victim}
        await comm.write([message, {"op": "task-erred", "client": "x"}, {"op": "update-graph", "keys": ["k"]}])
        await asyncio.to_thread(limited.scheduler.wait_for, re.compile("worker=.* is not the sender"))
        await asyncio.to_thread(limited.scheduler.wait_for, re.compile("may not give the argument 'client'"))
        await asyncio.to_thread(limited.scheduler.wait_for, re.compile("'update-graph' is refused"))
        comm.abort()

    asyncio.run(scenario())
    assert victim in present(authority, limited)


def test_a_refused_graph_is_answered_and_the_stream_stays(limited: Cluster, thief: Security) -> None:
    async def scenario() -> Any:
        comm = await dial(limited.address, thief)
        await comm.write({"op": "register-client", "client": "thief", "versions": {}})
        assert (await asyncio.wait_for(comm.read(), 10))[0]["op"] == "stream-start"
        await comm.write([{"op": "update-graph", "keys": ["a", "b"], "client": "thief"}])
        refused = await asyncio.wait_for(comm.read(), 10)
        await comm.write([{"op": "heartbeat-client"}, {"op": "update-graph", "keys": ["c"]}])
        again = await asyncio.wait_for(comm.read(), 10)
        comm.abort()
        return [(message["op"], message["key"]) for message in (*refused, *again)]

    assert asyncio.run(scenario()) == [("task-erred", "a"), ("task-erred", "b"), ("task-erred", "c")]


def take_over(cluster: Cluster, thief: Security, victim: str) -> Any:
    message = {"op": "register-client", "client": victim, "versions": {}}
    return asyncio.run(call(cluster.address, thief, **message))[0]


def test_nobody_takes_over_a_client(authority: Authority, limited: Cluster, thief: Security) -> None:
    security = client_security(authority.leaf(Role.CLIENT, "alice").credential, authority.document())
    with Client(limited.address, security=security, set_as_default=False) as client:
        future = client.submit(sum, [1, 2], pure=False)
        assert "is registered by another identity" in take_over(limited, thief, client.id)["error"]
        assert "is not allowed as a client's name" in take_over(limited, thief, "fire-and-forget")["error"]
        assert future.result(timeout=30) == 3


def test_control_stock_dask_gives_a_client_away(authority: Authority, stock: Cluster, thief: Security) -> None:
    security = client_security(authority.leaf(Role.CLIENT, "alice").credential, authority.document())
    with Client(stock.address, security=security, set_as_default=False) as client:
        assert "error" not in take_over(stock, thief, client.id) or not take_over(stock, thief, client.id)["error"]


@pytest.mark.parametrize("lengths", [(2**63,), (8, 2**40), (16, 1, 2**62)], ids=["all", "number", "frame"])
def test_lengths_that_are_none_end_that_connection_only(
    lengths: tuple[int, ...], authority: Authority, limited: Cluster, thief: Security
) -> None:
    async def scenario() -> None:
        comm: Any = await dial(limited.address, thief)
        await comm.stream.write(struct.pack(f"{len(lengths)}Q", *lengths))
        with pytest.raises(OSError, match="closed"):
            await asyncio.wait_for(comm.read(), 10)

    asyncio.run(scenario())
    assert limited.worker in present(authority, limited)


def test_calls_do_not_slip_through_after_a_failed_registration(limited: Cluster, thief: Security) -> None:
    """A registration that Dask rejects leaves its server among calls, while we expect a stream."""

    async def scenario() -> Any:
        first, second = await dial(limited.address, thief), await dial(limited.address, thief)
        try:
            await first.write(registration("tls://127.0.0.1:3", name="thief"))
            assert (await asyncio.wait_for(first.read(), 10))["status"] == "OK"
            await second.write(registration("tls://127.0.0.1:4", name="thief"))
            assert (await asyncio.wait_for(second.read(), 10))["status"] == "error"
            await second.write({"op": "add_keys", "worker": "tls://127.0.0.1:4", "keys": []})
            return await asyncio.wait_for(second.read(), 10)
        except OSError:
            return "closed"
        finally:
            first.abort()
            second.abort()

    assert asyncio.run(scenario()) == "closed"


@pytest.mark.parametrize("operation", sorted(ops.WORKER_FOR_SCHEDULER - ops.WORKER_FOR_WORKERS))
def test_workers_take_orders_from_schedulers_only(
    operation: str, limited: Cluster, thief: Security, mallory: Security
) -> None:
    expected = [thief] if operation in ops.WORKER_FOR_CLIENTS else [thief, mallory]
    for security in expected:
        reply = asyncio.run(call(limited.worker, security, op=operation))
        assert isinstance(reply, PermissionError)
        assert "may call it, and the caller is a" in str(reply)


@pytest.fixture(scope="module")
def own(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Security:
    """The certificate of the nannies and of the workers that they started."""
    return stock_security(authority, authority.leaf(Role.WORKER), tmp_path_factory.mktemp("own"))


@pytest.mark.parametrize("operation", sorted(ops.NANNY_FOR_SCHEDULER - ops.NANNY_FOR_WORKERS))
def test_nannies_take_orders_from_schedulers_only(operation: str, limited: Cluster, own: Security) -> None:
    reply = asyncio.run(call(limited.nanny, own, op=operation))
    assert isinstance(reply, PermissionError)
    assert "only scheduler may call it" in str(reply)


@pytest.mark.parametrize("operation", sorted(ops.NANNY_FOR_WORKERS))
def test_nannies_listen_to_their_own_worker_only(operation: str, limited: Cluster, thief: Security) -> None:
    with pytest.raises(TypeError, match=r"worker/thief is not the worker of this nanny, which is spiffe://\S+/worker"):
        asyncio.run(call(limited.nanny, thief, op=operation))


def test_control_a_nannys_own_worker_is_heard(limited: Cluster, own: Security) -> None:
    assert asyncio.run(call(limited.nanny, own, op="identity"))["type"] == "Nanny"


def test_control_stock_nannies_run_what_a_worker_says(stock: Cluster, thief: Security) -> None:
    reply = asyncio.run(call(stock.nanny, thief, op="get_logs"))
    assert not isinstance(reply, Exception)


@pytest.mark.parametrize("server", ["scheduler", "worker", "nanny"])
def test_nobody_opens_a_stream_unregistered(server: str, limited: Cluster, own: Security) -> None:
    address = {"scheduler": limited.address, "worker": limited.worker, "nanny": limited.nanny}[server]
    reply = asyncio.run(call(address, own, op="connection_stream"))
    assert isinstance(reply, PermissionError)
    assert "never registered" in str(reply)
