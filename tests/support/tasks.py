"""What users' tasks do on workers. Imported there."""

from __future__ import annotations

import concurrent.futures
import os
import signal
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import dask.array as da
import dask.bag as db
import joblib
import numpy as np
from dask.delayed import delayed
from dask.sizeof import sizeof
from distributed import (
    Event,
    Lock,
    Queue,
    Semaphore,
    Variable,
    as_completed,
    fire_and_forget,
    get_client,
    get_task_stream,
    get_worker,
    performance_report,
    progress,
    rejoin,
    secede,
    wait,
    worker_client,
)


class Measured:
    """An object of a third party whose size is a numpy number."""


def size_of_measured(_value: Measured) -> Any:
    return np.int64(77)


sizeof.register(Measured, size_of_measured)


def make_measured() -> Measured:
    return Measured()


def nested_submit() -> int:
    return int(get_client().submit(sum, [1, 2]).result())


def nested_worker_client() -> int:
    with worker_client() as client:
        return int(client.submit(sum, [1, 2]).result())


def nested_as_completed() -> int:
    client = get_client()
    return sum(future.result() for future in as_completed(client.map(abs, [1, -2])))


def nested_after_seceding() -> int:
    secede()
    result = int(get_client().submit(sum, [1, 2]).result())
    rejoin()
    return result


def secede_and_rejoin() -> int:
    secede()
    rejoin()
    return 3


def die_once(path: str) -> str:
    """Kills its worker, and does not the next time."""
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return "alive"
    os.kill(os.getpid(), signal.SIGKILL)
    return "dead"


def nested_compute() -> int:
    return int(delayed(sum)([1, 2]).compute())


def nested_compute_in_threads() -> int:
    return int(delayed(sum)([1, 2]).compute(scheduler="threads"))


async def nested_in_a_coroutine() -> int:
    client = get_worker()._get_client()
    return int(await client.submit(sum, [1, 2]))


async def nested_in_a_coroutines_queue() -> int:
    client = get_worker()._get_client()
    queue = await Queue("of a coroutine", client=client)
    await queue.put(client.submit(sum, [1, 2]))
    return int(await (await queue.get()))


def nested_in_joblib() -> list[int]:
    with joblib.parallel_config("dask"):
        return list(joblib.Parallel()(joblib.delayed(abs)(number) for number in range(4)))


def nested_in_joblib_with_data() -> list[int]:
    data = list(range(1000))
    with joblib.parallel_config("dask", scatter=[data]):
        return list(joblib.Parallel()(joblib.delayed(len)(data) for _ in range(4)))


def nested_executor() -> int:
    with get_client().get_executor() as executor:
        return int(executor.submit(sum, [1, 2]).result())


def nested_executors_map() -> list[int]:
    with get_client().get_executor() as executor:
        return list(executor.map(abs, [1, -2]))


def nested_done_callback() -> Any:
    done: concurrent.futures.Future[Any] = concurrent.futures.Future()
    get_client().submit(sum, [1, 2]).add_done_callback(done.set_result)
    return done.result().result()


def nested_wait() -> Any:
    future = get_client().submit(sum, [1, 2])
    wait(future)
    return future.result()


def nested_exception() -> int:
    error = get_client().submit(sum, [1, 2]).exception()
    if error is not None:
        raise error
    return 3


def nested_progress() -> Any:
    future = get_client().submit(sum, [1, 2])
    progress(future, notebook=False)
    return future.result()


def nested_gather() -> Any:
    client = get_client()
    return client.gather(client.map(abs, [1, -2]))


def nested_results_in_order() -> Any:
    client = get_client()
    futures = as_completed(client.map(abs, [1, -2]), with_results=True, raise_errors=True)
    return [result for _future, result in futures]


def nested_get() -> Any:
    return get_client().get({"x": (sum, [1, 2])}, "x")


def nested_client_compute() -> Any:
    return get_client().compute(delayed(sum)([1, 2]), sync=True)


def nested_persist() -> Any:
    return delayed(sum)([1, 2]).persist().compute()


def nested_array() -> Any:
    return np.asarray(da.ones(4, chunks=2).sum())


def nested_bag() -> Any:
    return db.from_sequence([1, 2], npartitions=2).sum().compute(scheduler="distributed")


def nested_actor() -> Any:
    counter: Any = get_client().submit(Counter, actor=True).result()
    return counter.increment().result()


def nested_in_a_queue() -> Any:
    Queue("futures").put(get_client().submit(sum, [1, 2]))
    return Queue("futures").get().result()


