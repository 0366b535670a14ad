"""What enforcement costs: the same work on real clusters under Dask's own mutual TLS and under daskpki."""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NamedTuple

import numpy as np
from distributed import Client, Security, wait
from distributed.comm.core import connect

from daskpki.cluster.security import client_security
from daskpki.identity import Role
from daskpki.serials import random_serial
from scripts.benchmarks.report import Goal, Section
from scripts.benchmarks.timing import Sample, take_turns
from scripts.benchmarks.workshop import Workshop
from tests.cluster.conftest import stock_security
from tests.cluster.material import Authority
from tests.cluster.nodes import Cluster, cluster

STOCK: Final = "Dask's own mutual TLS"
PLAIN: Final = "daskpki"
REVOKED: Final = 100_000
LONG: Final = f"daskpki, {REVOKED:,} revoked serials"
_TASKS: Final = 20_000
_BYTES: Final = 200_000_000
_CONNECTIONS: Final = 100
_NO_DIFFERENCE: Final = 1.05
_WHERE: Final = (
    " A scheduler and a worker of two threads with its nanny for each contestant, all of them running, on this machine."
    " daskpki judges both ends of each connection and every message, in the mode `limited`, in which the scheduler"
    " unpickles nothing that workers send."
)


class Running(NamedTuple):
    """A cluster and a client of it, with the Security under which the client dials."""

    cluster: Cluster
    client: Client
    security: Security


def small_tasks(workshop: Workshop) -> Section:
    """Run the benchmark of many small tasks."""
    about = f"{_TASKS:,} tasks that negate a number, submitted by `Client.map` and waited for." + _WHERE
    return _section(workshop, f"{_TASKS:,} small tasks", about, 1.05, _map)


def transfers(workshop: Workshop) -> Section:
    """Run the benchmark of transfers."""
    about = f"An array of {_BYTES // 1_000_000} MB, scattered to the worker and gathered again, directly." + _WHERE
    return _section(workshop, f"{_BYTES // 1_000_000} MB there and back", about, 1.05, _scatter_and_gather)


def connections(workshop: Workshop) -> Section:
    """Run the benchmark of new connections."""
    about = f"{_CONNECTIONS} connections to the scheduler, one after another: TLS handshake, Dask's greeting, close."
    return _section(workshop, f"{_CONNECTIONS} new connections", about + _WHERE, 1.2, _dial)


def _section(workshop: Workshop, title: str, about: str, goal: float, work: Callable[[Running], float]) -> Section:
    goals = (
        Goal(STOCK, goal, f"at most {goal} times Dask's own mutual TLS, with {REVOKED:,} revoked serials"),
        Goal(PLAIN, _NO_DIFFERENCE, "the number of revoked serials makes no difference, within 5 %"),
    )
    with _contestants(workshop) as running:
        runs = {label: lambda _, one=one: work(one) for label, one in running.items()}
        samples: Sequence[Sample] = take_turns(runs, workshop.rounds)
    return Section(title, about, LONG, samples, goals)


@contextmanager
def _contestants(workshop: Workshop) -> Iterator[dict[str, Running]]:
    plain, long = Authority(), Authority()
    long.revoke_serials(random_serial() for _ in range(REVOKED))
    wanted = {STOCK: (plain, None), PLAIN: (plain, "limited"), LONG: (long, "limited")}
    with ExitStack() as stack:
        yield {
            label: stack.enter_context(_running(workshop, label, authority, mode))
            for label, (authority, mode) in wanted.items()
        }


@contextmanager
def _running(workshop: Workshop, label: str, authority: Authority, mode: str | None) -> Iterator[Running]:
    directory = workshop.new_directory(label.replace(" ", "-"))
    alice = authority.leaf(Role.CLIENT, "alice")
    with cluster(authority, directory, mode, nworkers=1) as nodes:
        if mode is None:
            security = stock_security(authority, alice, directory)
        else:
            security = client_security(alice.credential, authority.document(), fetch_piece=authority.pieces.__getitem__)
        with Client(nodes.address, security=security) as client:
            yield Running(nodes, client, security)


def _map(running: Running) -> float:
    started = time.perf_counter()
    futures = running.client.map(operator.neg, range(_TASKS), pure=False)
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
