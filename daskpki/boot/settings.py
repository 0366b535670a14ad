"""The checked settings of one boot, parsed from the values that `options` found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from daskpki.boot.log import JSON, TEXT
from daskpki.boot.mounts import VERSION, Mount, parse_mounts
from daskpki.boot.options import Arguments, values
from daskpki.credentials.contexts import LIMIT_OF_PORTS, parse_scheduler
from daskpki.errors import UsageError
from daskpki.handover import SEALED, USUAL, Freshness
from daskpki.identity import Role, default_name, parse_label, parse_role
from daskpki.pki.pem import parse_fingerprint
from daskpki.quoting import shown
from daskpki.settings import StoreUrl, parse_store_url

INSTANCE: Final = "@instance"
"""Value of `--name` that stands for the VM's name."""

_DIRECTORY: Final = "credential-dir"
_FILE: Final = "credential-file"
_ORIGINS: Final = {
    "store": "DASKPKI_STORE",
    _DIRECTORY: "DASKPKI_CREDENTIAL_DIR",
    _FILE: "DASKPKI_CREDENTIAL_FILE",
}
"""The options that name a source of credentials, and their variables."""

_FROM_STORE: Final = {
    "version": "leave --version out: a directory or a file has one version",
    "secret": "mount the secret as a volume, or read the credential from --store",
}
"""Options that need a store as the source, each with the remedy."""

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9.-]+)\Z")
_DECIMAL = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?\Z")


class Settings(NamedTuple):
    """What to boot, and from which source. `name` is None for the default name of each role.

    `store` is None with a directory; with a file, it only has the trust document, or is None. `versions` pins the
    credentials of some roles; the other roles boot their newest.
    """

    command: str
    roles: tuple[Role, ...]
    name: str | None
    cluster: str
    store: StoreUrl | None
    directory: str | None
    source: str
    scheduler: str | None
    deadline: float
    ca_sha256: str | None
    min_epoch: int
    worker_clients: str
    dashboard: str
    tls_min: str
    threads: int | None
    memory: str | None
    workers: int | None
    worker_user: str | None
    endpoint: str | None
    rest: tuple[str, ...]
    mounts: tuple[Mount, ...] = ()
    versions: Mapping[Role, int] = {}
    log_format: str = TEXT
    freshness: Freshness = USUAL
    health: str | None = None
    metrics: str = "no"
    scheduler_code: str = "stock"
    helper_limits: str | None = None
    helper_user: str | None = None
    retire: int = 20
    file: str | None = None

    @property
    def wanted(self) -> tuple[tuple[Role, str], ...]:
        """Role and name of each credential in the store; UsageError for a client without a name."""
        return tuple((role, self.name or default_name(role)) for role in self.roles)

    def directory_for(self, role: Role) -> str | None:
        """Return the credential directory of a role: for a node, the subdirectory with the name of the role."""
        if self.directory is None or len(self.roles) == 1:
            return self.directory
        return f"{self.directory}/{role.value}"


def parse_settings(arguments: Arguments, environ: Mapping[str, str]) -> Settings:
    """Parse the settings; UsageError names the value, the rule and the remedy."""
    found = values(arguments.given, environ)
    origin, source = _source(arguments.given, environ)
    directory, file = origin.get(_DIRECTORY), origin.get(_FILE)
    _check_combination(arguments, found, origin)
    return Settings(
        command=arguments.command,
        roles=_roles(arguments),
        name=_name(found["name"]),
        cluster=parse_label(found["cluster"], "cluster"),
        store=parse_store_url(found["store"]) if "store" in origin else None,
        directory=directory,
        source=source,
        scheduler=parse_scheduler(found["scheduler"]) if found["scheduler"] else None,
        deadline=float(_number(found, "deadline", 1, 86_400)),
        ca_sha256=parse_fingerprint(pin) if (pin := found["ca-sha256"]) or "ca-sha256" in arguments.given else None,
        min_epoch=_number(found, "min-epoch", 0, 1 << 62),
        worker_clients=_worker_clients(arguments.command, found),
        dashboard=_choice(found, "dashboard", ("loopback", "mtls", "off")),
        tls_min=_choice(found, "tls-min", ("1.3", "1.2")),
        threads=_count(found, "threads-per-worker"),
        memory=_memory(found["memory-per-worker"]),
        workers=_count(found, "num-workers"),
        worker_user=found["worker-user"] or None,
        endpoint=found["endpoint"] or None,
        rest=arguments.rest,
        mounts=parse_mounts(
            found["secret"], in_environment=_choice(found, "allow-secrets-in-environment", ("no", "yes")) == "yes"
        ),
        versions=_versions(found["version"], _roles(arguments)),
        log_format=_choice(found, "log-format", (TEXT, JSON)),
        freshness=Freshness(
            stale_trust=_choice(found, "stale-trust", ("refuse", "allow")),
            poll=_number(found, "poll", 1, 86_400),
            fetch_age=_number(found, "fetch-age", 1, 10_000_000),
            grace=_number(found, "grace", 0, 10_000_000),
        ),
        health=_health(found["health"]),
        metrics=_choice(found, "metrics", ("no", "yes")),
        scheduler_code=_choice(found, "scheduler-code", ("stock", SEALED)),
        helper_limits=found["helper-limits"] or None,  # the sealed scheduler parses them
        helper_user=found["helper-user"] or None,
        retire=_number(found, "retire", 0, 86_400),
        file=file,
    )


