"""Mounts user secrets by `--secret NAME[@VERSION]=WHERE`: parses the option, and writes the secrets.

WHERE is one of:

    /run/secrets/db-password    a file (0400) at that path, which has to be on tmpfs
    fd                          a sealed memory file; DASKPKI_SECRET_DB_PASSWORD_FILE says its path
    env:PGPASSWORD              the value itself in a variable, only with --allow-secrets-in-environment

VERSION defaults to the newest. References in the syntax of other programs (`sm://...`) are refused: the names of
secrets follow from the cluster, so that the grants of a role show all that a node can ask for (docs/how-to/secrets.md).

A file replaces that of an earlier boot in one step, so no reader sees half of it. Nothing is written to a file system
that the kernel does not report as tmpfs.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from daskpki.boot.memfd import Place, is_tmpfs
from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError, NotTrustedError, PolicyError, UsageError
from daskpki.identity import parse_label
from daskpki.quoting import shown

DESCRIPTOR: Final = "fd"
_ENVIRONMENT: Final = "env:"
_FORM: Final = "--secret db-password=/run/secrets/db-password, --secret db-password@3=fd"
_OURS: Final = ("DASK", "LD_", "PYTHON")
VERSION: Final = re.compile(r"[1-9][0-9]{0,9}\Z")
"""The number of a version, as an option has it."""


class Mount(NamedTuple):
    """One secret to mount; `version` is None for the newest. It has a `path`, a `variable`, or neither (a memfd)."""

    name: str
    version: int | None = None
    path: str | None = None
    variable: str | None = None


def file_variable(name: str) -> str:
    """Name of the variable with the path of a mounted secret."""
    return f"DASKPKI_SECRET_{name.upper().replace('-', '_')}_FILE"


def parse_mounts(text: str, *, in_environment: bool) -> tuple[Mount, ...]:
    """Parse a list of mounts, separated by commas; UsageError, PolicyError for `env:` without permission."""
    mounts = tuple(_parse(entry.strip(), in_environment=in_environment) for entry in text.split(",") if entry.strip())
    _check_distinct("the secret", [mount.name for mount in mounts])
    _check_distinct("the path", [mount.path for mount in mounts if mount.path])
    _check_distinct("the variable", [mount.variable for mount in mounts if mount.variable])
    return mounts


def _parse(entry: str, *, in_environment: bool) -> Mount:
    what, equals, where = entry.partition("=")
    if not equals or not where:
        raise UsageError(f"--secret {shown(entry)} does not name a place", hint=f"for example {_FORM}")
    name, at, version = what.partition("@")
    if at and not VERSION.match(version):
        raise UsageError(
            f"--secret {shown(entry)}: {shown(version)} is not a version's number", hint=f"for example {_FORM}"
        )
    mount = Mount(parse_label(name, "secret name"), int(version) if at else None)
    if where == DESCRIPTOR:
        return mount
    if where.startswith(_ENVIRONMENT):
        return mount._replace(variable=_parse_variable(entry, where.removeprefix(_ENVIRONMENT), allowed=in_environment))
    return mount._replace(path=_parse_path(entry, where))


def _parse_variable(entry: str, variable: str, *, allowed: bool) -> str:
    if not (variable.isascii() and variable.isidentifier()) or variable.upper().startswith(_OURS):
        raise UsageError(f"--secret {shown(entry)}: {shown(variable)} is not a variable that may hold a secret")
    if not allowed:
        raise PolicyError(
            f"--secret {shown(entry)} puts the value into the environment, where every child process, each crash "
            "report and every reader of /proc/PID/environ sees it",
            hint="use a path or fd; where a program can read nothing else, add --allow-secrets-in-environment",
        )
    return variable


def _parse_path(entry: str, path: str) -> str:
    if "://" in path and not path.startswith("/"):
        raise PolicyError(
            f"--secret {shown(entry)}: references are refused, so that a node's grants show all that it can ask for",
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


_MODE: Final = 0o400
_DIRECTORY_MODE: Final = 0o700


class Mounted(NamedTuple):
    """Paths of mounted secrets by name, and the variables with a path or a value."""

    paths: Mapping[str, str]
    variables: Mapping[str, str]


class MountedFiles:
    """Files on tmpfs for a program that has not started yet."""

    def __init__(self) -> None:
        self._written: list[Path] = []

    def write(self, path: str, data: bytes) -> None:
        """Write the file (0400), and the directories above it (0700); NotTrustedError on a disk, AccessDeniedError."""
        file = Path(path)
        try:
            _check_place(file)
            file.parent.mkdir(_DIRECTORY_MODE, parents=True, exist_ok=True)
            _check_place(file)  # if it was missing, another user may have created it first
            _replace(file, data)
        except OSError as error:
            raise AccessDeniedError(
                f"the secret cannot be written to {path}: {error.strerror}",
                hint="give this user a tmpfs of its own (docker run --tmpfs /run/secrets:uid=1000), or use fd",
            ) from error
        self._written.append(file)

    def clear(self) -> None:
        """Remove the files."""
        while self._written:
            self._written.pop().unlink(missing_ok=True)


def _check_place(path: Path) -> None:
    """Raise NotTrustedError on a disk, AccessDeniedError if another user owns a directory or link on the path.

    That owner would control the content.
    """
    nearest = next(filter(os.path.lexists, path.parents))  # its file system decides
    if not is_tmpfs(str(nearest)):
        raise NotTrustedError(
            f"{path} would lie on a disk: {nearest} is not on tmpfs",
            hint="mount one there (docker run --tmpfs, or an emptyDir of medium Memory), or use fd",
        )
    for place in sorted(_on_the_way(path)):
        owner = place.lstat().st_uid if os.path.lexists(place) else 0
        if owner not in (os.geteuid(), 0):
            raise AccessDeniedError(
                f"{path} would lie below {place}, which belongs to another user (uid {owner})",
                hint="choose a directory of this user's own, or use fd",
            )


def _on_the_way(path: Path) -> set[Path]:
    """Return each directory and link above `path` but the root, also the links that other links lead to."""
    found: set[Path] = set()
    unseen = [path]
    while unseen:
        new = set(unseen.pop().parents[:-1]) - found
        found |= new
        # The base is resolved, so that a circle of links leads back to the same paths.
        unseen += [Path(os.path.realpath(link.parent)) / link.readlink() / "any" for link in new if link.is_symlink()]
    return found


def _replace(path: Path, data: bytes) -> None:
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise FileExistsError(0, "something else than a file is there")
    temporary = Path(f"{path}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.rename(path)
    except BaseException:
        temporary.unlink()
        raise


def mount_secrets(secrets: Iterable[tuple[Mount, Confidential]], place: Place, files: MountedFiles) -> Mounted:
    """Write each secret to its place; UsageError for bytes that cannot be in a variable."""
    paths: dict[str, str] = {}
    variables: dict[str, str] = {}
    for mount, value in secrets:
        if mount.variable is not None:
            variables[mount.variable] = _text(mount, value)
            continue
        if mount.path is not None:
            files.write(mount.path, value.reveal())
        paths[mount.name] = mount.path or place.put(f"secret-{mount.name}", value.reveal())
    return Mounted(paths, {**{file_variable(name): path for name, path in paths.items()}, **variables})


def _text(mount: Mount, value: Confidential) -> str:
    try:
        text = value.reveal().decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UsageError(
            f"the secret {mount.name} is not text, so the variable {mount.variable} cannot hold it",
            hint=f"--secret {mount.name}=fd",
        )
    return text
