"""What people use works on a sealed scheduler, with stock clients and workers; what is code is an admin's."""

from __future__ import annotations

import operator
import os
import pickle
import ssl
import zipfile
from collections.abc import Callable, Iterator
from operator import add
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from dask import array
from dask.base import annotate
from distributed import Client, Queue, Variable, performance_report
from distributed.comm.addressing import get_address_host_port
from distributed.diagnostics.progressbar import MultiProgressBar, TextProgressBar

from daskpki.cluster.tls import client_context
from daskpki.doctor.scheduler import check_code, dial
from daskpki.handover import SEALED
from daskpki.identity import Role
from daskpki.pki.profile import Grade
from tests.support import tasks
from tests.support.cluster_material import Authority, stock_security
from tests.support.nodes import Cluster
from tests.support.tasks import HANDS_ON_FUTURES, SUBMITS
from tests.support.work import Installs, Watches, managing, measured, nested, under_worker_client

pytestmark = pytest.mark.cluster

Connect = Callable[[str], Client]


@pytest.fixture
def alice(connect: Connect) -> Client:
    return connect("alice")


@pytest.fixture
def admin(authority: Authority, sealed: Cluster, tmp_path: Path) -> Iterator[Client]:
    leaf = authority.leaf(Role.CLIENT, "ops", grades=(Grade.ADMIN,))
    security = stock_security(authority, leaf, tmp_path / "ops")
    with Client(sealed.address, security=security, set_as_default=False) as client:
        yield client


@pytest.mark.long
@pytest.mark.every_version
def test_arrays_dataframes_and_p2p(alice: Client) -> None:
    import pandas as pd
    from dask import dataframe

    numbers = array.arange(400, chunks=40).reshape(20, 20)
    assert alice.compute(numbers.sum()).result(timeout=60) == 79800
    moved = array.ones((40, 40), chunks=(40, 5)).rechunk((5, 40), method="p2p")
    assert alice.compute(moved.sum()).result(timeout=60) == 1600
    frame = dataframe.from_pandas(pd.DataFrame({"a": range(100), "b": range(100)}), npartitions=5)
    with dask.config.set({"dataframe.shuffle.method": "p2p"}):
        assert len(alice.compute(frame.shuffle("a")).result(timeout=60)) == 100
        assert len(alice.compute(frame.merge(frame, on="a")).result(timeout=60)) == 100


@pytest.mark.every_version
def test_annotations_count_also_those_that_are_functions(alice: Client) -> None:
    here = next(iter(alice.scheduler_info()["workers"]))
    with annotate(priority=len, retries=2):
        results = alice.map(add, range(3), range(3), workers=[here], allow_other_workers=False)
    assert alice.gather(results) == [0, 2, 4]
    assert {tuple(where) for where in alice.who_has(results).values()} == {(here,)}


@pytest.mark.every_version
def test_queues_and_variables_carry_what_only_clients_open(alice: Client, connect: Connect) -> None:
    queue, variable = Queue("q", client=alice), Variable("v", client=alice)
    queue.put(np.arange(3))
    variable.set({1, 2})
    bob = connect("bob")
    assert Queue("q", client=bob).get(timeout=10).tolist() == [0, 1, 2]
    assert Variable("v", client=bob).get(timeout=10) == {1, 2}
    alice.publish_dataset(x=alice.submit(add, 1, 2))
    assert bob.get_dataset("x").result(timeout=30) == 3
    alice.unpublish_dataset("x")


def test_an_error_of_a_task_and_of_a_graph_are_told(alice: Client) -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        alice.submit(add, 1, "x").result(timeout=30)
    with pytest.raises(RuntimeError, match="Cycle detected"):
        alice.get({"x": (add, "y", 1), "y": (add, "x", 1)}, "x")


class Quiet(MultiProgressBar):
    """Draws nothing."""

    def _draw_bar(self, **_shown: Any) -> None:
        """See ProgressWidget."""


@pytest.mark.every_version
def test_progress_bars_show_what_the_scheduler_knows(alice: Client, sealed: Cluster) -> None:
    futures = alice.map(add, range(10), range(10))
    bar = TextProgressBar(futures, scheduler=sealed.address, start=False)
    alice.sync(bar.listen)
    assert (bar.status, bar._last_response["remaining"]) == ("finished", 0)
    grouped = Quiet(futures, scheduler=sealed.address)
    alice.sync(grouped.listen)
    assert grouped._last_response["all"] == {"add": 10}


def test_a_performance_report_is_written(alice: Client, tmp_path: Path) -> None:
    with alice.as_current(), performance_report(str(tmp_path / "report.html")):
        alice.submit(add, 1, 5).result(timeout=30)
    assert "Dask Performance Report" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("who", ["alice", "admin"])
