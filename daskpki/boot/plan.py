"""Turns settings into programs, with their arguments and Dask configuration. Pure.

Dask's precedence matters: a `--preload` on the command line replaces the configured ones, so ours is given there too.
An environment variable overrides Dask's YAML files, so required settings are set there. Cores are counted as Dask
counts them: by affinity and the container's limit.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from daskpki.boot.log import JSON, TEXT
from daskpki.boot.options import check_contact_address, check_dask_arguments, has_option, starts_worker
from daskpki.boot.settings import Settings
from daskpki.credentials.contexts import DEFAULT_PORT, parse_scheduler
from daskpki.errors import NotTrustedError, UsageError
from daskpki.handover import VARIABLE, Handover
from daskpki.identity import Role

_LIMIT = "/sys/fs/cgroup/cpu.max"


def usable_cores(limit_file: str = _LIMIT) -> int:
    """Count the cores, at least 1. `limit_file` has cgroup v2's `QUOTA PERIOD` (microseconds), or `max PERIOD`."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path(limit_file).read_text("ascii").split()
        return max(1, min(allowed, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return max(1, allowed)


PRELOAD: Final = "daskpki.boot.preload"
SECURITY_LOADER: Final = "daskpki.loader.security_loader"
_LOOPBACK: Final = "127.0.0.1"
_LOGGING: Final = "DASK_LOGGING"
_STRUCTURED: Final = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "daskpki.boot.log.CloudFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"level": "WARNING", "handlers": ["stderr"]},
    "loggers": {  # distributed's own defaults
        "distributed": {"level": "INFO"},
        "distributed.client": {"level": "WARNING"},
        "distributed.gc": {"level": "WARNING"},
        "bokeh": {"level": "ERROR"},
        "tornado": {"level": "CRITICAL"},
        "tornado.application": {"level": "ERROR"},
    },
}


class Program(NamedTuple):
    """One program to exec: with the credential of `role`, and as `user` if that is another user."""

    role: Role
    argv: tuple[str, ...]
    user: str | None = None


def plan_programs(settings: Settings, known_schedulers: tuple[str, ...], cores: int) -> tuple[Program, ...]:
    """Plan the programs, whose arguments were checked, in the order of their start.

    `known_schedulers` are the addresses in the trust document. UsageError for a worker without a scheduler.
    """
    if settings.command == "exec":
        return (Program(settings.roles[0], _completed(settings.rest)),)
    if settings.command == "scheduler":
        return (_scheduler(settings, settings.rest),)
    if settings.command == "worker":
        return (_worker(settings, _find_scheduler(settings, known_schedulers), cores),)
    port = settings.scheduler.rpartition(":")[2] if settings.scheduler else str(DEFAULT_PORT)
    # Without other settings, one worker per core.
    threads = settings.threads or (max(1, cores // settings.workers) if settings.workers else 1)
    worker = _worker(settings._replace(threads=threads), f"tls://{_LOOPBACK}:{port}", cores)
    return (_scheduler(settings, ("--port", port)), worker)


def check_arguments(settings: Settings) -> None:
    """Raise PolicyError for refused Dask arguments before anything is fetched."""
    if settings.command != "exec":
        check_dask_arguments(settings.roles[-1], settings.rest, settings.dashboard)
    elif starts_worker(settings.rest):
        check_contact_address(settings.rest)


def _scheduler(settings: Settings, arguments: tuple[str, ...]) -> Program:
    options = [*_dashboard(settings, arguments, 8787), "--preload", PRELOAD]
    return Program(Role.SCHEDULER, _dask("scheduler", *options, *arguments))


def _worker(settings: Settings, scheduler: str | None, cores: int) -> Program:
    arguments = settings.rest
    address = [scheduler] if scheduler else []
    options = [*_sizes(settings, cores), *_dashboard(settings, arguments, 0)]
    preloads = ["--preload", PRELOAD, "--preload-nanny", PRELOAD]
    return Program(Role.WORKER, _dask("worker", *address, *options, *preloads, *arguments), settings.worker_user)


def _dask(program: str, *arguments: str) -> tuple[str, ...]:
    # `dask` would first load the commands of every package that adds some. dask-jobqueue starts its workers like this.
    # -P: a module in the working directory does not take the place of Dask's.
    return (sys.executable, "-P", "-m", f"distributed.cli.dask_{program}", *arguments)


def _completed(command: tuple[str, ...]) -> tuple[str, ...]:
    """For Dask's worker command under `exec`, add the options that no configuration can set, if they are missing.

    `dask worker` ignores `distributed.nanny.preload`, and binds its pages to all interfaces. dask-jobqueue starts
    workers like this.
    """
    if not starts_worker(command):
        return command
    options = {"--preload-nanny": PRELOAD, "--dashboard-address": f"{_LOOPBACK}:0"}
    missing = [word for option in options.items() if not has_option(command, option[0]) for word in option]
    return (*command, *missing)


def _dashboard(settings: Settings, arguments: tuple[str, ...], port: int) -> list[str]:
    """Bind the dashboard to loopback, also with --no-dashboard: Dask serves some pages even then."""
    host = "" if settings.dashboard == "mtls" else _LOOPBACK  # to Dask, "" is every interface
    options = [] if has_option(arguments, "--dashboard-address") else ["--dashboard-address", f"{host}:{port}"]
    return [*options, "--no-dashboard"] if settings.dashboard == "off" else options


def _sizes(settings: Settings, cores: int) -> list[str]:
    """Translate THREADS_PER_WORKER, NUM_WORKERS and MEMORY_PER_WORKER to Dask's options, if they are set."""
    threads, workers = settings.threads, settings.workers
    if threads and not workers:
        workers = max(1, cores // threads)
    options = {"--nworkers": workers, "--nthreads": threads, "--memory-limit": settings.memory}
    return [
        word
        for name, value in options.items()
        if value and not has_option(settings.rest, name)
        for word in (name, str(value))
    ]


def _find_scheduler(settings: Settings, known: tuple[str, ...]) -> str | None:
    """Return the scheduler's address; None if it is the first of Dask's arguments, or in a file that they name.

    Whatever such a file contains, Dask speaks TLS only, and only to a scheduler's certificate.
    """
    given = settings.rest[0] if settings.rest and settings.rest[0].startswith("tls://") else None
    if given or has_option(settings.rest, "--scheduler-file"):
        if settings.scheduler:
            other = given or "a file"
            reason = f"two schedulers: {settings.scheduler} (--scheduler or DASKPKI_SCHEDULER), and {other} after `--`"
            raise UsageError(reason, hint="give one of them")
        return None
    if settings.scheduler:
        return settings.scheduler
    if len(known) == 1:
        try:
            return parse_scheduler(known[0])  # it becomes an argument of Dask's
        except UsageError as error:
            raise NotTrustedError(
                f"the trust document's scheduler: {error}", hint="DASKPKI_SCHEDULER=tls://HOST:PORT names another one"
            ) from None
    several = f" (the trust document names {', '.join(known)})" if known else ""
    raise UsageError(f"the worker does not know its scheduler{several}", hint="DASKPKI_SCHEDULER=tls://HOST:PORT")


def dask_environment(
    handover: Handover, path: str, environ: Mapping[str, str], log_format: str = TEXT
) -> dict[str, str]:
    """Make a program's environment: `environ` without conflicting variables, and Dask's configuration for the role.

    `path` is where `handover` can be read. A variable conflicts if Dask would read it as one of our settings or as a
    parent of one: `DASK_DISTRIBUTED__COMM__TLS` replaces everything below it, and `-` and `_` are the same to Dask.
    If `environ` configures Dask's logging, that configuration is kept.
    """
    ours = _configuration(handover)
    if log_format == JSON and not any(_canonical(name).startswith(_LOGGING) for name in environ):
        ours[_LOGGING] = repr(_STRUCTURED)  # Dask reads it as a Python literal
    kept = {
        name: value
        for name, value in environ.items()
        if not any(f"{each}__".startswith(f"{_canonical(name)}__") for each in ours)
    }
    return {**kept, **ours, VARIABLE: path}


def _configuration(handover: Handover) -> dict[str, str]:
    preload = f'["{PRELOAD}"]'
    tls = {"CA_FILE": handover.ca, "MIN_VERSION": handover.tls_min}
    for user in {handover.role, Role.CLIENT.value}:  # a worker's tasks connect as clients, with the worker's leaf
        tls[f"{user.upper()}__CERT"] = handover.cert
        tls[f"{user.upper()}__KEY"] = handover.key
    # Dask's own TLS for its HTTP servers, workers' too. It requires no certificate, but is never in the clear;
    # before a connection is accepted, the preload replaces its context by one that requires a certificate
    # (cluster/web/server.py).
    pages = {"CERT": handover.cert, "KEY": handover.key, "CA_FILE": handover.ca} if handover.dashboard == "mtls" else {}
    settings = {
        "COMM__REQUIRE_ENCRYPTION": "True",
        "COMM__DEFAULT_SCHEME": "tls",
        "CLIENT__SECURITY_LOADER": SECURITY_LOADER,
        "SCHEDULER__PRELOAD": preload,
        "WORKER__PRELOAD": preload,
        "NANNY__PRELOAD": preload,
        **{f"COMM__TLS__{name}": value for name, value in tls.items()},
        **{f"SCHEDULER__DASHBOARD__TLS__{name}": value for name, value in pages.items()},
    }
    return {f"DASK_DISTRIBUTED__{name}": value for name, value in settings.items()}


def _canonical(variable: str) -> str:
    return variable.upper().replace("-", "_")
