"""Progress bars, reports and uploads, for which distributed sends code: done by the scheduler's own code instead.

A helper recognises the function of distributed (`tables`), and no code of a client runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from dask.utils import parse_timedelta
from distributed.comm.core import Comm
from distributed.core import Status
from distributed.diagnostics.progress import MultiProgress, Progress
from distributed.protocol import core
from distributed.protocol.serialize import to_serialize

from daskpki.cluster.sealed.graphs import GraphFailedError, checked_request
from daskpki.cluster.sealed.helper_pool import Helpers

_SHORTEST: Final = 0.1
"""Least seconds between two reports of progress."""
_KEYS_COME: Final = 60.0
"""Seconds to wait until the keys are known; Dask itself waits for ever."""
PICKLED: Final = ("setup", "function", "teardown", "plugin")
"""Arguments in which operations carry functions and plugins."""


class Named:
    """The named operations of one scheduler."""

    def __init__(self, scheduler: Any, helpers: Helpers) -> None:
        self._scheduler = scheduler
        self._helpers = helpers

    async def find(self, identity: str, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Recognise an operation with its arguments; empty if it is none of these."""
        fields = {name: value for name, value in arguments.items() if name in PICKLED and isinstance(value, bytes)}
        request = core.dumps({"recognise": operation, "fields": fields})
        with contextlib.suppress(GraphFailedError):  # it could not even be opened
            return await self._helpers.ask(identity, request, checked_request) if fields else {}
        return {}

    async def perform(self, comm: Comm, identity: str, found: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
        """Perform a recognised operation for the caller at the other end of `comm`."""
        name = found["named"]  # checked: one of those below
        return await getattr(self, f"_{name}")(comm, identity, found, arguments)

    async def _progress(
        self, comm: Comm, _identity: str, found: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> None:
        """Report progress as ProgressBar.listen and MultiProgressBar.listen do."""
        interval = max(_SHORTEST, float(parse_timedelta(arguments.get("interval", "1s"))))
        scheduler, grouped = self._scheduler, found["grouped"]
        kind: Any = MultiProgress if grouped else Progress
        progress = kind(set(found["keys"]), scheduler, complete=found["complete"])
        progress.name = f"progress-{id(comm)}"  # two may look at the same keys
        await asyncio.wait_for(progress.setup(), _KEYS_COME)
        try:
            while scheduler.status == Status.running and not comm.closed():
                await comm.write(_told(progress, grouped=grouped))
                await asyncio.sleep(interval)
        except OSError:
            pass
        finally:
            progress.stop()

    async def _count(self, *_request: Any) -> Any:
        return {"status": "OK", "result": to_serialize(self._scheduler.monitor.count)}

    async def _upload(
        self, _comm: Comm, identity: str, found: Mapping[str, Any], _arguments: Mapping[str, Any]
    ) -> None:
        filename = PurePosixPath(found["filename"]).name
        await self._helpers.upload(identity, filename, core.dumps({"filename": filename, "data": found["data"]}))

    async def _install(
        self, _comm: Comm, _identity: str, found: Mapping[str, Any], _arguments: Mapping[str, Any]
    ) -> None:
        """Install on workers and nannies only: the scheduler's image has its own packages."""
        scheduler = self._scheduler
        register = scheduler.register_nanny_plugin if found["restarts"] else scheduler.register_worker_plugin
        responses = await register(comm=None, plugin=found["plugin"], name=found["name"], idempotent=True)
        for response in responses.values():
            if response["status"] == "error":
                raise RuntimeError(str(response.get("exception_text", "a plugin failed"))[:10_000])


def _told(progress: Any, *, grouped: bool) -> dict[str, Any]:
    def count(keys: Any) -> Any:
        return {name: len(each) for name, each in keys.items()} if grouped else len(keys)

    extra = progress.extra if progress.status == "error" else {}
    return {"all": count(progress.all_keys), "remaining": count(progress.keys), "status": progress.status} | extra
