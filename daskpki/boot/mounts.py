"""`--secret NAME[@VERSION]=WHERE`: which of the cluster's other secrets a boot mounts, and where. Pure.

WHERE is one of:

    /run/secrets/db-password    a file (0400) at that path, which has to be on tmpfs
    fd                          a sealed memory file; DASKPKI_SECRET_DB_PASSWORD_FILE says its path
    env:PGPASSWORD              the value itself in a variable, only with --allow-secrets-in-environment

Without VERSION, the newest is meant. References in other programs' own syntax (`sm://...`) are not read: the names of
secrets follow from the cluster, so that one role's grants say all that a node can ask for (docs/how-to/secrets.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from daskpki.errors import PolicyError, UsageError
from daskpki.identity import parse_label
from daskpki.quoting import shown

DESCRIPTOR: Final = "fd"
_ENVIRONMENT: Final = "env:"
_FORM: Final = "--secret db-password=/run/secrets/db-password, --secret db-password@3=fd"
_OURS: Final = ("DASK", "LD_", "PYTHON")
_VERSION_DIGITS: Final = 10


class Mount(NamedTuple):
    """One secret to mount; `version` is None for the newest. Either `path`, `variable` or neither (a descriptor)."""

    name: str
    version: int | None = None
    path: str | None = None
    variable: str | None = None


def file_variable(name: str) -> str:
    """The variable that tells a program where a mounted secret can be read."""
    return f"DASKPKI_SECRET_{name.upper().replace('-', '_')}_FILE"


def parse_mounts(text: str, *, in_environment: bool) -> tuple[Mount, ...]:
    """The mounts in a list separated by commas; UsageError, PolicyError for `env:` that was not allowed."""
    mounts = tuple(_parse(entry.strip(), in_environment=in_environment) for entry in text.split(",") if entry.strip())
    _check_distinct("the secret", [mount.name for mount in mounts])
    _check_distinct("the path", [mount.path for mount in mounts if mount.path])
    _check_distinct("the variable", [mount.variable for mount in mounts if mount.variable])
    return mounts


def _parse(entry: str, *, in_environment: bool) -> Mount:
    what, equals, where = entry.partition("=")
    if not equals or not where:
        raise UsageError(f"--secret {shown(entry)} does not say where to", hint=f"for example {_FORM}")
    name, at, version = what.partition("@")
    if at and not _is_version(version):
        raise UsageError(
            f"--secret {shown(entry)}: {shown(version)} is not a version's number", hint=f"for example {_FORM}"
        )
    mount = Mount(parse_label(name, "secret name"), int(version) if at else None)
    if where == DESCRIPTOR:
        return mount
    if where.startswith(_ENVIRONMENT):
        return mount._replace(variable=_parse_variable(entry, where.removeprefix(_ENVIRONMENT), allowed=in_environment))
    return mount._replace(path=_parse_path(entry, where))


def _is_version(text: str) -> bool:
    return text.isascii() and text.isdigit() and not text.startswith("0") and len(text) <= _VERSION_DIGITS


def _parse_variable(entry: str, variable: str, *, allowed: bool) -> str:
    if not (variable.isascii() and variable.isidentifier()) or variable.upper().startswith(_OURS):
        raise UsageError(f"--secret {shown(entry)}: {shown(variable)} is not a variable that may hold a secret")
    if not allowed:
        raise PolicyError(
            f"--secret {shown(entry)} puts the value into the environment, where every child process, each crash "
            "report and whoever may read /proc/PID/environ sees it",
            hint="use a path or fd; where a program can read nothing else, add --allow-secrets-in-environment",
        )
    return variable


def _parse_path(entry: str, path: str) -> str:
    if "://" in path and not path.startswith("/"):
        raise PolicyError(
            f"--secret {shown(entry)}: references are refused, so that a node's grants say all that it can ask for",
            hint=f"copy the value by `daskpki secret set`, then for example {_FORM}",
        )
    if not path.startswith("/") or path.endswith("/") or {"..", "."} & set(path.split("/")) or "\0" in path:
        raise UsageError(
            f"--secret {shown(entry)}: {shown(path)} is not the absolute path of a file", hint=f"for example {_FORM}"
        )
    return path


def _check_distinct(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(f"--secret: {what} {name} is named twice")
        seen.add(name)
