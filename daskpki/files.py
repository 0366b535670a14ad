"""Files and directories with keys: private from their creation, complete or absent, checked as ssh checks its keys.

A file is written under a temporary name in the same directory (0600, O_EXCL, O_NOFOLLOW), fsynced and moved into place,
and the directory is fsynced, so a crash leaves the old file or the new one.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TextIO

from daskpki.errors import AccessDeniedError, AlreadyExistsError, CorruptError, DaskpkiError, NotFoundError, UsageError
from daskpki.quoting import shortened

PRIVATE_FILE: Final = 0o600
PUBLIC_FILE: Final = 0o644
PRIVATE_DIR: Final = 0o700
MOUNTS: Final = Path("/proc/self/mountinfo")
_TEMPORARY: Final = ".tmp-"
_FORCE: Final = "--force replaces it, or choose another place"
_MAX_SECRET_FILE: Final = 1 << 20


def filesystem_types(path: Path, mountinfo: Path = MOUNTS) -> set[str]:
    """The types of the file system of `path`, by its device number in the kernel's list of mounts; empty if unknown."""
    try:
        number = path.stat().st_dev
        mounts = mountinfo.read_text(errors="surrogateescape").split("\n")
    except OSError:
        return set()
    device = f"{os.major(number)}:{os.minor(number)}"
    # proc(5): the device is the third field, and the type the first one after a dash
    parts = (line.partition(" - ") for line in mounts)
    return {after.split(" ")[0] for before, dash, after in parts if dash and before.split(" ")[2:3] == [device]}


def drop_unwritable(*streams: TextIO | None) -> None:
    """Discard output that these streams cannot write: the interpreter would try again at its end, and exit with 120."""
    for stream in streams:
        if stream is None:  # it was closed when the program began
            continue
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def write_private(
    path: Path, data: bytes, *, force: bool = False, mode: int = PRIVATE_FILE, called: str | None = None
) -> None:
    """Write `data` to `path` in one step; without `force` an existing file raises AlreadyExistsError.

    `mode` is 0600 unless the content is public. OSErrors become errors that name the file by its path, or by `called`.
    """
    with published(path, force=force, mode=mode, called=called, hint=_FORCE) as temporary:
        temporary.write_bytes(data)


class _NotNowError(Exception):
    """Ends the publication of a file before it is in its place."""


def check_writable(path: Path, *, force: bool) -> None:
    """Raise what `write_private` would raise, for a command that does something before it writes."""
    if is_there(path) and (not force or path.is_dir()):
        raise AlreadyExistsError(f"{path} exists", hint="choose another place" if force else _FORCE)
    with suppress(_NotNowError), published(path):
        raise _NotNowError


