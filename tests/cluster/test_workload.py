"""What users do every day runs unharmed under enforcement: clusters of processes, in the default mode `limited`.

By day the scheduler is a sealed one, whose client is of grade admin, since some of what is tried is code by nature; in
long runs a stock one as well.
"""

from __future__ import annotations

import asyncio
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import joblib
import numpy as np
import pytest
from distributed import (
    Client,
    Environ,
    Event,
    Lock,
    MultiLock,
    PipInstall,
    Queue,
    SchedulerPlugin,
    Semaphore,
    UploadDirectory,
    Variable,
    WorkerPlugin,
    as_completed,
    fire_and_forget,
    get_task_stream,
    performance_report,
    span,
    wait,
)
from distributed import print as dask_print
from distributed import warn as dask_warn
from distributed.diagnostics.memory_sampler import MemorySampler
from distributed.diagnostics.plugin import InstallPlugin

from daskpki.cluster.security import client_security
from daskpki.identity import Role
from daskpki.pki.profile import Grade
from tests.support import tasks
from tests.support.cluster_material import Authority
from tests.support.nightly import by_day
from tests.support.nodes import Cluster, cluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", params=by_day(["sealed"], night=["stock", "sealed"]))
def working(
    request: pytest.FixtureRequest, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    with cluster(authority, tmp_path_factory.mktemp("working"), "limited", code=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def client(authority: Authority, working: Cluster) -> Iterator[Client]:
    grades = (Grade.ADMIN,) if working.code == "sealed" else ()
    leaf = authority.leaf(Role.CLIENT, "alice", grades=grades)
    security = client_security(leaf.credential, authority.document())
    with Client(working.address, security=security) as client:
        yield client


@pytest.fixture(autouse=True)
def _nothing_is_refused(working: Cluster) -> Iterator[None]:
    """No honest message is ever refused, and nobody is lost."""
    before = working.scheduler.drain().count('"refused"') + working.workers.drain().count('"refused"')
    yield
    after = working.scheduler.drain().count('"refused"') + working.workers.drain().count('"refused"')
    assert after == before, working.scheduler.log + working.workers.log


def test_submit_map_gather(client: Client) -> None:
    squares = client.map(lambda x: x**2, range(500))
    assert client.submit(sum, squares).result(timeout=30) == sum(x**2 for x in range(500))
    assert client.gather(squares[:3]) == [0, 1, 4]
    assert sorted(future.result() for future in as_completed(squares[:5])) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("direct", [True, False])
def test_scatter_and_gather(client: Client, direct: bool) -> None:  # noqa: FBT001
    data = np.arange(2_000_000)
    future = client.scatter(data, direct=direct, broadcast=True)
    assert np.array_equal(client.gather(future, direct=direct), data)


def test_large_graphs_and_results(client: Client) -> None:
    """Beyond 10 MB, where messages are decoded in a thread."""
    blob = client.submit(lambda data: data + b"!", b"x" * 12_000_000)
    assert len(blob.result(timeout=60)) == 12_000_001


def test_transfers_between_workers(client: Client) -> None:
    first, second = client.scheduler_info(n_workers=-1)["workers"]
    parts = [client.submit(np.ones, 500_000, workers=[address], pure=False) for address in (first, second)]
    assert client.submit(lambda x, y: float((x + y).sum()), *parts).result(timeout=30) == 1_000_000


def test_errors_of_tasks_arrive_as_they_are(client: Client) -> None:
    with pytest.raises(ZeroDivisionError):
        client.submit(lambda: 1 / 0).result(timeout=30)
    failed = client.submit(lambda: 1 / 0, pure=False)
    wait(failed, timeout=30)
    failed.retry()
    assert failed.exception(timeout=30) is not None


def test_arrays(client: Client) -> None:
    import dask.array as da

    x = da.random.random((1000, 1000), chunks=(100, 1000))
    assert client.compute((x + x.T).mean()).result(timeout=60) == pytest.approx(1, abs=0.05)
    with dask.config.set({"array.rechunk.method": "p2p"}):
        assert client.compute(x.rechunk((1000, 100)).sum()).result(timeout=60) > 0


def test_dataframes_shuffled_between_workers(client: Client) -> None:
    import dask.dataframe as dd
    import pandas as pd

    frame = pd.DataFrame({"key": np.arange(5000) % 50, "value": 1.0})
    shuffled = dd.from_pandas(frame, npartitions=10).shuffle("key", shuffle_method="p2p")
    assert float(client.compute(shuffled.groupby("key").value.sum().sum()).result(timeout=60)) == 5000


def test_actors(client: Client) -> None:
    counter: Any = client.submit(tasks.Counter, actor=True).result(timeout=30)
    assert [counter.increment().result() for _ in range(3)] == [1, 2, 3]
    assert counter.n == 3


def test_coordination_from_the_client(client: Client) -> None:
    Event("e").set()
    Variable("v").set(client.submit(sum, [1, 2]))
    queue = Queue("q")
    queue.put(client.submit(sum, [3, 4]))
    with Lock("l"), Semaphore(name="s", max_leases=1), MultiLock(["m"]):
        assert Event("e").wait(1)
        assert Variable("v").get(timeout=10).result(timeout=10) == 3
        assert queue.get(timeout=10).result(timeout=10) == 7


def test_coordination_of_futures_between_tasks(client: Client) -> None:
    assert client.submit(tasks.coordinate, pure=False).result(timeout=30) == [True, 3, 4]


def test_published_datasets(client: Client) -> None:
    future = client.submit(sum, [1, 2])
    client.publish_dataset(kept=future)
    assert client.get_dataset("kept").result(timeout=30) == 3
    client.unpublish_dataset("kept")


def test_run_everywhere(client: Client) -> None:
    assert set(client.run(lambda: 1).values()) == {1}
    assert set(client.run(lambda: 2, nanny=True).values()) == {2}
    assert client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.workers)) == 2

    async def number() -> int:
        await asyncio.sleep(0)
        return 3

    assert set(client.run(number).values()) == {3}


