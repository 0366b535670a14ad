"""Seals one scheduler: helpers convert graphs to tables, and only admins may run code in it.

It replaces handlers and three methods of this one scheduler (ADR 15 lists them); distributed's classes stay unchanged.

Progress bars, reports and uploads, for which distributed sends code, are done by the scheduler's own code instead: a
helper recognises the function of distributed (`tables`), and no code of a client runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import pickle
from collections.abc import Awaitable, Callable, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

import dask
from dask.utils import parse_timedelta
from distributed.comm.core import Comm
from distributed.core import Status, _expects_comm
from distributed.diagnostics.progress import MultiProgress, Progress
from distributed.protocol import core
from distributed.protocol.serialize import to_serialize

from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.policy import Channel
from daskpki.cluster.sealed import audit_hook, confinement, graphs, selftest
from daskpki.cluster.sealed.graphs import GraphFailedError, SealedShuffle
from daskpki.cluster.sealed.helper_pool import HelperFailedError, Helpers, parse_limits
from daskpki.cluster.values import KINDS, arguments, misfit
from daskpki.pki.profile import Grade
from daskpki.quoting import shown

RUN_CODE: Final = frozenset(
    {
        *("feed", "run_function", "register_scheduler_plugin", "unregister_scheduler_plugin"),
        "dump_cluster_state_to_url",  # writes wherever fsspec can, with the scheduler's rights
    }
)
"""Operations that run a caller's code in the scheduler, or use its rights."""
RUN_KEY: Final = frozenset({"retire_workers", "workers_to_close"})
"""Operations that run the code in their argument `key`, if it is given."""
OPENED: Final = frozenset({"expr_ser", "internal_priority", "code", "annotations", "span_metadata"})
"""Fields of `update-graph` that a helper opens."""
PICKLED: Final = ("setup", "function", "teardown", "plugin")
"""Arguments in which operations carry functions and plugins."""
_SHORTEST: Final = 0.1
"""Least seconds between two reports of progress."""
_KEYS_COME: Final = 60.0
"""Seconds to wait until the keys are known; Dask itself waits for ever."""

logger = logging.getLogger("distributed.daskpki")