@pytest.mark.parametrize("packed", [False, True])
def test_an_uploaded_module_is_imported_by_workers_and_graphs(
    request: pytest.FixtureRequest, who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, packed: bool
) -> None:
    client: Client = request.getfixturevalue(who)
    name = f"{who}_{'zip' if packed else 'py'}"
    source = "class Thing:\n    def __init__(self, x): self.x = x\ndef double(thing): return Thing(thing.x * 2)\n"
    path = tmp_path / f"{name}.py"
    path.write_text(source)
    sent = path
    if packed:
        sent = tmp_path / f"{name}.zip"
        with zipfile.ZipFile(sent, "w") as archive:
            archive.write(path, f"{name}.py")
    client.upload_file(str(sent))
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__(name)
    assert client.submit(module.double, module.Thing(4)).result(timeout=60).x == 8
    assert who == "alice" or client.run_on_scheduler(__import__, name), "an admin's code in the scheduler finds it"


@pytest.mark.every_version
def test_an_install_plugin_runs_on_workers_and_not_in_the_scheduler(
    alice: Client, sealed: Cluster, tmp_path: Path
) -> None:
    alice.register_plugin(Installs(tmp_path))
    ran = {int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()}
    assert len(ran) == 2
    assert sealed.scheduler.process.pid not in ran


REFUSED: dict[str, Callable[[Client], Any]] = {
    "run_function": lambda client: client.run_on_scheduler(os.getpid),
    "register_scheduler_plugin": lambda client: client.register_plugin(Watches()),
    "dump_cluster_state_to_url": lambda client: client.dump_cluster_state("file:///tmp/daskpki-dump"),
    "unregister_scheduler_plugin": lambda client: client.unregister_scheduler_plugin("shuffle"),
    "feed": lambda client: client.sync(getattr(client.scheduler, "feed"), function=pickle.dumps(len), interval="1s"),  # noqa: B009 - a call over the wire
    "retire_workers": lambda client: client.retire_workers(n=0, key=len),
}


@pytest.mark.parametrize("operation", REFUSED)
def test_what_is_code_takes_an_admin(operation: str, alice: Client) -> None:
    with pytest.raises(PermissionError, match=rf"{operation}.*grade admin.*client/alice has none"):
        REFUSED[operation](alice)


@pytest.mark.every_version
def test_an_admin_runs_code_in_the_scheduler(admin: Client, sealed: Cluster) -> None:
    assert admin.run_on_scheduler(os.getpid) == sealed.scheduler.process.pid
    admin.register_plugin(Watches())
    assert admin.run_on_scheduler(lambda dask_scheduler: "watches" in dask_scheduler.plugins)
    admin.unregister_scheduler_plugin("watches")
    assert admin.retire_workers(n=0, key=operator.attrgetter("host")) == {}


MANAGES = (
    *("restart", "terminate", "broadcast", "retire_workers", "register_worker_plugin", "register_scheduler_plugin"),
    *("run_function", "get_cluster_state", "publish_list", "publish_get", "publish_put", "publish_delete"),
)


@pytest.mark.parametrize("task", [*SUBMITS, *HANDS_ON_FUTURES])
def test_a_task_submits_in_every_way(task: Callable[[], Any], alice: Client) -> None:
    assert alice.submit(task, pure=False).result(timeout=60) == 3


@pytest.mark.every_version
def test_a_task_may_submit_and_not_manage(alice: Client) -> None:
    assert alice.submit(nested, 1).result(timeout=60) == 2
    assert alice.submit(under_worker_client, 5).result(timeout=60) == 20
    assert alice.submit(tasks.nested_in_joblib).result(timeout=60) == [0, 1, 2, 3]
    for operation in MANAGES:
        assert f"{operation!r} is refused" in alice.submit(managing, operation).result(timeout=30)


def test_what_its_helpers_do_is_counted(alice: Client, admin: Client) -> None:
    before = admin.run_on_scheduler(measured)
    with pytest.raises(RuntimeError, match="Cycle detected"):
        alice.get({"x": (add, "y", 1), "y": (add, "x", 1)}, "x")
    with pytest.raises(PermissionError):
        alice.run_on_scheduler(os.getpid)
    after = admin.run_on_scheduler(measured)
    grown = {name for name, value in after.items() if value > before[name]}
    assert {"graphs", "refused", "seconds"} <= grown
    assert 1 <= after["helpers"] <= 2
    assert after["memory_bytes"] > 10_000_000
    assert after["pickles_refused"] == before["pickles_refused"]


def test_a_sealed_scheduler_says_so_to_the_doctor(authority: Authority, sealed: Cluster) -> None:
    host, port = get_address_host_port(sealed.address)
    context = client_context(authority.leaf(Role.CLIENT, "alice").pair, (authority.der,), ssl.TLSVersion.TLSv1_3)
    dialled = dial(host, port, context)
    assert (dialled.mode, dialled.code) == ("submit", SEALED)
    (finding,) = check_code(sealed.address, dialled)
    assert (finding.severity, finding.reason) == (
        "ok", "scheduler code sealed: confined helpers open what clients submit",
    )  # fmt: skip


def test_the_scheduler_cannot_be_read_by_processes_of_its_user(sealed: Cluster) -> None:
    status = Path(f"/proc/{sealed.scheduler.process.pid}")
    assert status.joinpath("environ").stat().st_uid == 0
    assert "sealed: clients' graphs are opened by helpers" in sealed.scheduler.drain()
