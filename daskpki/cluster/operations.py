"""The tables: every operation of Dask's servers, and which roles call it. Data only; `policy` reads them.

What is not in a table is denied, so an operation that a newer distributed adds stays out until it was looked at.
Entries for workers on the scheduler name the arguments as well, because a handler may treat one as code:
`retire_workers(key=...)` is unpickled there (scheduler.py of distributed 2026.8.0, line 7387).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DENIED: Final[Mapping[str, str]] = {
    "connection_stream": "it opens the stream handlers to a peer that never registered, and Dask makes no use of it",
}
"""Operations that nobody may call, with the reason."""

# --- the scheduler, asked by remote procedure call

SCHEDULER_FOR_WORKERS: Final[Mapping[str, frozenset[str]]] = {
    "add_keys": _words("worker keys stimulus_id"),
    "echo": _words("data"),
    "event_clear": _words("name"),
    "event_is_set": _words("name"),
    "event_set": _words("name"),
    "event_wait": _words("name timeout"),
    "heartbeat_worker": _words("address resolve_address now resources host_info metrics executing extensions"),
    "identity": _words("n_workers"),
    "log_event": _words("topic msg"),
    "multi_lock_acquire": _words("locks id timeout num_locks"),
    "multi_lock_release": _words("id"),
    "register-worker": _words(
        "address status server_id nthreads name resolve_address now resources host_info memory_limit metrics pid "
        "services local_directory versions nanny extra stimulus_id"
    ),
    "register_nanny": _words("address"),
    "retire_workers": _words("workers close_workers remove stimulus_id"),
    "semaphore_acquire": _words("name timeout lease_id"),
    "semaphore_close": _words("name"),
    "semaphore_refresh_leases": _words("name lease_ids"),
    "semaphore_register": _words("name max_leases lease_timeout"),
    "semaphore_release": _words("name lease_id"),
    "semaphore_value": _words("name"),
    "shuffle_barrier": _words("id run_id consistent"),
    "shuffle_get": _words("id worker"),
    "shuffle_get_or_create": _words("shuffle_id key worker"),
    "shuffle_restrict_task": _words("id run_id key worker"),
    "unregister": _words("address stimulus_id expected close"),
    "versions": _words("packages"),
    "who_has": _words("keys"),
}
"""What workers and nannies ask as such, with the arguments that they may give."""

OWN_ADDRESS: Final[Mapping[str, str]] = {
    "add_keys": "worker",
    "heartbeat_worker": "address",
    "register-worker": "address",
    "retire_workers": "workers",
    "shuffle_get": "worker",
    "shuffle_get_or_create": "worker",
    "shuffle_restrict_task": "worker",
    "unregister": "address",
}
"""The argument that must be the caller's own address: a worker does not speak for another."""

SCHEDULER_FOR_WORKER_CLIENTS: Final[Mapping[str, frozenset[str]]] = {
    "has_what": _words("workers"),
    "ncores": _words("workers"),
    "queue_create": _words("name client maxsize"),
    "queue_get": _words("name client timeout batch"),
    "queue_put": _words("name key data client timeout"),
    "queue_qsize": _words("name client"),
    "register-client": _words("client versions"),
    "variable_get": _words("name client timeout"),
    "variable_set": _words("name key data client timeout"),
}
"""What a client inside a task may ask in mode `limited`: coordination, but nothing that submits or runs."""

SCHEDULERS_OWN_CLIENTS: Final = ("fire-and-forget", "queue-", "variable-")
"""How the names of clients begin that a scheduler keeps for itself: whoever registered as one would end its tasks."""

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
        "memory_sampler_stop nbytes ncores_running performance_report processing profile proxy publish_delete "
        "publish_get publish_list publish_put publish_wait_flush rebalance register_nanny_plugin "
        "register_scheduler_plugin "
        "register_worker_plugin replicate restart restart_workers retry run_function scatter set_metadata "
        "set_resources set_restrictions start_task_metadata stop_task_metadata subscribe_worker_status terminate "
        "unregister_nanny_plugin unregister_scheduler_plugin unregister_worker_plugin update_data worker_logs "
        "workers_to_close daskpki-trust"
    )
)
"""What people, services and cluster managers ask. Many run code on the scheduler: a client may."""

# --- the scheduler's streams

WORKER_STREAM: Final = _words(
    "add-keys keep-alive log-event long-running release-worker-data request-refresh-who-has reschedule steal-response "
    "task-erred task-finished worker-status-change"
)
"""What a worker reports on the connection on which it registered."""

CLIENT_STREAM: Final = _words(
    "cancel-keys client-desires-keys client-releases-keys close-client heartbeat-client publish_flush_batched_send "
    "queue-future-release queue_release report-key subscribe-topic unsubscribe-topic update-data update-graph "
    "variable-future-received-confirm variable_delete"
)
"""What a client says on the connection on which it registered."""

WORKER_CLIENT_STREAM: Final = _words(
    "client-desires-keys client-releases-keys close-client heartbeat-client queue-future-release queue_release "
    "subscribe-topic unsubscribe-topic variable-future-received-confirm variable_delete"
)
"""The same for a client inside a task, in mode `limited`."""

WORKER_CLIENT_TOPICS: Final = frozenset({"print", "warn"})
"""To which every client subscribes at birth; a worker's client in mode `limited` to no others."""

SCHEDULER_TO_WORKER_STREAM: Final = _words(
    "acquire-replicas cancel-compute close compute-task free-keys refresh-who-has remove-replicas remove-worker "
    "shuffle-fail steal-request worker-status-change daskpki-trust"
)
"""What the scheduler orders on the same connection."""

# --- workers and nannies

WORKER_FOR_WORKERS: Final = _words("actor_attribute actor_execute echo get_data identity ping shuffle_receive")
WORKER_FOR_CLIENTS: Final = _words("actor_attribute actor_execute echo get_data identity update_data")
WORKER_FOR_SCHEDULER: Final = _words(
    "actor_attribute actor_execute benchmark_disk benchmark_memory benchmark_network call_stack dump_state echo "
    "free_keys gather get_data get_logs get_monitor_info get_story identity keys ping plugin-add plugin-remove profile "
    "profile_metadata run run_coroutine shuffle_inputs_done terminate update_data upload_file versions"
)

NANNY_FOR_WORKERS: Final = _words("close_gracefully daskpki-trust echo identity")
NANNY_FOR_SCHEDULER: Final = _words(
    "close_gracefully dump_state echo get_logs identity instantiate kill plugin_add plugin_remove restart run terminate"
)
