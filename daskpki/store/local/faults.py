"""What SQLite's errors mean to a user of the store: busy, full, torn, read-only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daskpki.errors import AccessDeniedError, AmbiguousError, CorruptError, DaskpkiError, UnavailableError

_PRIMARY = 0xFF  # the low byte of an extended result code

_RESTORE = "restore the store from a backup"


_REFUSED = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH}


@contextmanager
def translated(path: Path, *, committing: bool = False) -> Iterator[None]:
    """Turn SQLite's errors into ours; while `committing`, an I/O error leaves open whether the commit was done."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY
        if code == sqlite3.SQLITE_IOERR and committing:
            hint = "look what is there before trying again"
            raise AmbiguousError(f"{path}: {error} while committing", hint=hint) from error
        raise _meaning(code, error, path) from error


def _meaning(code: int, error: sqlite3.Error, path: Path) -> DaskpkiError:
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return UnavailableError(f"{path} is busy: another process keeps writing to it", hint="try again later")
    if code == sqlite3.SQLITE_FULL:
        return UnavailableError(f"{path}: the disk is full, so nothing was written", hint="free some space first")
    if code == sqlite3.SQLITE_IOERR:
        return UnavailableError(f"{path}: {error}; nothing was written")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return CorruptError(f"{path} is damaged, or no daskpki store: {error}", hint=_RESTORE)
    if code in _REFUSED:
        return AccessDeniedError(f"{path}: {error}", hint="its directory must be writable, also for reading")
    return DaskpkiError(f"{path}: {error}")