def nested_in_a_variable() -> Any:
    Variable("future").set(get_client().submit(sum, [1, 2]))
    return Variable("future").get().result()


def nested_dataset() -> Any:
    get_client().publish_dataset(nested=get_client().submit(sum, [1, 2]))


def nested_retry() -> Any:
    future = get_client().submit(sum, [1, 2])
    wait(future)
    future.retry()
    return future.result()


def nested_cancelled() -> Any:
    future = get_client().submit(sum, [1, 2])
    wait(future)
    error = future.exception()
    future.cancel()
    if error is not None:
        raise error
    return 3


def nested_fire_and_forget() -> Any:
    future = get_client().submit(sum, [1, 2])
    fire_and_forget(future)
    return future.result()


def nested_chain() -> Any:
    client = get_client()
    first = client.submit(sum, [1, 2])
    return client.submit(abs, first).result()


def run_everywhere() -> Any:
    return get_client().run(os.getpid)


def rebalance() -> Any:
    return get_client().rebalance()


def count_threads() -> Any:
    return get_client().nthreads()


def watch_tasks() -> Any:
    with get_task_stream(client=get_client()) as stream:
        pass
    return stream.data


def report_performance() -> Any:
    with performance_report(filename=os.devnull):
        pass


def send_file() -> Any:
    return get_client().upload_file(__file__)


def scatter() -> int:
    return len(get_client().scatter([1, 2]))


def run_on_scheduler() -> Any:
    return get_client().run_on_scheduler(sum, [1, 2])


def read_dataset() -> Any:
    return get_client().get_dataset("published")


def coordinate() -> list[Any]:
    Event("event").set()
    Variable("variable").set(3)
    Queue("queue").put(4)
    with Lock("lock"), Semaphore(name="semaphore", max_leases=2):
        return [Event("event").is_set(), Variable("variable").get(), Queue("queue").get()]


def queue_array() -> None:
    Queue("arrays").put(np.arange(3))


def queue_number() -> int:
    Queue("numbers").put(np.int64(3))
    return int(Queue("numbers").get())


class Colour(Enum):
    RED = 1


class UnspeakableError(Exception):
    """Nothing carries its text."""

    def __repr__(self) -> str:
        return "\ud800"


def cycle() -> list[Any]:
    own: list[Any] = []
    own.extend([own, own])
    return own


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


MAKES: dict[str, Callable[[], Any]] = {
    "array": lambda: np.arange(3),
    "enum": lambda: Colour.RED,
    "object": Measured,
    "key": lambda: {frozenset({1}): 1},
    "cycle": cycle,
    "nested": lambda: nested(5000),
    "integer": lambda: 2**80,
    "surrogate": lambda: "\ud800",
    "surrogate key": lambda: {"\udfff": 1},
    "number": lambda: np.float32(0.5),
    "plain": lambda: [float("nan"), bytearray(b"x"), memoryview(b"x"), {(1, "a"): None, None: {1, 2}, 2.5: nested(50)}],
}
"""What a task may come to put where Dask wants plain data."""


def in_metadata(what: str) -> str:
    for state in get_worker().state.tasks.values():
        state.metadata[what] = MAKES[what]()
    return "done"


def in_metrics(what: str) -> str:
    worker = get_worker()
    worker.metrics[what] = lambda _worker: MAKES[what]()
    return str(worker.address)


def in_event(what: str) -> str:
    worker = get_worker()
    worker.batched_send({"op": "log-event", "topic": "odd", "msg": MAKES[what]()})
    return "done"


def unspeakable_error() -> None:
    raise UnspeakableError


class Counter:
    """An actor."""

    n = 0

    def increment(self) -> int:
        self.n += 1
        return self.n


def use_actor(counter: Any) -> int:
    return int(counter.increment().result())


def log_long_event(size: int) -> None:
    get_worker().log_event("long", "x" * size)


SUBMITS = [
    nested_submit,
    nested_worker_client,
    nested_compute,
    nested_as_completed,
    nested_after_seceding,
    nested_in_a_coroutine,
    nested_executor,
    nested_done_callback,
    nested_wait,
    nested_exception,
    nested_get,
    nested_client_compute,
    nested_persist,
    nested_cancelled,
    nested_fire_and_forget,
    nested_chain,
]
"""Ways to have a task compute 3."""
HANDS_ON_FUTURES = [nested_in_a_variable, nested_in_a_queue, nested_in_a_coroutines_queue]
