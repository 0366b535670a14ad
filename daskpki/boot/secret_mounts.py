"""Writes mounted secrets to where their program reads them: memory files, files on tmpfs, or permitted variables.

A file replaces an earlier boot's in one step, so no reader sees half of it. Nothing is written to a file system that
the kernel does not report as tmpfs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from daskpki.boot.memfd import Place, is_tmpfs
from daskpki.boot.mounts import Mount, file_variable
from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError, NotTrustedError, UsageError

_MODE: Final = 0o400
_DIRECTORY_MODE: Final = 0o700


class Mounted(NamedTuple):
    """Where secrets can be read, by name; and the variables that say so, or that hold a value."""

    paths: Mapping[str, str]
    variables: Mapping[str, str]


class MountedFiles:
    """Files on tmpfs that were written for a program which has not started yet."""

    def __init__(self) -> None:
        self._written: list[str] = []

    def write(self, path: str, data: bytes) -> None:
        """Write the file (0400), and the directories above it (0700); NotTrustedError on a disk, AccessDeniedError."""
        parent = os.path.dirname(path)  # noqa: PTH120 - pathlib is not loaded otherwise
        _check_tmpfs(path, parent)
        _check_owners(path, parent)
        try:
            os.makedirs(parent, _DIRECTORY_MODE, exist_ok=True)  # noqa: PTH103 - as above
            _replace(path, data)
        except OSError as error:
            raise AccessDeniedError(
                f"the secret cannot be written to {path}: {error.strerror}",
                hint="give this user a tmpfs of its own (docker run --tmpfs /run/secrets:uid=1000), or use fd",
            ) from error
        self._written.append(path)

    def clear(self) -> None:
        """Remove whatever was written."""
        while self._written:
            os.unlink(self._written.pop())  # noqa: PTH108 - as above


def _check_tmpfs(path: str, parent: str) -> None:
    """The nearest directory that exists decides, since those below it are made there."""
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)  # noqa: PTH120 - as above
    if not is_tmpfs(parent):
        raise NotTrustedError(
            f"{path} would lie on a disk: {parent} is not on tmpfs",
            hint="mount one there (docker run --tmpfs, or an emptyDir of medium Memory), or use fd",
        )


def _check_owners(path: str, parent: str) -> None:
    """AccessDeniedError where somebody else's directory, or link, stands on the way: its owner decides what lies there.

    Both the way as it was given and the one to which it leads are looked at.
    """
    for place in sorted({*_upwards(parent), *_upwards(os.path.realpath(parent))}):
        owner = os.lstat(place).st_uid if os.path.lexists(place) else 0
        if owner not in (os.geteuid(), 0):
            raise AccessDeniedError(
                f"{path} would lie below {place}, which belongs to another user (uid {owner})",
                hint="choose a directory of this user's own, or use fd",
            )


def _upwards(directory: str) -> Iterator[str]:
    while directory != os.path.dirname(directory):  # noqa: PTH120 - as above
        yield directory
        directory = os.path.dirname(directory)  # noqa: PTH120 - as above


def _replace(path: str, data: bytes) -> None:
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise FileExistsError(0, "something else than a file is there")
    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.rename(temporary, path)  # noqa: PTH104 - as above
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108 - as above
        raise


def mount_secrets(secrets: Iterable[tuple[Mount, Confidential]], place: Place, files: MountedFiles) -> Mounted:
    """Put each where it is wanted; UsageError for bytes that no variable can hold."""
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
