"""What users' tasks do on workers. Imported there."""

from __future__ import annotations

import os
import signal
from enum import Enum
from pathlib import Path
from typing import Any

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
    get_client,
    get_worker,
    rejoin,
    secede,
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


def array_in_metadata() -> None:
    worker = get_worker()
    for state in worker.state.tasks.values():
        state.metadata["array"] = np.arange(3)


def number_in_metadata() -> str:
    worker = get_worker()
    for state in worker.state.tasks.values():
        state.metadata["number"] = np.float32(0.5)
    return "done"


class Colour(Enum):
    RED = 1


def enum_in_metadata() -> None:
    for state in get_worker().state.tasks.values():
        state.metadata["colour"] = Colour.RED


def numpy_metrics() -> str:
    worker = get_worker()
    worker.metrics["number"] = lambda _worker: np.int64(5)
    worker.metrics["array"] = lambda _worker: np.arange(2)
    return str(worker.address)


class Counter:
    """An actor."""

    n = 0

    def increment(self) -> int:
        self.n += 1
        return self.n


def use_actor(counter: Any) -> int:
    return int(counter.increment().result())
