"""The tables: every operation of Dask's servers and the roles that may call it. Data only; `policy` reads them.

An operation that is in no table is denied, so what a newer distributed adds stays out until it has been reviewed. For
workers on the scheduler the tables also name the arguments, because a handler may treat one as code
(`retire_workers(key=...)` is unpickled: scheduler.py of distributed 2026.8.0, line 7387), and their kinds, because the
scheduler stores them unchecked (`values`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from daskpki.cluster.values import arguments


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DENIED: Final[Mapping[str, str]] = {
    "connection_stream": "it opens the stream handlers to a peer that never registered, and Dask makes no use of it",
}
"""Operations that nobody may call, with the reason."""

# --- the scheduler, asked by remote procedure call

SCHEDULER_FOR_WORKERS: Final[Mapping[str, Mapping[str, str]]] = {
    "add_keys": arguments("worker:text keys:keys stimulus_id:text?"),
    "echo": arguments("data:data"),
    "event_clear": arguments("name:name"),
    "event_is_set": arguments("name:name"),
    "event_set": arguments("name:name"),
    "event_wait": arguments("name:name timeout:timeout?"),
    "get_task_status": arguments("keys:keys"),
    "heartbeat_worker": arguments(
        "address:text resolve_address:flag now:number metrics:metrics resources:resources executing:durations "
        "extensions:extensions"
    ),
    "identity": arguments("n_workers:integer"),
    "log_event": arguments("topic:topic msg:data"),
    "multi_lock_acquire": arguments("locks:names id:name timeout:timeout? num_locks:positive"),
    "multi_lock_release": arguments("id:name"),
    "register-worker": arguments(
        "address:text status:status server_id:text nthreads:threads name:worker-name resolve_address:flag now:number "
        "resources:resources memory_limit:count? metrics:metrics pid:count services:ports local_directory:text "
        "versions:versions nanny:text? extra:extra stimulus_id:text"
    ),
    "register_nanny": arguments("address:text"),
    "retire_workers": arguments("workers:texts close_workers:flag remove:flag stimulus_id:text?"),
    "semaphore_acquire": arguments("name:name timeout:timeout? lease_id:name"),
    "semaphore_close": arguments("name:name"),
    "semaphore_refresh_leases": arguments("name:name lease_ids:names"),
    "semaphore_register": arguments("name:name max_leases:positive lease_timeout:number?"),
    "semaphore_release": arguments("name:name lease_id:name"),
    "semaphore_value": arguments("name:name"),
    "shuffle_barrier": arguments("id:text run_id:integer consistent:flag"),
    "shuffle_get": arguments("id:text worker:text"),
    "shuffle_get_or_create": arguments("shuffle_id:text key:key worker:text"),
    "shuffle_restrict_task": arguments("id:text run_id:integer key:key worker:text"),
    "unregister": arguments("address:text stimulus_id:text expected:flag close:flag"),
    "versions": arguments("packages:texts?"),
    "who_has": arguments("keys:keys?"),
}
"""Calls of workers and nannies, with the arguments that they may give, and their kinds (`values`)."""

OWN_ADDRESS: Final[Mapping[str, str]] = {
    "add_keys": "worker",
    "heartbeat_worker": "address",
    "register-worker": "address",
    "register_nanny": "address",
    "retire_workers": "workers",
    "shuffle_get": "worker",
    "shuffle_get_or_create": "worker",
    "shuffle_restrict_task": "worker",
    "unregister": "address",
}
"""The argument that must be the caller's own address: a worker does not act for another."""

CLAIMS_ADDRESS: Final = frozenset({"register-worker", "register_nanny"})
"""Operations by which a worker or a nanny first claims its address."""

