"""What a task may do as a client, in each mode, on real processes; and that no honest worker is lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

from daskpki.cluster.security import client_security
from daskpki.identity import Role
from tests.support import tasks
from tests.support.cluster_material import Authority, stock_security
from tests.support.nightly import sample
from tests.support.nodes import PRELOADS, STARTED, Cluster, Node, node_environment
from tests.support.tasks import HANDS_ON_FUTURES, SUBMITS

pytestmark = pytest.mark.cluster

SUBMITS_OTHERWISE = [
    tasks.nested_executors_map,
    tasks.nested_gather,
    tasks.nested_results_in_order,
    tasks.nested_array,
    tasks.nested_bag,
    tasks.nested_actor,
]
ACTS_AS_CLIENT = [
    tasks.scatter,
    tasks.run_on_scheduler,
    tasks.run_everywhere,
    tasks.read_dataset,
    tasks.rebalance,
    tasks.count_threads,
    tasks.watch_tasks,
    tasks.report_performance,
    tasks.send_file,
    tasks.nested_dataset,
    tasks.nested_progress,
    tasks.nested_retry,
    tasks.nested_in_joblib,
    tasks.nested_in_joblib_with_data,
]


def alice(authority: Authority, cluster: Cluster) -> Client:
    security = client_security(authority.leaf(Role.CLIENT, "alice").credential, authority.document())
    return Client(cluster.address, security=security, set_as_default=False)


@pytest.fixture(scope="module")
def in_limited(authority: Authority, limited: Cluster) -> Iterator[Client]:
    with alice(authority, limited) as client:
        yield client


@pytest.fixture(scope="module")
def in_deny(authority: Authority, deny: Cluster) -> Iterator[Client]:
    with alice(authority, deny) as client:
        yield client


@pytest.fixture(scope="module")
def in_allow(authority: Authority, allow: Cluster) -> Iterator[Client]:
    with alice(authority, allow) as client:
        yield client


def run(client: Client, task: Callable[..., Any], *arguments: Any) -> Any:
    return client.submit(task, *arguments, pure=False).result(timeout=30)


@pytest.mark.parametrize("task", [*SUBMITS, *SUBMITS_OTHERWISE])
def test_submitting_from_a_task_fails_with_the_way_out(in_limited: Client, task: Callable[[], Any]) -> None:
    with pytest.raises(PermissionError, match=r"submit work \(update-graph\).*scheduler='threads'.*CLIENTS=allow"):
        run(in_limited, task)


@pytest.mark.parametrize("task", HANDS_ON_FUTURES)
def test_a_future_of_nothing_is_not_waited_for(in_limited: Client, task: Callable[[], Any]) -> None:
    with pytest.raises(PermissionError, match=r"_(set|put)' of the future 'sum-\w+', whose submission was refused"):
        run(in_limited, task)


@pytest.mark.parametrize("task", ACTS_AS_CLIENT)
def test_other_client_operations_fail_by_name(in_limited: Client, task: Callable[[], Any]) -> None:
    with pytest.raises(PermissionError, match=r"act as a client \(\w+\).*DASKPKI_WORKER_CLIENTS=limited"):
        run(in_limited, task)


def test_seceding_needs_no_client(in_limited: Client) -> None:
    assert run(in_limited, tasks.secede_and_rejoin) == 3


def test_the_way_out_works(in_limited: Client) -> None:
    assert run(in_limited, tasks.nested_compute_in_threads) == 3


def test_coordination_works(in_limited: Client) -> None:
    assert run(in_limited, tasks.coordinate) == [True, 3, 4]


def test_actor_handles_work_in_tasks(in_limited: Client) -> None:
    with in_limited.as_current():  # an actor finds its client by that
        counter = in_limited.submit(tasks.Counter, actor=True).result(timeout=30)
        assert counter.increment().result() == 1  # type: ignore[attr-defined]  # the actor's proxy, not the class
    assert run(in_limited, tasks.use_actor, counter) == 2


@pytest.mark.parametrize("task", [*SUBMITS, *SUBMITS_OTHERWISE, *HANDS_ON_FUTURES, *ACTS_AS_CLIENT, tasks.coordinate])
def test_deny_refuses_every_client(in_deny: Client, task: Callable[[], Any]) -> None:
    with pytest.raises(PermissionError, match=r"DASKPKI_WORKER_CLIENTS=deny"):
        run(in_deny, task)


@pytest.mark.parametrize("task", [*SUBMITS, *HANDS_ON_FUTURES, tasks.nested_progress, tasks.nested_retry])
def test_allow_lets_tasks_submit(in_allow: Client, task: Callable[[], Any]) -> None:
    assert run(in_allow, task) == 3


def test_allow_says_what_it_means(allow: Cluster) -> None:
    assert "a worker's certificate may run code on the scheduler" in allow.scheduler.drain()


@pytest.mark.long
def test_a_worker_that_was_started_in_another_mode_is_not_lost(
    authority: Authority, limited: Cluster, in_limited: Client, tmp_path: Path
) -> None:
    """Started with `allow` where the scheduler says `limited`: it goes by what the scheduler announces."""
    environ = node_environment(authority, authority.leaf(Role.WORKER), tmp_path, "allow")
    arguments = ["worker", limited.address, "--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    node = Node([*arguments, *PRELOADS[Role.WORKER]], environ)
    node.wait_for(STARTED["worker"])
    address = node.wait_for(re.compile(r"Start worker at:\s+(tls://\S+)")).group(1)

    def there(task: Callable[..., Any], *arguments: Any) -> Any:
        return in_limited.submit(task, *arguments, workers=[address], pure=False).result(timeout=30)

    assert there(tasks.in_metadata, "number") == "done"
    with pytest.raises(PermissionError, match="would send"):
        there(tasks.in_metadata, "array")
    with pytest.raises(PermissionError, match="DASKPKI_WORKER_CLIENTS=limited"):
        there(tasks.nested_submit)
    assert address in workers(in_limited)
    node.stop()


class TestTheGateCostsNoWorker:
    @pytest.fixture(autouse=True)
    def _same_workers(self, in_limited: Client) -> Iterator[None]:
        before = workers(in_limited)
        yield
        assert workers(in_limited) == before

    def test_a_size_of_numpy(self, in_limited: Client) -> None:
        future = in_limited.submit(tasks.make_measured, pure=False)
        assert type(future.result(timeout=30)).__name__ == "Measured"
        assert set(in_limited.nbytes(summary=False).values()) >= {77}

    def test_numbers_of_numpy_become_pythons(self, in_limited: Client) -> None:
        assert run(in_limited, tasks.queue_number) == 3
        assert run(in_limited, tasks.in_metadata, "number") == "done"

    def test_an_array_in_a_queue_raises_in_the_task(self, in_limited: Client) -> None:
        with pytest.raises(PermissionError, match=r"'queue_put' would send numpy\.ndarray"):
            run(in_limited, tasks.queue_array)

    @pytest.mark.parametrize(
        ("what", "named"),
        [
            ("array", r"numpy\.ndarray"),
            ("enum", r"\S+Colour"),
            ("object", r"\S+Measured"),
            ("key", r"builtins\.frozenset"),
            ("cycle", r"builtins\.list \(within itself"),
            ("nested", r"builtins\.list \(.*too deep"),
            ("integer", r"builtins\.int"),
            ("surrogate", r"builtins\.str"),
            ("surrogate key", r"builtins\.str"),
        ],
    )
    def test_metadata_that_cannot_travel_fails_that_task_only(self, in_limited: Client, what: str, named: str) -> None:
        with pytest.raises(PermissionError, match=f"'task-finished' would send {named}"):
            run(in_limited, tasks.in_metadata, what)
        assert run(in_limited, tasks.nested_compute_in_threads) == 3

    def test_metadata_of_every_plain_type_travels(self, in_limited: Client) -> None:
        assert run(in_limited, tasks.in_metadata, "plain") == "done"

    def test_an_error_whose_text_cannot_travel_arrives(self, in_limited: Client) -> None:
        with pytest.raises(tasks.UnspeakableError):
            run(in_limited, tasks.unspeakable_error)

    def test_events_and_metrics_go_as_text(self, in_limited: Client) -> None:
        addresses = [run(in_limited, tasks.in_metrics, what) for what in tasks.MAKES]
        for what in tasks.MAKES:
            run(in_limited, tasks.in_event, what)

        async def heartbeat(dask_worker: Any) -> None:
            await dask_worker.heartbeat()

        in_limited.run(heartbeat)
        infos = in_limited.scheduler_info(n_workers=-1)["workers"]
        metrics: dict[str, Any] = {}
        for address in set(addresses):
            metrics |= infos[address]["metrics"]
        assert metrics["number"] == 0.5
        assert metrics["array"] == "array([0, 1, 2])"
        assert metrics["integer"] == float(2**80)
        assert metrics["surrogate"] == r"'\ud800'"
        events = [message for _, message in in_limited.get_events("odd")]
        assert "array([0, 1, 2])" in events
        assert len(events) == len(tasks.MAKES)


@pytest.mark.parametrize("what", sample(["cycle", "nested", "integer", "surrogate"], one_of=4))
def test_control_stock_dask_loses_the_worker(authority: Authority, tmp_path: Path, what: str) -> None:
    security = stock_security(authority, authority.leaf(Role.WORKER), tmp_path)
    options: dict[str, Any] = {"n_workers": 1, "processes": False, "dashboard_address": None}
    with LocalCluster(security=security, **options) as running, Client(running, set_as_default=False) as client:
        future = client.submit(tasks.in_metadata, what, pure=False)
        running.sync(running.workers[0].finished, callback_timeout=60)
        assert not future.done()


def workers(client: Client) -> dict[str, str]:
    """Addresses and server ids: the same after a restart they would not be."""
    return {address: info["id"] for address, info in client.scheduler_info(n_workers=-1)["workers"].items()}