@contextmanager
def published(
    path: Path,
    *,
    force: bool = False,
    mode: int = PRIVATE_FILE,
    called: str | None = None,
    hint: str = "choose another place, or move it away",
) -> Iterator[Path]:
    """Create a temporary file beside `path`, and move it to `path` once the block has ended and its content is on disk.

    Errors as from `write_private`; `hint` is that of AlreadyExistsError.
    """
    name = called or path
    temporary = path.with_name(f"{_TEMPORARY}{path.name}-{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), mode)
        try:
            try:
                yield temporary
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if force:
                temporary.replace(path)
            else:
                os.link(temporary, path)  # unlike rename, link never replaces: two writers cannot both succeed
            sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        raise AlreadyExistsError(f"{name} exists", hint=hint) from None
    except OSError as error:
        raise os_error(error, name) from (None if called else error)


def sync_directory(path: Path) -> None:
    """Make a new or renamed entry of a directory durable."""
    if os.name == "nt":  # directories cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private_directory(path: Path) -> None:
    """Create `path` (0700) and its missing parents; an existing one is checked by `check_private`."""
    make_directory(path, PRIVATE_DIR)
    check_private(path)


def make_directory(path: Path, mode: int = 0o777) -> None:
    """Create `path` and its missing parents, unless it is there; AccessDeniedError."""
    try:
        path.mkdir(mode, parents=True, exist_ok=True)
    except OSError as error:
        raise os_error(error, path) from error


def check_private(path: Path) -> None:
    """Raise AccessDeniedError unless `path` is ours and closed to group and others, as ssh checks its keys.

    NotFoundError if it is missing. Windows has no such modes, so only existence is checked there.
    """
    try:
        status = path.stat(follow_symlinks=True)
    except OSError as error:
        raise os_error(error, path) from error
    check_status(path, status)


def check_status(
    path: Path | str, status: os.stat_result, *, forbidden: int = 0o077, own_uid: int | None = None, more: str = ""
) -> None:
    """Raise AccessDeniedError unless this user or root owns the file, and if its mode has a `forbidden` bit.

    `own_uid` is this user's, by default that of this process; `more` is added to the hint.
    """
    if os.name == "nt":
        return
    if status.st_uid not in (os.geteuid() if own_uid is None else own_uid, 0):
        raise AccessDeniedError(f"{path} belongs to another user (uid {status.st_uid})")
    mode = stat.S_IMODE(status.st_mode)
    if mode & forbidden:
        from shlex import quote  # for the error alone

        place = quote(str(path)) if isinstance(path, Path) else "FILE"
        raise AccessDeniedError(
            f"{path} is open to others (mode {mode:04o})", hint=f"chmod {mode & ~forbidden:o} {place}{more}"
        )


def read_private(path: Path, *, limit: int = _MAX_SECRET_FILE, called: str | None = None) -> bytes:
    """Read a file that only we may read; AccessDeniedError, NotFoundError, UsageError beyond `limit` bytes.

    Messages have `called` instead of a path that came from a setting: it may be the content, given by mistake.
    """
    name = called or path
    try:
        with path.open("rb") as file:
            check_status(name, os.fstat(file.fileno()))  # of the open file: the path may name another one by now
            data = file.read(limit + 1)
    except OSError as error:
        raise os_error(error, name) from (None if called else error)
    except ValueError:  # a NUL in the path
        raise UsageError(f"{name} is not named by a path") from None
    if len(data) > limit:
        raise UsageError(f"{name} is larger than {limit} bytes, so it was not read")
    return data


def read_private_if_there(path: Path, *, limit: int = _MAX_SECRET_FILE) -> bytes | None:
    """Read a file as `read_private` does; None if there is none. A dangling link raises NotFoundError.

    It does not look before it reads, since the file may be deleted in between.
    """
    try:
        return read_private(path, limit=limit)
    except NotFoundError:
        if is_there(path):
            raise
        return None


def read_file(path: Path, *, limit: int | None = None) -> bytes:
    """Read a file that is not secret; CorruptError beyond `limit` bytes, NotFoundError, AccessDeniedError."""
    try:
        with path.open("rb") as file:
            data = file.read(-1 if limit is None else limit + 1)
    except OSError as error:
        raise os_error(error, path) from error
    if limit is not None and len(data) > limit:
        raise CorruptError(f"{path} is larger than {limit} bytes, so it was not read")
    return data


def is_there(path: Path) -> bool:
    """True if the name exists, also as a dangling link; AccessDeniedError without permission to find out.

    Without that permission, `Path.exists` raises up to Python 3.13, and returns False from 3.14 on.
    """
    return status_of(path) is not None


def status_of(path: Path) -> os.stat_result | None:
    """The status of the name itself, also of a link, None if there is none; AccessDeniedError."""
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise os_error(error, path) from error


def names_in(directory: Path) -> list[str]:
    """List the names in a directory, none if it is missing; AccessDeniedError, which `glob` hides."""
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208 - names are what is wanted
    except OSError as error:
        if not is_there(directory):
            return []
        raise os_error(error, directory) from error


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory's advisory lock, which leaves no lock file; does nothing on Windows, which has none.

    The system drops it when the process ends.
    """
    if os.name == "nt":
        yield
        return
    import fcntl

    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise os_error(error, directory) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def remove_if_empty(directory: Path) -> None:
    """Remove a directory unless something is in it; does not look first, since another process may add or remove."""
    with suppress(OSError):
        directory.rmdir()


def remove_leftovers(directory: Path) -> None:
    """Delete the temporary files that a crash left; the caller holds the directory's lock."""
    for path in directory.glob(f"{_TEMPORARY}*"):
        path.unlink(missing_ok=True)


def write_and_read_back(path: Path, data: bytes, *, called: str) -> None:
    """Write a file with a key that will seal something, and read it again; remove it if that fails.

    A drive that keeps no permissions accepts the file; reading it then fails, since it is open to others.
    """
    write_private(path, data, called=called)
    try:
        intact = read_private(path, limit=len(data), called=called) == data
    except AccessDeniedError as error:
        path.unlink(missing_ok=True)
        raise AccessDeniedError(
            f"{error}, as it was just written: that drive keeps no permissions",
            hint="choose a place on another drive (and, under WSL, none of Windows)",
        ) from None
    if not intact:
        path.unlink(missing_ok=True)
        raise DaskpkiError(f"{called} does not contain what was written to it", hint="choose a place on another drive")


def os_error(error: OSError, path: Path | str) -> DaskpkiError:
    """Translate an OSError: not found, denied, or failed with the system's own message."""
    reason = error.strerror or type(error).__name__
    name = shortened(str(path))
    if isinstance(error, FileNotFoundError) or error.errno == errno.ENAMETOOLONG:  # no file has so long a name
        return NotFoundError(f"{name} does not exist")
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return AccessDeniedError(f"{name}: {reason}")
    return DaskpkiError(f"{name}: {reason}")
