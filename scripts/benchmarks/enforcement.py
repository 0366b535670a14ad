"""What enforcement costs: the same work on real clusters under Dask's own mutual TLS and under daskpki."""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any, Final, NamedTuple

import numpy as np
from distributed import Client, Security, wait
from distributed.comm.core import connect

from daskpki.authority.session import random_serial
from daskpki.cluster.security import client_security
from daskpki.identity import Role
from scripts.benchmarks.report import Goal, Section
from scripts.benchmarks.timing import Sample, take_turns
from scripts.benchmarks.workshop import Workshop
from tests.support.cluster_material import Authority, stock_security
from tests.support.nodes import Cluster, cluster

STOCK: Final = "Dask's own mutual TLS"
PLAIN: Final = "daskpki"
REVOKED: Final = 1_500
LONG: Final = f"daskpki, {REVOKED:,} revoked serials"
_TASKS: Final = 20_000
_BYTES: Final = 200_000_000
_CONNECTIONS: Final = 100
_NO_DIFFERENCE: Final = 1.05
_WARMING: Final = 1_000
_JUDGED: Final = (
    " daskpki judges both ends of each connection and every message, in the mode `limited`, in which the scheduler"
    " unpickles nothing that workers send."
)
_AT_ONCE: Final = (
    " A scheduler and a worker of two threads with its nanny for each contestant, all of them running." + _JUDGED
)
_AFRESH: Final = (
    " Each run has a scheduler and a worker of two threads with its nanny of its own, warmed by"
    f" {_WARMING:,} tasks, since one set of processes is faster or slower than the next by some percent throughout."
    + _JUDGED
)


class Running(NamedTuple):
    """A cluster and a client of it, with the Security under which the client dials."""

    cluster: Cluster
    client: Client
    security: Security


def small_tasks(workshop: Workshop) -> Section:
    """Run the benchmark of many small tasks."""
    about = f"{_TASKS:,} tasks that negate a number, submitted by `Client.map` and waited for." + _AFRESH
    runs = {label: partial(_map_afresh, workshop, label) for label in (STOCK, PLAIN, LONG)}
    return _section(f"{_TASKS:,} small tasks", about, 1.05, take_turns(runs, workshop.rounds, warm_up=0))


def transfers(workshop: Workshop) -> Section:
    """Run the benchmark of transfers."""
    about = f"An array of {_BYTES // 1_000_000} MB, scattered to the worker and gathered again, directly." + _AT_ONCE
    samples = _side_by_side(workshop, _scatter_and_gather)
    return _section(f"{_BYTES // 1_000_000} MB there and back", about, 1.05, samples)


def connections(workshop: Workshop) -> Section:
    """Run the benchmark of new connections."""
    about = f"{_CONNECTIONS} connections to the scheduler, one after another: TLS handshake, Dask's greeting, close."
    samples = _side_by_side(workshop, _dial)
    return _section(f"{_CONNECTIONS} new connections", about + _AT_ONCE, 1.2, samples)


def _section(title: str, about: str, goal: float, samples: Sequence[Sample]) -> Section:
    goals = (
        Goal(STOCK, goal, f"at most {goal} times Dask's own mutual TLS, with {REVOKED:,} revoked serials"),
        Goal(PLAIN, _NO_DIFFERENCE, "the number of revoked serials makes no difference, within 5 %"),
    )
    return Section(title, about, LONG, samples, goals)


def _side_by_side(workshop: Workshop, work: Callable[[Running], float]) -> Sequence[Sample]:
    with ExitStack() as stack:
        running = {label: stack.enter_context(_running(workshop, label)) for label in (STOCK, PLAIN, LONG)}
        return take_turns({label: partial(_once, work, one) for label, one in running.items()}, workshop.rounds)


def _once(work: Callable[[Running], float], running: Running, _number: int) -> float:
    return work(running)


@cache
def _authority(label: str) -> Authority:
    authority = Authority()
    if label == LONG:
        authority.revoke_serials(random_serial() for _ in range(REVOKED))
    return authority


@contextmanager
def _running(workshop: Workshop, label: str, number: int = 0) -> Iterator[Running]:
    directory = workshop.new_directory(f"{label.replace(' ', '-')}-{number}")
    authority, mode = _authority(label), None if label == STOCK else "limited"
    alice = authority.leaf(Role.CLIENT, "alice")
    with cluster(authority, directory, mode, nworkers=1) as nodes:
        if mode is None:
            security = stock_security(authority, alice, directory)
        else:
            security = client_security(alice.credential, authority.document())
        with Client(nodes.address, security=security) as client:
            yield Running(nodes, client, security)


def _map_afresh(workshop: Workshop, label: str, number: int) -> float:
    with _running(workshop, label, number) as running:
        _map(running, _WARMING)
        return _map(running, _TASKS)


def _map(running: Running, count: int) -> float:
    started = time.perf_counter()
    futures = running.client.map(operator.neg, range(count), pure=False)
    wait(futures)
    seconds = time.perf_counter() - started
    del futures
    _settle(running)
    return seconds


def _scatter_and_gather(running: Running) -> float:
    array = np.frombuffer(np.random.default_rng().bytes(_BYTES), dtype="u1")
    started = time.perf_counter()
    future = running.client.scatter(array, direct=True)
    running.client.gather(future, direct=True)
    seconds = time.perf_counter() - started
    del future
    _settle(running)
    return seconds


def _settle(running: Running) -> None:
    """The next contestant begins when this one's cluster has nothing left to do."""
    while running.client.run_on_scheduler(_tasks_of):
        pass


def _tasks_of(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


def _dial(running: Running) -> float:
    arguments = running.security.get_connection_args("client")
    return asyncio.run(_dial_often(running.cluster.address, arguments))


async def _dial_often(address: str, arguments: dict[str, Any]) -> float:
    started = time.perf_counter()
    for _ in range(_CONNECTIONS):
        comm = await connect(address, **arguments)
        await comm.close()
    return time.perf_counter() - started
