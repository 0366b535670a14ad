"""What a sealed scheduler costs: the same graphs on stock TLS, under daskpki, and sealed, all running at once."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

import psutil
from dask import array
from distributed import Client, wait

from daskpki.identity import Role
from daskpki.pki.profile import Grade
from scripts.benchmarks.report import Goal, Section
from scripts.benchmarks.timing import take_turns
from scripts.benchmarks.workshop import Workshop
from tests.support.cluster_material import Authority, stock_security
from tests.support.nodes import cluster

STOCK: Final = "Dask's own mutual TLS"
OPEN: Final = "daskpki, scheduler code stock"
SEALED: Final = "daskpki, sealed"
_SUBMITS: Final = 50
_TASKS: Final = 20_000
_CHUNKS: Final = 50_000
"""Of an array whose sum is a graph of some 100,000 tasks."""
_EXECUTED: Final = 10_000
"""Of one that is computed, which takes most of a minute; five times as many take five times as long."""


HELPERS: Final = "the helper of the sealed one"


def submits(workshop: Workshop) -> Section:
    """Run the benchmark of single tasks, one after another."""
    return _section(workshop, f"{_SUBMITS} submits, one after another", 1.1, _submit)


def small_tasks(workshop: Workshop) -> Section:
    """Run the benchmark of many small tasks."""
    return _section(_fewer(workshop), f"{_TASKS:,} small tasks", 1.05, _map)


def known(workshop: Workshop) -> Section:
    """Run the benchmark of a large graph, until the scheduler knows its tasks."""
    return _section(_fewer(workshop), f"a graph of {2 * _CHUNKS:,} tasks until it is known", 1.5, _know)


def executed(workshop: Workshop) -> Section:
    """Run the benchmark of a large graph, until its result is there."""
    return _section(_fewer(workshop), f"a graph of {2 * _EXECUTED:,} tasks executed", 1.1, _execute)


def memory(workshop: Workshop) -> Section:
    """Measure the megabytes of a scheduler that knows a large graph, and of the helper that opened it."""
    title = f"Memory of a scheduler with a graph of {2 * _CHUNKS:,} tasks"
    return _section(_fewer(workshop), title, 1.1, _hold)._replace(memory=True)


def _fewer(workshop: Workshop) -> Workshop:
    """A round takes many seconds."""
    return workshop._replace(rounds=min(workshop.rounds, 5))


def _section(workshop: Workshop, title: str, goal: float, work: Callable[[Client], float]) -> Section:
    with ExitStack() as stack:
        clients = {label: stack.enter_context(_running(workshop, label)) for label in (STOCK, OPEN, SEALED)}
        runs: dict[str, Callable[[int], float]] = {
            label: partial(_settled, work, client) for label, client in clients.items()
        }
        if work is _hold:
            runs[HELPERS] = lambda _number: float(clients[SEALED].run_on_scheduler(_megabytes_of_helpers))
        samples = take_turns(runs, workshop.rounds, warm_up=1)
    about = (
        "A scheduler and a worker of two threads with its nanny for each contestant; stock clients, with grade admin."
    )
    goals = (Goal(STOCK, goal, f"at most {goal} times stock"),)
    return Section(f"Sealed: {title}", about, SEALED, samples, goals)


@contextmanager
def _running(workshop: Workshop, label: str) -> Iterator[Client]:
    directory = workshop.new_directory(label.replace(" ", "-"))
    authority = Authority()
    security = stock_security(authority, authority.leaf(Role.CLIENT, "ops", grades=(Grade.ADMIN,)), directory)
    mode, code = (None if label == STOCK else "limited"), "sealed" if label == SEALED else "stock"
    with (
        cluster(authority, directory, mode, nworkers=1, code=code) as nodes,
        Client(nodes.address, security=security) as client,
    ):
        yield client


def _settled(work: Callable[[Client], float], client: Client, _number: int) -> float:
    """The next contestant begins when this one's cluster has nothing left to do."""
    measured = work(client)
    while client.run_on_scheduler(_tasks_of):
        pass
    return measured


def _submit(client: Client) -> float:
    started = time.perf_counter()
    for number in range(_SUBMITS):
        client.submit(operator.neg, number, pure=False).result()
    return time.perf_counter() - started


def _map(client: Client) -> float:
    started = time.perf_counter()
    wait(client.map(operator.neg, range(_TASKS), pure=False))
    return time.perf_counter() - started


def _sum(chunks: int = _CHUNKS) -> Any:
    return array.ones(chunks, chunks=1).sum(split_every=1000)


def _know(client: Client) -> float:
    started = time.perf_counter()
    future = client.compute(_sum(), optimize_graph=False)
    while client.run_on_scheduler(_tasks_of) < _CHUNKS:
        pass
    seconds = time.perf_counter() - started
    future.cancel()
    return seconds


def _execute(client: Client) -> float:
    started = time.perf_counter()
    client.compute(_sum(_EXECUTED), optimize_graph=False).result()
    return time.perf_counter() - started


def _hold(client: Client) -> float:
    future = client.compute(_sum(), optimize_graph=False)
    while client.run_on_scheduler(_tasks_of) < _CHUNKS:
        pass
    held = float(client.run_on_scheduler(_megabytes))
    future.cancel()
    return held


def _tasks_of(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


def _megabytes() -> float:
    return float(psutil.Process().memory_info().rss / 1e6)


def _megabytes_of_helpers() -> float:
    """Children of the process that forks them."""
    helpers = [helper for forker in psutil.Process().children() for helper in forker.children()]
    return float(sum(helper.memory_info().rss for helper in helpers) / 1e6)