def _check_combination(arguments: Arguments, found: Mapping[str, str], origin: Mapping[str, str]) -> None:
    """Raise UsageError for options that do not go with the command, or with each other."""
    command = arguments.command
    for name, way_out in _FROM_STORE.items():
        if found[name] and (_DIRECTORY in origin or _FILE in origin):
            raise UsageError(
                f"--{name} {shown(found[name])} reads a store, and the credential comes from a directory or a file",
                hint=way_out,
            )
    if _FILE in origin and command == "node":
        raise UsageError("a node has two credentials, and --credential-file is one", hint="--credential-dir DIR")
    if command == "exec" and not arguments.rest:
        raise UsageError("exec needs a command", hint="daskpki-entrypoint exec client --name airflow -- python job.py")
    if found["worker-user"] and command != "node":
        raise UsageError(f"--worker-user is for node, and this is {command}", hint="start the container as that user")
    if found["metrics"] == "yes" and not found["health"]:
        raise UsageError(
            "--metrics adds to what --health serves, and --health is not set", hint="--health 0.0.0.0:8790 --metrics"
        )


def _versions(text: str, roles: tuple[Role, ...]) -> Mapping[Role, int]:
    """Parse the version that each role is pinned to: `N`, or `ROLE=N` for a node with its two roles."""
    named = {role.value: role for role in roles} | ({"": roles[0]} if len(roles) == 1 else {})
    versions: dict[Role, int] = {}
    for entry in filter(None, text.split(",")):
        name, _, number = entry.rpartition("=")
        if name not in named or named[name] in versions or not VERSION.match(number):
            example = "3" if len(roles) == 1 else ",".join(f"{role.value}=3" for role in roles)
            raise UsageError(
                f"--version {shown(text)} must give one number for each role that it names ({', '.join(roles)})",
                hint=f"for example --version {example}",
            )
        versions[named[name]] = int(number)
    return versions


def _worker_clients(command: str, found: Mapping[str, str]) -> str:
    """Return the chosen mode, else `allow` for a node whose processes share a user (no boundary), else `limited`."""
    if found["worker-clients"]:
        return _choice(found, "worker-clients", ("deny", "limited", "allow"))
    return "allow" if command == "node" and not found["worker-user"] else "limited"


def _roles(arguments: Arguments) -> tuple[Role, ...]:
    if arguments.command == "node":
        return (Role.SCHEDULER, Role.WORKER)
    return (parse_role(arguments.role if arguments.role is not None else arguments.command),)


def _source(given: Mapping[str, str], environ: Mapping[str, str]) -> tuple[Mapping[str, str], str]:
    """Return the options that name the source, by name, and the source in words.

    The source is the store, a directory, or a file with or without a store for the trust document. The command line
    overrides the environment. A directory or a file is named by its option alone: someone may have passed the content
    instead of the path.
    """
    on_line = {name: given[name] for name in _ORIGINS if given.get(name)}  # an empty value counts as unset
    in_environ = {name: environ[variable] for name, variable in _ORIGINS.items() if environ.get(variable)}
    chosen = on_line or in_environ
    words = {name: f"--{name}" if on_line else _ORIGINS[name] for name in chosen}
    mounted = [name for name in (_DIRECTORY, _FILE) if name in chosen]
    rivals = [*mounted, "store"] if _DIRECTORY in on_line and "store" in on_line else mounted
    if len(rivals) > 1:
        raise UsageError(f"{words[rivals[1]]} and {words[rivals[0]]} are two sources", hint="give one of them")
    if mounted == [_DIRECTORY]:
        ignored = "; DASKPKI_STORE is ignored" if "store" in chosen else ""
        return {_DIRECTORY: chosen[_DIRECTORY]}, words[_DIRECTORY] + ignored
    if mounted:
        return {"store": in_environ["store"], **chosen} if "store" in in_environ else chosen, words[_FILE]
    if not chosen:
        return {"store": ""}, "the default store"
    return chosen, f"--store {chosen['store']}" if on_line else f"DASKPKI_STORE={chosen['store']}"


def _name(text: str) -> str | None:
    return text if text == INSTANCE else parse_label(text, "name") if text else None


def _health(text: str) -> str | None:
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if not _HOST.match(host) or not (port.isascii() and port.isdecimal() and 0 < int(port) < LIMIT_OF_PORTS):
        raise UsageError(
            f"--health {shown(text)} is not ADDRESS:PORT", hint="for example 127.0.0.1:8790 or 0.0.0.0:8790"
        )
    return text


def _number(found: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = found[name]
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):  # noqa: PLR2004
        raise UsageError(f"--{name} {shown(text)} is not a whole number from {least} to {most}")
    return int(text)


def _count(found: Mapping[str, str], name: str) -> int | None:
    return _number(found, name, 1, 4096) if found[name] else None


def _choice(found: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    if found[name] not in allowed:
        raise UsageError(f"--{name} {shown(found[name])} is none of {', '.join(allowed)}")
    return found[name]


def _memory(text: str) -> str | None:
    if text and not (_DECIMAL.match(text) and float(text) > 0):
        raise UsageError(f"--memory-per-worker {shown(text)} is not a number of GB", hint="for example 1 or 3.5")
    return f"{text}GB" if text else None
