"""What a newer distributed may add without telling us: operations, and places where bytes turn into code."""

from __future__ import annotations

import ast
import asyncio
import functools
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import distributed
import pytest
from distributed import Nanny, Scheduler, Worker
from packaging.version import Version

from daskpki.cluster import operations as ops
from daskpki.cluster.policy import Caller, Channel, OperationRefusedError, Server, WorkerClients, verify_call
from daskpki.cluster.selftest import TESTED, unknown_operations
from daskpki.identity import Role
from tests.support.nodes import ASKED_FOR

pytestmark = pytest.mark.every_version

ROOT = Path(distributed.__file__).parent
ELSEWHERE = ("tests/", "cli/", "deploy/", "utils_test.py", "conftest.py")
TURNS_BYTES_INTO_CODE = {
    "loads",
    "load",
    "deserialize",
    "clean_exception",
    "merge_and_deserialize",
    "import_term",
    "import_module",
    "import_file",
    "_import_module",
    "eval",
    "exec",
}

CLIENT = "runs in clients, which trust their cluster's results"
WORKER = "runs in workers, which run tasks anyway; no worker calls it on a scheduler"
DECODER = "reached through Dask's own decoder, which a connection that reads no pickle does not use (no_pickle.py)"
DENIED = "reached by an operation that workers may not call in deny and limited"
LOCAL = "reads what this process wrote, or files of this machine"
HTTP = "parses JSON of the dashboard"

REVIEWED = {
    # On the scheduler, and reachable from a connection.
    "scheduler.py": {
        "Scheduler.update_graph deserialize": DENIED,
        "Scheduler.register_scheduler_plugin loads": DENIED,
        "Scheduler.feed pickle.loads": DENIED,
        "Scheduler.workers_to_close pickle.loads": "retire_workers may not carry key= from a worker (operations.py)",
        "Scheduler.handle_uncaught_error clean_exception": "registered under no operation",
    },
    "worker.py": {
        "run pickle.loads": "on a scheduler by run_function, which workers may not call; on workers from a scheduler",
        "Worker.plugin_add pickle.loads": WORKER,
    },
    "core.py": {
        "send_recv clean_exception": "only with deserialize=True, which comm.py turns off for workers (bind)",
        "clean_exception protocol.pickle.loads": "its callers are in this table",
        "error_message protocol.pickle.loads": LOCAL,
        "Server.upload_file import_file": WORKER,
    },
    "diagnostics/plugin.py": {
        "InstallPlugin.start deserialize": "error replies are rewritten from their text (replies.py)",
        "InstallPlugin.start clean_exception": "likewise",
        "UploadDirectory.start deserialize": "likewise",
        "UploadDirectory.start clean_exception": "likewise",
    },
    "active_memory_manager.py": {"ActiveMemoryManagerExtension.__init__ import_term": LOCAL},
    "comm/utils.py": {"from_frames._from_frames protocol.loads": DECODER},
    "comm/registry.py": {"get_backend backend_class_ep.load": LOCAL},
    "nanny.py": {"Nanny.plugin_add pickle.loads": "only schedulers may call it on a nanny"},
    # Elsewhere.
    "client.py": {
        "Client._handle_key_in_memory loads": CLIENT,
        "Client._handle_report clean_exception": CLIENT,
        "Client._register_nanny_plugin clean_exception": CLIENT,
        "Client._register_worker_plugin clean_exception": CLIENT,
        "Client._run clean_exception": CLIENT,
        "Client._run loads": CLIENT,
        "Client._run_on_scheduler clean_exception": CLIENT,
        "Client._start json.load": CLIENT,
        "Client._unregister_worker_plugin clean_exception": CLIENT,
        "Future._result clean_exception": CLIENT,
        "FutureState.set_error clean_exception": CLIENT,
        "_handle_warn pickle.loads": CLIENT,
        "_maybe_call_security_loader import_term": CLIENT,
    },
    "diagnostics/progressbar.py": {
        "MultiProgressWidget._draw_stop clean_exception": CLIENT,
        "ProgressWidget._draw_stop clean_exception": CLIENT,
    },
    "http/prometheus.py": {"import_metrics_handler import_module": LOCAL},
    "http/utils.py": {"get_handlers importlib.import_module": LOCAL},
    "http/scheduler/api.py": {"RetireWorkersHandler.post json.loads": HTTP},
    "http/scheduler/info.py": {
        "EventstreamHandler.on_message json.loads": HTTP,
        "_get_actual_scheduler_key json.loads": HTTP,
    },
    "preloading.py": {
        "Preload.__init__ _import_module": LOCAL,
        "_download_module exec": LOCAL,
        "_import_module _import_module": LOCAL,
        "_import_module import_file": LOCAL,
        "_import_module import_module": LOCAL,
        "validate_preload_argv _import_module": LOCAL,
    },
    "shuffle/_comms.py": {"CommShardsBuffer._process clean_exception": WORKER},
    "shuffle/_core.py": {"ShuffleRun.receive pickle.loads": WORKER},
    "shuffle/_pickle.py": {"unpickle_bytestream pickle.loads": WORKER},
    "shuffle/_worker_plugin.py": {"_ShuffleRunManager._fetch clean_exception": WORKER},
    "spill.py": {"Slow.__getitem__ self.load": WORKER},
    "utils.py": {
        "__getattr__ import_term": LOCAL,  # until 2026.1
        "command_has_keyword import_module": LOCAL,
        "get_mp_context importlib.import_module": LOCAL,
        "import_file importlib.import_module": "of a file that was uploaded to a worker, or is a preload",
        "import_term importlib.import_module": "its callers are in this table",
        "json_load_robust load": LOCAL,
    },
}