class Seal:
    """Keeps the pickles of clients away from a scheduler."""

    def __init__(self, scheduler: Any, enforcement: Enforcement, helpers: Helpers) -> None:
        self._scheduler = scheduler
        self._enforcement = enforcement
        self.helpers = helpers
        self.refusals = 0
        self._task_to_msg = scheduler._task_to_msg  # noqa: SLF001 - Dask's own

    def install(self) -> None:
        """Replace the handlers and methods that would open a pickle."""
        scheduler = self._scheduler
        scheduler.stream_handlers["update-graph"] = self.update_graph
        scheduler._task_to_msg = self.task_to_msg  # noqa: SLF001 - Dask's own
        if "shuffle" in scheduler.extensions:
            scheduler.extensions["shuffle"]._retrieve_spec = self.retrieve_spec  # noqa: SLF001 - Dask's own
        for operation in RUN_CODE | RUN_KEY:
            scheduler.handlers[operation] = self._for_admins(operation, scheduler.handlers[operation])

    def measures(self) -> dict[str, float]:
        """Return the counters for the page and the metrics."""
        helpers = self.helpers
        return {
            "graphs": helpers.asked,
            "refused": self.refusals,
            "pickles_refused": len(audit_hook.refused),
            "helpers": len(helpers.alive),
            "killed": helpers.killed,
            "seconds": round(helpers.seconds, 3),
            "memory_bytes": helpers.memory(),
        }

    # --- graphs

    async def update_graph(self, client: str, **message: Any) -> None:
        """Call Dask's handler with a materialised and checked graph, which a helper has opened."""
        scheduler = self._scheduler
        scheduler._active_graph_updates += 1  # noqa: SLF001 - as Dask's own: it is not idle meanwhile
        try:
            _verify_plain(message)
            graph = await self._opened(client, message)
        except (GraphFailedError, HelperFailedError) as error:
            self._fail(client, message, error)
            return
        finally:
            scheduler._active_graph_updates -= 1  # noqa: SLF001 - Dask's own
        await scheduler.update_graph(
            client=client,
            **{"submitting_task": None, **message},
            expr_ser=graph,
            span_metadata=graph.span_metadata,
            internal_priority=graph.priorities,
            code=graph.code,
            annotations=graph.for_all,
        )

    async def _opened(self, client: str, message: dict[str, Any]) -> graphs.CheckedGraph:
        owner = self._enforcement.registrations.owner(Channel.CLIENT_STREAM, client)
        if owner is None:
            raise HelperFailedError(f"the client {client[:100]!r} is gone")
        request = {name: message.pop(name, None) for name in OPENED} | {
            "keys": message["keys"],
            "validate": self._scheduler.validate,
            "config": {"optimization": dask.config.get("optimization", {})},
        }
        most = self.helpers.limits.tasks
        return await self.helpers.ask(owner.uri, core.dumps(request), lambda answer: graphs.checked_graph(answer, most))

    def _fail(self, client: str, message: dict[str, Any], error: Exception) -> None:
        self.refusals += 1
        told = {"action": "update-graph", "stimulus_id": message.get("stimulus_id"), "status": "error"}
        self._scheduler.log_event(["scheduler", client], told)
        traceback = getattr(error, "traceback", None)
        failed = {
            "op": "task-erred",
            "exception": to_serialize(getattr(error, "pickled", None) or pickle.dumps(RuntimeError(str(error)))),
            "traceback": to_serialize(traceback) if traceback is not None else None,
        }
        for key in message["keys"] if KINDS["keys"](message.get("keys")) else ():
            self._scheduler.report(failed | {"key": key}, client=client)

    def task_to_msg(self, task: Any) -> dict[str, Any]:
        """Make the message about a task to a worker, with the client's own bytes in it."""
        message: dict[str, Any] = self._task_to_msg(task)
        if isinstance(task.run_spec, graphs.SealedTask):
            message["run_spec"] = task.run_spec.for_worker()
        return message

    def retrieve_spec(self, shuffle_id: str) -> SealedShuffle:
        """Return the P2P shuffle of that name; P2PConsistencyError, which Dask sends to the worker, without one."""
        from distributed.shuffle._core import barrier_key
        from distributed.shuffle._exceptions import P2PConsistencyError

        spec = getattr(self._scheduler.tasks[barrier_key(shuffle_id)].run_spec, "spec", None)  # type: ignore[arg-type]
        if not isinstance(spec, SealedShuffle) or spec.id != shuffle_id:
            raise P2PConsistencyError(f"a sealed scheduler knows no shuffle {shuffle_id[:100]!r}")
        return spec

    # --- operations that run code

    def _for_admins(self, operation: str, handler: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        async def guarded(comm: Any, **arguments: Any) -> Any:
            if operation in RUN_KEY and arguments.get("key") is None:
                return await _finished(handler, comm, arguments)
            peer = comm.conversation.peer
            if Grade.ADMIN not in peer.grades:
                if found := await self._recognise(peer.identity.uri, operation, arguments):
                    return await self._perform(found, comm, peer.identity.uri, arguments)
                self.refusals += 1
                raise PermissionError(
                    f"{operation!r} runs code in the scheduler, which is sealed: it needs a certificate of grade admin "
                    f"(daskpki issue client --name NAME --grade admin), and {peer.identity.uri} has none"
                )
            if operation == "register_scheduler_plugin":
                found = await self._recognise(peer.identity.uri, operation, arguments)
                if found.get("named") == "upload":  # an admin's graphs, too, are opened by a helper
                    await self._perform(found, comm, peer.identity.uri, arguments)
            with audit_hook.unpickling_for_an_admin():
                opened = core.loads(core.dumps(arguments), deserialize=False)  # as Dask would have read them
                return await _finished(handler, comm, opened)

        return guarded

    async def _recognise(self, identity: str, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Recognise an operation of distributed's own by its function or plugin; empty if it is none of these."""
        fields = {name: value for name, value in arguments.items() if name in PICKLED and isinstance(value, bytes)}
        request = core.dumps({"recognise": operation, "fields": fields})
        with contextlib.suppress(GraphFailedError):  # the helper could not even open it
            return await self.helpers.ask(identity, request, graphs.checked_request) if fields else {}
        return {}

    async def _perform(self, found: Mapping[str, Any], comm: Comm, identity: str, arguments: Mapping[str, Any]) -> Any:
        """Perform a recognised operation for the caller at the other end of `comm`."""
        match found["named"]:  # checked: one of these
            case "progress":
                await self._report_progress(found, comm, arguments.get("interval", "1s"))
            case "count":
                return {"status": "OK", "result": to_serialize(self._scheduler.monitor.count)}
            case "upload":
                filename = PurePosixPath(found["filename"]).name
                await self.helpers.upload(identity, filename, core.dumps({"filename": filename, "data": found["data"]}))
            case "install":
                await self._install(found)
        return None

    async def _report_progress(self, found: Mapping[str, Any], comm: Comm, interval: Any) -> None:
        """Report progress as ProgressBar.listen and MultiProgressBar.listen do."""
        scheduler, grouped = self._scheduler, found["grouped"]
        pause = max(_SHORTEST, float(parse_timedelta(interval)))
        kind: Any = MultiProgress if grouped else Progress
        progress = kind(set(found["keys"]), scheduler, complete=found["complete"])
        progress.name = f"progress-{id(comm)}"  # two callers may watch the same keys
        await asyncio.wait_for(progress.setup(), _KEYS_COME)
        try:
            while scheduler.status == Status.running and not comm.closed():
                await comm.write(_told(progress, grouped=grouped))
                await asyncio.sleep(pause)
        except OSError:
            pass
        finally:
            progress.stop()

    async def _install(self, found: Mapping[str, Any]) -> None:
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


_PLAIN: Final = arguments(
    "keys:keys stimulus_id:text? submitting_task:key? user_priority:number fifo_timeout:timeout actors:anything"
)


def _verify_plain(message: dict[str, Any]) -> None:
    """Raise GraphFailedError if a value that the scheduler computes with is one that no client of Dask sends."""
    wrong = misfit(_PLAIN, {"keys": None} | message)
    unknown = next((name for name in message if name not in _PLAIN.keys() | OPENED), None)
    actors = message.get("actors")
    if wrong or unknown or not (actors is None or isinstance(actors, bool) or KINDS["keys"](actors)):
        raise GraphFailedError(wrong or f"update-graph takes no {shown(unknown or 'such actors')}")


async def _finished(handler: Callable[..., Any], comm: Comm, arguments: dict[str, Any]) -> Any:
    result = handler(comm, **arguments) if _expects_comm(handler) else handler(**arguments)
    return await result if inspect.isawaitable(result) else result


def seal(scheduler: Any, enforcement: Enforcement, limits: str | None, user: str | None) -> Seal:
    """Seal a scheduler that has not yet read a message; NotTrustedError if that is impossible, or fails its test.

    Blocks for a few seconds, until the first helper has passed its test. This cannot be undone: the hook stays.
    """
    helpers = Helpers(parse_limits(limits), user)
    selftest.verify_shapes(_PLAIN.keys() | OPENED)
    graphs.accept_checked_graphs()
    sealed = Seal(scheduler, enforcement, helpers)
    graph = selftest.canary_graph()
    try:
        helpers.begin()
        audit_hook.install()
        confinement.make_undumpable()
        selftest.verify_holds(helpers, graph)
        audit_hook.refused.clear()
    except BaseException:
        helpers.end()
        raise
    sealed.install()
    enforcement.measure_seal = sealed.measures
    logger.info("sealed: clients' graphs are opened by helpers, %s", helpers.limits)
    return sealed