class Setup(WorkerPlugin):
    name = "daskpki-test"

    def setup(self, worker: Any) -> None:
        worker.daskpki_test = "was here"


class Fails(WorkerPlugin):
    name = "daskpki-fails"

    def setup(self, worker: Any) -> None:
        raise KeyError(worker.name)


class Counting(SchedulerPlugin):
    name = "daskpki-counting"


def test_plugins(client: Client) -> None:
    client.register_plugin(Setup())
    assert set(client.run(lambda dask_worker: dask_worker.daskpki_test).values()) == {"was here"}
    client.unregister_worker_plugin("daskpki-test")
    client.register_plugin(Counting())
    client.register_plugin(InstallPlugin(print, restart_workers=False))  # by the workers; PipInstall below by nannies
    with pytest.raises(KeyError):
        client.register_plugin(Fails())
    client.unregister_worker_plugin("daskpki-fails")


def make_wheel(directory: Path) -> Path:
    """A package of one module (PEP 427)."""
    about = "daskpki_installed-1.dist-info"
    files = {
        "daskpki_installed.py": "ANSWER = 44\n",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: daskpki-installed\nVersion: 1\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: daskpki\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    recorded = "".join(f"{name},,\n" for name in [*files, f"{about}/RECORD"])
    wheel = directory / "daskpki_installed-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in {**files, f"{about}/RECORD": recorded}.items():
            archive.writestr(name, content)
    return wheel


@pytest.mark.long
def test_packages_installed_by_pip(client: Client, working: Cluster, tmp_path: Path) -> None:
    """On the scheduler and by each nanny, which then restarts its worker; not into the environment of these tests."""
    target = str(tmp_path / "installed")
    options = ["--no-index", "--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--target", target]
    said = "pip installing the following packages"
    before = working.scheduler.drain().count(said), working.workers.drain().count(said)
    before_restart = workers(client)
    plugin = PipInstall([str(make_wheel(tmp_path))], [*options, "--upgrade"], restart_workers=True)
    client.register_plugin(plugin)
    client.wait_for_workers(2, timeout=60)
    assert (working.scheduler.drain().count(said), working.workers.drain().count(said)) == (
        before[0] + 1,
        before[1] + 2,
    )
    assert not before_restart & workers(client)

    def answer() -> int:
        sys.path.insert(0, target)
        import daskpki_installed  # type: ignore[import-not-found]

        return int(daskpki_installed.ANSWER)

    assert client.submit(answer, pure=False).result(timeout=30) == 44
    client.unregister_scheduler_plugin(plugin.name)
    with pytest.raises(RuntimeError, match="pip install failed"):
        client.register_plugin(PipInstall([str(tmp_path / "absent.whl")], options))


def workers(client: Client) -> set[str]:
    """Server ids: after a restart they are others."""
    return {info["id"] for info in client.scheduler_info(n_workers=-1)["workers"].values()}


def test_files_reach_the_workers(client: Client, tmp_path: Path) -> None:
    (module := tmp_path / "uploaded_module.py").write_text("ANSWER = 42\n")
    client.upload_file(str(module))
    (tmp_path / "uploaded_directory").mkdir()
    (tmp_path / "uploaded_directory" / "__init__.py").write_text("ANSWER = 43\n")
    client.register_plugin(UploadDirectory(str(tmp_path / "uploaded_directory"), update_path=True))

    def answer() -> int:
        import uploaded_module  # type: ignore[import-not-found]

        return int(uploaded_module.ANSWER)

    assert client.submit(answer).result(timeout=30) == 42


def test_what_the_client_asks_the_scheduler(client: Client) -> None:
    with get_task_stream(client=client) as stream, span("daskpki"):
        future = client.submit(sum, [1, 2], pure=False)
        assert future.result(timeout=30) == 3
    assert stream.data
    assert client.who_has(future)
    assert client.has_what()
    assert client.ncores()
    assert client.nbytes()
    assert client.processing() is not None
    assert client.call_stack() is not None
    assert client.profile() is not None
    assert client.get_scheduler_logs()
    assert client.get_worker_logs()
    assert client.get_versions(check=True)
    client.log_event("topic", {"a": 1})
    assert client.get_events("topic")
    client.set_metadata(["a"], 1)
    assert client.get_metadata(["a"]) == 1
    client.rebalance()
    client.replicate([future])
    client.amm.start()
    assert client.amm.running()
    client.amm.stop()


@pytest.mark.long
def test_performance_report(client: Client, tmp_path: Path) -> None:
    with performance_report(filename=str(tmp_path / "report.html")):
        client.submit(sum, [1, 2], pure=False).result(timeout=30)
    assert "Dask Performance Report" in (tmp_path / "report.html").read_text()


def test_idle_workers_steal(client: Client) -> None:
    address, *_ = client.scheduler_info(n_workers=-1)["workers"]
    start = client.submit(abs, 1, workers=[address], pure=False)  # where the others come to lie
    slow = client.map(lambda n, _start: Event(f"never-{n}").wait(0.2), range(30), _start=start, pure=False)
    wait(slow, timeout=60)
    assert len({worker for workers in client.who_has(slow).values() for worker in workers}) == 2


def test_memory_sampler(client: Client) -> None:
    sampler = MemorySampler()
    with sampler.sample("x", interval=0.05):
        wait(client.map(lambda x: np.ones(1000) * x, range(20), pure=False), timeout=30)
    assert "x" in sampler.samples


def test_prints_and_warnings_of_tasks_reach_the_client(client: Client) -> None:
    seen = Event("printed")

    def speak() -> None:
        dask_print("from a task")
        dask_warn("from a task")
        Event("printed").set()

    client.submit(speak, pure=False).result(timeout=30)
    assert seen.wait(10)
    assert client.get_events("print")
    assert client.get_events("warn")


def test_joblib(client: Client) -> None:
    with joblib.parallel_backend("dask", client=client):
        assert joblib.Parallel()(joblib.delayed(pow)(n, 2) for n in range(20)) == [n**2 for n in range(20)]


@pytest.mark.long
def test_xgboost(client: Client) -> None:
    """Its collectives open sockets of their own between the workers, and to a tracker on this machine."""
    import dask.array as da
    import xgboost
    import xgboost.dask

    frame = np.arange(200.0).reshape(100, 2)
    data, labels = da.from_array(frame, chunks=(50, 2)), da.from_array(frame[:, 0] > 100, chunks=50)
    tracker = xgboost.collective.Config(tracker_host_ip="127.0.0.1")
    matrix = xgboost.dask.DaskDMatrix(client, data, labels)
    trained = xgboost.dask.train(client, {"objective": "binary:logistic"}, matrix, 3, coll_cfg=tracker)
    predicted = xgboost.dask.predict(client, trained, data).compute()
    assert np.array_equal(predicted > 0.5, frame[:, 0] > 100)


def test_adaptive_scaling_asks_what_it_needs(client: Client) -> None:
    scheduler: Any = client.scheduler
    assert client.sync(scheduler.adaptive_target) >= 0
    assert isinstance(client.sync(scheduler.workers_to_close, n=0), (list, tuple))


def test_cancelling(client: Client) -> None:
    blocked = client.submit(lambda: Event("never").wait(30), pure=False)
    client.cancel([blocked])
    assert blocked.cancelled()
    Event("never").set()


def test_what_is_fired_and_forgotten_is_done(client: Client) -> None:
    done, go = Event("done"), Event("go")
    future = client.submit(lambda: go.wait(30) and done.set(), pure=False)
    fire_and_forget(future)
    del future  # would cancel it
    assert client.submit(sum, [1, 2], pure=False).result(timeout=60) == 3
    go.set()
    assert done.wait(30)


@pytest.mark.long
def test_workers_that_are_killed_come_back(client: Client, tmp_path: Path) -> None:
    assert client.submit(tasks.die_once, str(tmp_path / "died"), pure=False).result(timeout=60) == "alive"
    client.wait_for_workers(2, timeout=60)
    client.restart()
    assert client.submit(sum, [1, 2], pure=False).result(timeout=60) == 3
    client.register_plugin(Environ({"DASKPKI_TEST": "1"}))
    client.wait_for_workers(2, timeout=60)  # its nannies have restarted them
    values = client.run(lambda: os.environ.get("DASKPKI_TEST"))
    assert set(values.values()) == {"1"}


@pytest.mark.long
def test_retiring(client: Client) -> None:
    first, *_ = client.scheduler_info(n_workers=-1)["workers"]
    kept = client.submit(sum, [5, 6], workers=[first], allow_other_workers=True, pure=False)
    wait(kept, timeout=30)
    client.retire_workers([first], close_workers=False, remove=True)
    assert kept.result(timeout=30) == 11