@functools.cache
def sites() -> frozenset[tuple[str, str]]:
    return frozenset(_sites())


def _sites() -> Iterator[tuple[str, str]]:
    for path in sorted(ROOT.rglob("*.py")):
        module = path.relative_to(ROOT).as_posix()
        # protocol/ is what decodes: all of it is reached through its `loads` and `deserialize`, listed by caller.
        if not module.startswith((*ELSEWHERE, "protocol/")) and "/tests/" not in module:
            for where, call in _calls(ast.parse(path.read_text()), []):
                yield module, f"{where} {call}"


def _calls(node: ast.AST, path: list[str]) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _calls(child, [*path, child.name])
            continue
        if isinstance(child, ast.Call) and _name(child.func) in TURNS_BYTES_INTO_CODE:
            yield ".".join(path), ast.unparse(child.func)
        yield from _calls(child, path)


def _name(function: ast.expr) -> str | None:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else None


def test_every_place_that_turns_bytes_into_code_was_reviewed() -> None:
    unreviewed = {site for site in sites() if site[1] not in REVIEWED.get(site[0], {})}
    assert not unreviewed


def test_the_search_finds_the_known_ones() -> None:
    found = sites()
    assert ("scheduler.py", "Scheduler.workers_to_close pickle.loads") in found
    assert ("diagnostics/plugin.py", "InstallPlugin.start deserialize") in found


def test_it_is_the_version_that_was_asked_for() -> None:
    installed = version("distributed")
    assert os.environ.get(ASKED_FOR, installed) == installed


async def operations() -> dict[Server, set[str]]:
    """What each live server answers to, calls and streams together; and that the tables know it."""
    async with (
        Scheduler(port=0, dashboard_address=":0", host="127.0.0.1") as scheduler,
        Worker(scheduler.address) as worker,
        Nanny(scheduler.address, nthreads=1) as nanny,
    ):
        servers = {Server.SCHEDULER: scheduler, Server.WORKER: worker, Server.NANNY: nanny}
        assert [unknown_operations(server) for server in servers.values()] == [set(), set(), set()]
        return {kind: {*server.handlers, *server.stream_handlers} for kind, server in servers.items()}


def test_every_handler_of_every_live_server_is_allowed_to_somebody_or_denied_with_a_reason() -> None:
    for server, names in asyncio.run(operations()).items():
        assert len(names) > 10
        for name in names:
            reasons = [refusal(server, name, role) for role in Role]
            assert None in reasons or name in ops.DENIED, name
            assert not [reason for reason in reasons if reason and "not in daskpki's table" in reason], name


def refusal(server: Server, operation: str, role: Role) -> str | None:
    """Why that role may not say it to that server in any way, or None when it may."""
    caller = Caller(role, WorkerClients.ALLOW, lambda _channel, _name: True)
    name = "client" if operation == "register-client" else ops.OWN_ADDRESS.get(operation, "op")
    message = {name: ["tls://10.0.0.1:1"] if name == "workers" else "tls://10.0.0.1:1"} | {"op": operation}
    reasons = []
    for channel in Channel:
        try:
            verify_call(server, channel, message, caller)
        except OperationRefusedError as refused:
            reasons.append(str(refused))
    return None if len(reasons) < len(Channel) else min(reasons, key=lambda reason: "not in daskpki's table" in reason)


def test_an_operation_that_distributed_adds_would_be_found() -> None:
    async def start() -> set[str]:
        async with Scheduler(port=0, dashboard_address=":0", host="127.0.0.1") as scheduler:
            scheduler.handlers["brand-new"] = scheduler.identity
            scheduler.stream_handlers["brand-new-stream"] = scheduler.identity
            scheduler.handlers["of-a-plugin"] = test_an_operation_that_distributed_adds_would_be_found
            return unknown_operations(scheduler)

    assert asyncio.run(start()) == {"brand-new", "brand-new-stream"}


def test_the_newest_version_tested_is_no_newer_than_the_installed_one() -> None:
    assert ASKED_FOR in os.environ or Version(version("distributed")) >= Version(TESTED[-1])
