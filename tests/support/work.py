"""What the tests have run: helpers and workers import this, and it imports little."""

from __future__ import annotations

import os
from operator import add
from pathlib import Path

from distributed import get_client, worker_client
from distributed.diagnostics.plugin import InstallPlugin, SchedulerPlugin

from daskpki.identity import Role


def nested(number: int) -> int:
    return int(get_client().submit(add, number, 1).result(timeout=30))


def under_worker_client(number: int) -> int:
    with worker_client() as client:
        return sum(client.gather(client.map(add, range(number), range(number))))


def managing(operation: str) -> str:
    try:
        getattr(get_client().scheduler, operation)
        get_client().sync(getattr(get_client().scheduler, operation))
    except PermissionError as error:
        return str(error)
    return "done"


def measured() -> dict[str, float]:
    """In a sealed scheduler, what its page and its metrics show."""
    from daskpki.cluster.preload import NODE

    measure = NODE.enforcement(Role.SCHEDULER).measure_seal
    assert measure is not None
    return dict(measure())


class Installs(InstallPlugin):
    """Installs nothing, and says in which processes."""

    def __init__(self, directory: Path) -> None:
        def install() -> None:
            (directory / str(os.getpid())).touch()

        super().__init__(install, restart_workers=False)


class Watches(SchedulerPlugin):
    """A plugin that lives in the scheduler."""

    name = "watches"