SCHEDULER_FOR_WORKER_CLIENTS: Final[Mapping[str, Mapping[str, str]]] = {
    "has_what": arguments("workers:texts?"),
    "queue_create": arguments("name:name client:text? maxsize:count"),
    "queue_get": arguments("name:name client:text? timeout:timeout? batch:flag-or-count"),
    "queue_put": arguments("name:name key:key? data:data client:text? timeout:timeout?"),
    "queue_qsize": arguments("name:name client:text?"),
    "register-client": arguments("client:text versions:versions"),
    "variable_get": arguments("name:name client:text? timeout:timeout?"),
    "variable_set": arguments("name:name key:key? data:data client:text? timeout:timeout?"),
}
"""Calls of a client inside a task in mode `limited`: coordination, but nothing that submits or runs code.

`ncores` is left out on purpose: joblib's backend calls it first, in the task. If that succeeded, the backend would wait
for ever for the tasks that it submits next, as it does for any of its tasks that errs before it runs (joblib 1.6,
`DaskDistributedBackend._collect`).
"""

SCHEDULER_FOR_SUBMITTERS: Final[Mapping[str, Mapping[str, str]]] = {
    "gather": arguments("keys:keys"),
    "ncores": arguments("workers:texts?"),
    "scatter": arguments("data:anything workers:texts? client:text broadcast:flag-or-count timeout:timeout?"),
    "update_data": arguments("who_has:mapping nbytes:mapping client:text?"),
}
"""Further calls of a client inside a task in mode `submit`: for the tasks that it submits itself."""

SCHEDULERS_OWN_CLIENTS: Final = ("fire-and-forget", "queue-", "variable-")
"""Prefixes of names that a scheduler uses itself: a client with such a name would end its tasks."""

_COORDINATION: Final = (
    "echo event_clear event_is_set event_set event_wait identity log_event multi_lock_acquire multi_lock_release "
    "semaphore_acquire semaphore_close semaphore_refresh_leases semaphore_register semaphore_release semaphore_value "
    "retire_workers versions who_has"
)

SCHEDULER_FOR_CLIENTS: Final = (
    _words(_COORDINATION)
    | frozenset(SCHEDULER_FOR_WORKER_CLIENTS)
    | _words(
        "adaptive_target amm_handler benchmark_hardware broadcast call_stack check_idle dump_cluster_state_to_url "
        "dump_state events feed gather get_cluster_state get_error_cause get_logs get_metadata get_runspec get_story "
        "get_task_prefix_states get_task_status get_task_stream get_task_stream_index logs memory_sampler_start "
        "memory_sampler_stop nbytes ncores ncores_running performance_report processing profile proxy publish_delete "
        "publish_get publish_list publish_put publish_wait_flush rebalance register_nanny_plugin "
        "register_scheduler_plugin "
        "register_worker_plugin replicate restart restart_workers retry run_function scatter set_metadata "
        "set_resources set_restrictions start_task_metadata stop_task_metadata subscribe_worker_status terminate "
        "unregister_nanny_plugin unregister_scheduler_plugin unregister_worker_plugin update_data worker_logs "
        "workers_to_close daskpki-trust"
    )
)
"""Calls of people, services and cluster managers. Many run code on the scheduler, which a client may."""

# --- the scheduler's streams

_REPORT: Final = "worker:text stimulus_id:text"
_OUTCOME: Final = f"{_REPORT} status:text key:key run_id:integer thread:integer? startstops:startstops"

WORKER_STREAM: Final[Mapping[str, Mapping[str, str]]] = {
    "add-keys": arguments(f"{_REPORT} keys:keys"),
    "keep-alive": arguments("worker:text"),
    "log-event": arguments("worker:text topic:topic msg:data"),
    "long-running": arguments(f"{_REPORT} key:key run_id:integer compute_duration:number?"),
    "release-worker-data": arguments(f"{_REPORT} key:key"),
    "request-refresh-who-has": arguments(f"{_REPORT} keys:keys"),
    "reschedule": arguments(f"{_REPORT} key:key"),
    "steal-response": arguments(f"{_REPORT} key:key state:text?"),
    "task-erred": arguments(
        f"{_OUTCOME} exception:error traceback:error exception_text:long-text traceback_text:long-text"
    ),
    "task-finished": arguments(f"{_OUTCOME} nbytes:count? type:bytes? typename:long-text? metadata:mapping"),
    "worker-status-change": arguments(f"{_REPORT} status:status"),
}
"""Messages of a worker on the connection on which it registered, with their arguments."""

