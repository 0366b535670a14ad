"""Runs distributed's own tests over TLS, on stock or sealed schedulers: `python -m tests.support.distributed_suite`.

Arguments go to pytest. With HANDOVERS in the environment, a directory of handovers by role, the tests' schedulers,
workers and nannies are adopted as on a node, and schedulers are sealed. Clients are stock. A scheduler of the tests'
own process, which opens pickles as client and worker, is sealed without the audit hook; one in a process for itself is
sealed whole: multiprocessing imports this module there as well, as `__mp_main__`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from distributed import Nanny, Scheduler, Security, Worker, utils_test

from daskpki.cluster.backend import install
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.sealed.graphs import accept_checked_graphs
from daskpki.cluster.sealed.helper_pool import Helpers, parse_limits
from daskpki.cluster.sealed.scheduler import Seal, seal
from daskpki.cluster.security import NodeSecurity
from daskpki.handover import load_handover
from daskpki.identity import Role

HANDOVERS = "DASKPKI_TEST_HANDOVERS"
LIMITS = "helpers=4,seconds=60,memory=3072"
ROLES: dict[type, Role] = {Scheduler: Role.SCHEDULER, Worker: Role.WORKER, Nanny: Role.WORKER}


def adopt(server: Any) -> Enforcement | None:
    """As `daskpki.cluster.preload` does for the one role of its process; what has other certificates stays stock."""
    role = next((role for kind, role in ROLES.items() if isinstance(server, kind)), None)
    if role is None:
        return None
    node = NodeSecurity(load_handover(str(Path(os.environ[HANDOVERS]) / role.value / "handover.json")))
    if server.security.get_tls_config_for_role(role.value)["cert"] != node.handover.cert:
        return None
    enforcement = node.enforcement(role)
    enforcement.on_listening = seal_server if role is Role.SCHEDULER else None
    server.security = node
    server.connection_args.pop("ssl_context", None)
    server.connection_args.update(node.get_connection_args(role.value))
    return enforcement


def seal_server(scheduler: Any) -> None:
    enforcement = scheduler.security.enforcement(Role.SCHEDULER)
    if POOL:
        Seal(scheduler, enforcement, pool_of_this_loop()).install()
    else:
        seal(scheduler, enforcement, LIMITS, None)


POOL: list[Helpers] = []
"""For all schedulers of the tests' own process: it takes seconds to begin."""


def begin_pool() -> None:
    accept_checked_graphs()
    pool = Helpers(parse_limits(LIMITS))
    pool.begin()
    everyone = threading.Barrier(pool.limits.helpers + 1)  # the tests look for threads that were not there before
    for _ in range(pool.limits.helpers):
        pool._threads.submit(everyone.wait)
    everyone.wait()
    POOL.append(pool)


def pool_of_this_loop() -> Helpers:
    """With locks of this test's event loop, and without what the test before uploaded."""
    (pool,) = POOL
    pool._places = asyncio.Semaphore(pool.limits.helpers)
    pool._turns.clear()
    pool._busy.clear()
    for identity in list(pool._uploads):
        pool._drop(identity)
    pool._uploads.clear()
    return pool


def over_tls(server: type) -> None:
    """Servers take their protocol from the Security that they are given, and not from Dask's configuration."""
    stock = server.__init__  # type: ignore[misc]

    @functools.wraps(stock)
    def init(self: Any, *arguments: Any, security: Security | None = None, **named: Any) -> None:
        stock(self, *arguments, security=security or Security(), **named)

    server.__init__ = init  # type: ignore[misc]


def cluster_over_tls(**options: Any) -> AbstractContextManager[Any]:
    """`utils_test.cluster` asks its scheduler under the Security that it is given, likewise."""
    options["scheduler_kwargs"] = {"security": Security()} | (options.get("scheduler_kwargs") or {})
    cluster: AbstractContextManager[Any] = stock_cluster(**options)
    return cluster


class Markers:
    """A plugin in place of pytest-rerunfailures, which their tests name."""

    def pytest_configure(self, config: pytest.Config) -> None:
        config.addinivalue_line("markers", "flaky: would be run again there")


if __name__ in {"__main__", "__mp_main__"}:
    stock_cluster = utils_test.cluster
    utils_test.cluster = cluster_over_tls  # type: ignore[assignment]
    for kind in ROLES:
        over_tls(kind)
    if HANDOVERS in os.environ:
        install().adopt = adopt

if __name__ == "__main__":
    if HANDOVERS in os.environ:
        begin_pool()
    ignored = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # plugins are imported by now
    code = pytest.main([*ignored, *sys.argv[1:]], plugins=[Markers()])
    for each in POOL:
        each.end()
    sys.exit(code)