CLIENT_STREAM: Final = _words(
    "cancel-keys client-desires-keys client-releases-keys close-client heartbeat-client publish_flush_batched_send "
    "queue-future-release queue_release report-key subscribe-topic unsubscribe-topic update-data update-graph "
    "variable-future-received-confirm variable_delete"
)
"""Messages of a client on the connection on which it registered."""

WORKER_CLIENT_STREAM: Final[Mapping[str, Mapping[str, str]]] = {
    "client-desires-keys": arguments("client:text keys:keys"),
    "client-releases-keys": arguments("client:text keys:keys stimulus_id:text?"),
    "close-client": arguments("client:text"),
    "heartbeat-client": arguments("client:text"),
    "queue-future-release": arguments("client:text name:name key:key"),
    "queue_release": arguments("client:text name:name"),
    "subscribe-topic": arguments("client:text topic:text"),
    "unsubscribe-topic": arguments("client:text topic:text"),
    "variable-future-received-confirm": arguments("client:text name:name key:key token:text"),
    "variable_delete": arguments("client:text name:name"),
}
"""Messages of a client inside a task, in mode `limited`."""

SUBMITTERS_STREAM: Final[Mapping[str, Mapping[str, str]]] = {
    "cancel-keys": arguments("client:text keys:keys force:flag reason:text? msg:text?"),
    "report-key": arguments("client:text key:key"),
    "update-data": arguments("client:text? who_has:mapping nbytes:mapping"),
    "update-graph": arguments(
        "client:text expr_ser:anything keys:keys span_metadata:anything internal_priority:anything "
        "submitting_task:key? user_priority:anything actors:anything fifo_timeout:timeout? code:anything "
        "annotations:anything stimulus_id:text?"
    ),
}
"""Its messages in mode `submit`. Arguments of any kind go to a helper, or are checked where they are used."""

WORKER_CLIENT_TOPICS: Final = frozenset({"print", "warn"})
"""Topics to which every client subscribes when it starts; a worker's client may subscribe to no others."""

SCHEDULER_TO_WORKER_STREAM: Final = _words(
    "acquire-replicas cancel-compute close compute-task free-keys refresh-who-has remove-replicas remove-worker "
    "shuffle-fail steal-request worker-status-change daskpki-trust"
)
"""Messages of the scheduler on the connection on which a worker registered."""

# --- workers and nannies

WORKER_FOR_WORKERS: Final = _words("actor_attribute actor_execute echo get_data identity ping shuffle_receive")
WORKER_FOR_CLIENTS: Final = _words("actor_attribute actor_execute echo get_data identity update_data")
"""`terminate` is left out on purpose: a client stops workers through their scheduler (`retire_workers`,
`Client.shutdown`), which then knows about it. In distributed, only test helpers send `terminate` to a worker.
"""
WORKER_FOR_SCHEDULER: Final = _words(
    "actor_attribute actor_execute benchmark_disk benchmark_memory benchmark_network call_stack dump_state echo "
    "free_keys gather get_data get_logs get_monitor_info get_story identity keys ping plugin-add plugin-remove profile "
    "profile_metadata run run_coroutine shuffle_inputs_done terminate update_data upload_file versions"
)

NANNY_FOR_WORKERS: Final = _words("close_gracefully daskpki-trust echo identity")
NANNY_FOR_SCHEDULER: Final = _words(
    "close_gracefully dump_state echo get_logs identity instantiate kill plugin_add plugin_remove restart run terminate"
)
