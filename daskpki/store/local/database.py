"""The SQLite database of a local store (`schema.sql`): durable transactions and consistent snapshots of it.

- A new database is completed under a temporary name (0600, O_EXCL) and then linked into place, so a crash leaves a
  store or none. The permissions of file, WAL and shared memory are checked before SQLite opens them, as ssh checks its
  keys.
- A directory on a network file system is refused, since the WAL's index is shared memory, which two hosts do not share
  (https://sqlite.org/wal.html, "Overview", point 2). Systems without Linux's list of mounts refuse no directory.
- `journal_mode=WAL` with `synchronous=FULL`: a commit is on the disk when it returns. SQLite reports a failure only in
  the pragma's result, so that is fetched.
- `BEGIN IMMEDIATE` takes the writer's lock first, so no transaction has to be repeated half-way.
- Records, names and labels are in the clear, so listing needs no passphrase; `sealed`, `data_key` and `box` are sealed
  before SQLite sees them, since its write-ahead log keeps old values.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

from daskpki.confidential import Confidential
from daskpki.errors import (
    AccessDeniedError,
    AmbiguousError,
    CorruptError,
    DaskpkiError,
    NotFoundError,
    NotTrustedError,
    UnavailableError,
    UsageError,
)
from daskpki.files import MOUNTS, check_private, check_status, filesystem_types, is_there, status_of

_NETWORK: Final = frozenset(
    ("afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "smb3")
)
_NETWORK_FUSE: Final = frozenset(("ceph", "cvmfs2", "gcsfuse", "glusterfs", "juicefs", "rclone", "s3fs", "sshfs"))


def refuse_network_filesystem(directory: Path, mountinfo: Path = MOUNTS) -> None:
    """Raise UsageError if `directory` is on a file system that several hosts may share."""
    for kind in filter(is_network, filesystem_types(directory, mountinfo)):
        raise UsageError(
            f"{directory} is on a network file system ({kind}), where SQLite loses data",
            hint="choose a directory on a local disk: --store local:/path, or DASKPKI_HOME",
        )


def is_network(kind: str) -> bool:
    """True if several hosts may share a file system of that type."""
    return kind in _NETWORK or (kind.startswith("fuse.") and kind.removeprefix("fuse.") in _NETWORK_FUSE)


_PRIMARY = 0xFF  # the low byte of an extended result code

_RESTORE = "restore the store from a backup"
_STORE_ID: Final = re.compile(r"[0-9a-f]{16}\Z")
# Unreleased versions of daskpki changed the tables without a new number of the format.
_OTHER_SCHEMA: Final = re.compile(r"no such (table|column)|has no column named")
_REFUSED: Final = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH}


@contextmanager
def translated(path: Path, *, committing: bool = False) -> Iterator[None]:
    """Translate SQLite's errors; an I/O error while `committing` is ambiguous: the commit may have been done."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY
        if code == sqlite3.SQLITE_IOERR and committing:
            hint = "check the store's state before you try again"
            raise AmbiguousError(f"{path}: {error} while committing", hint=hint) from error
        raise _meaning(code, error, path) from error
    except UnicodeDecodeError as error:  # sqlite3 decodes the file's texts, also those in its own errors
        what = f"{path} is damaged, or no daskpki store: it contains text that is not UTF-8"
        raise CorruptError(what, hint=_RESTORE) from error


def _meaning(code: int, error: sqlite3.Error, path: Path) -> DaskpkiError:  # noqa: PLR0911 - one for each meaning
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
    if _OTHER_SCHEMA.search(str(error)):
        hint = f"use the version that made it; or move {path.parent} away, and daskpki init-ca makes a new one"
        return NotTrustedError(f"{path} has another format than this daskpki reads ({error})", hint=hint)
    return DaskpkiError(f"{path}: {error}")


APPLICATION_ID: Final = 0x44504B49
"""ASCII "DPKI", which marks a database as ours."""

FORMAT: Final = 1
"""The value of `user_version`; a newer one is refused."""

NAME: Final = "store.db"
BUSY_SECONDS: Final = 60.0
"""Seconds that a writer waits for others before it gives up with UnavailableError."""


class MasterKey(Protocol):
    """The store's master key, which is unlocked when it is first needed."""

    @property
    def is_unlocked(self) -> bool:
        """True if the key is known already."""

    def unlock(self) -> Confidential:
        """The master key; AccessDeniedError with the ways to unlock it."""


Beforehand = Callable[[sqlite3.Connection, Sequence[str]], None]
"""What is done in a transaction before it ends, for the keys that asked for it."""


class Database:
    """The open database of one store; may be shared by threads."""

    def __init__(self, directory: Path, *, busy_seconds: float = BUSY_SECONDS) -> None:
        self.path = directory / NAME
        self._busy_seconds = busy_seconds
        check_files(self.path)
        self._lock = threading.RLock()
        self._depth = 0
        self._closed = False
        self._before: dict[str, Beforehand] = {}
        self._afterwards: list[Callable[[], None]] = []
        self._verified: int | None = None
        self._snapshots: weakref.WeakSet[DatabaseSnapshot] = weakref.WeakSet()
        with translated(self.path):
            self._connection = connect_database(self.path, busy_seconds)
            try:
                self.store_id = read_format(self._connection, self.path)
            except BaseException:
                self._connection.close()
                raise

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction, durable when the block ends and undone when it raises.

        Nested ones are savepoints of the outermost, which alone makes them durable.
        """
        with self._lock, translated(self.path):
            nested = self._depth > 0
            if nested and not self._connection.in_transaction:
                raise UnavailableError(f"{self.path}: the batch was undone by an earlier error")
            self._connection.execute("SAVEPOINT nested" if nested else "BEGIN IMMEDIATE")
            self._depth += 1
            pending = len(self._afterwards)
            try:
                yield self._connection
                if not nested:
                    before, self._before = self._before, {}
                    for action in dict.fromkeys(before.values()):
                        action(self._connection, [key for key, wanted in before.items() if wanted == action])
                with translated(self.path, committing=not nested):
                    self._connection.execute("RELEASE nested" if nested else "COMMIT")
            except BaseException:
                del self._afterwards[pending:]
                if not nested:
                    self._before.clear()
                self._undo(nested=nested)
                raise
            finally:
                self._depth -= 1
            if not nested:
                later, self._afterwards = self._afterwards, []
                for call in later:
                    call()

    def beforehand(self, key: str, action: Beforehand) -> None:
        """Within `write`: call `action` once, with all its keys, at the end of the outermost transaction and in it."""
        self._before.setdefault(key, action)

    @property
    def pending(self) -> Collection[str]:
        """The keys with which `beforehand` was called in the open transaction."""
        return self._before.keys()

    def afterwards(self, action: Callable[[], None]) -> None:
        """Run `action` once the outermost transaction is durable, and not if it is undone; outside of one, at once."""
        with self._lock:  # `_depth` is of the thread that writes
            if self._depth:
                self._afterwards.append(action)
            else:
                action()

    def _undo(self, *, nested: bool) -> None:
        if not self._connection.in_transaction:  # SQLite itself rolls back when the disk is full or fails
            return
        if nested:
            self._connection.execute("ROLLBACK TO nested")
            self._connection.execute("RELEASE nested")
        else:
            self._connection.execute("ROLLBACK")

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Give the connection; all statements in the block see one state, in a batch that of the batch so far."""
        with self._lock, translated(self.path):
            if self._connection.in_transaction:
                yield self._connection
                return
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._undo(nested=False)

    def snapshot(self) -> DatabaseSnapshot:
        """A view of this moment that later commits do not change; inside a batch it is the batch itself."""
        with self._lock:
            if self._depth:
                return DatabaseSnapshot(self.path, self._connection, owned=False)
            if self._closed:
                raise DaskpkiError(f"{self.path} is closed")
            with translated(self.path):
                connection = connect_database(self.path, self._busy_seconds)
                connection.execute("PRAGMA query_only=ON")
                connection.execute("BEGIN")
                connection.execute("SELECT store_id FROM meta").fetchone()  # the first read fixes the snapshot
            snapshot = DatabaseSnapshot(self.path, connection, owned=True)
            self._snapshots.add(snapshot)
            return snapshot

    def verify_once(self, snapshot: DatabaseSnapshot, verify: Callable[[sqlite3.Connection], None]) -> None:
        """Call `verify` with the snapshot, unless nobody else has written to the database since the last call.

        `data_version` changes with each commit of another connection, and with none of this one.
        """
        with self._lock, translated(self.path):
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
            if version != self._verified:
                verify(snapshot.connection)
                (now,) = self._connection.execute("PRAGMA data_version").fetchone()
                self._verified = version if now == version else None

    def erase_remains(self) -> None:
        """Empty the WAL, in which deleted and replaced rows remain; a reader delays that."""
        with self._lock, translated(self.path):
            if self._depth:
                self.afterwards(self.erase_remains)
            else:
                self._connection.execute("PRAGMA busy_timeout=0")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                self._connection.execute(f"PRAGMA busy_timeout={int(1000 * self._busy_seconds)}")

    def close(self) -> None:
        """Close every connection; a second call does nothing."""
        with self._lock:
            self._closed = True
            for snapshot in list(self._snapshots):
                snapshot.close()
            with translated(self.path):
                self._connection.close()


class DatabaseSnapshot:
    """Reads from one connection; an `owned` one stays in its read transaction until the snapshot is forgotten."""

    def __init__(self, path: Path, connection: sqlite3.Connection, *, owned: bool) -> None:
        self._path = path
        self.connection = connection
        self._release = weakref.finalize(self, connection.close) if owned else None

    def row(self, statement: str, *parameters: Any) -> tuple[Any, ...] | None:
        """The first row, or None."""
        with translated(self._path):
            row: tuple[Any, ...] | None = self.connection.execute(statement, parameters).fetchone()
            return row

    def rows(self, statement: str, *parameters: Any) -> Iterator[tuple[Any, ...]]:
        """All rows, streamed."""
        with translated(self._path):
            for row in self.connection.execute(statement, parameters):  # noqa: UP028 - it would close the cursor as well,
                yield row  # which fails once the connection is closed

    def close(self) -> None:
        """End the read transaction of an owned snapshot."""
        if self._release is not None:
            self._release()


def connect_database(path: Path, busy_seconds: float = BUSY_SECONDS, *, new: bool = False) -> sqlite3.Connection:
    """Connect to a store's database, or to an empty file for a `new` one, and set it up for durable commits."""
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode=rw",
        uri=True,
        timeout=busy_seconds,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        if not new:
            check_application(connection, path)
        _set_up(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _set_up(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA trusted_schema=OFF")  # a forged schema calls no functions
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise DaskpkiError(f"SQLite answers with journal mode {mode!r} instead of 'wal'")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON")  # destroyed payloads are overwritten


def check_files(path: Path) -> None:
    """Raise unless only this user can read and replace the store's files, and the store is on a local file system."""
    if not is_there(path):
        hint = "--store names its place; daskpki init-ca creates a new one"
        raise NotFoundError(f"there is no store in {path.parent}", hint=hint)
    check_private(path.parent)
    refuse_network_filesystem(path.parent)
    for file in (path, path.with_name(f"{NAME}-wal"), path.with_name(f"{NAME}-shm")):
        status = status_of(file)
        if status is None:  # SQLite removes the other two whenever the last process closes the store
            continue
        if stat.S_ISLNK(status.st_mode):
            raise NotTrustedError(f"{file} is a symbolic link, and a store's files are not")
        check_status(file, status)


def check_application(connection: sqlite3.Connection, path: Path) -> None:
    """Raise CorruptError for the database of another program, before anything in it is changed.

    The id is read through SQLite, never from the file: closing a file drops every lock that this process has on it.
    Without the locks of another handle, the next process to close the store removes the write-ahead log to which that
    handle still writes (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise CorruptError(f"{path} is not the database of a daskpki store", hint="restore it from a backup")


def read_format(connection: sqlite3.Connection, path: Path) -> str:
    """Return the store's id; NotTrustedError if this daskpki does not read its format."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != FORMAT:
        raise NotTrustedError(f"{path} has format {version}; this daskpki reads {FORMAT}", hint="upgrade daskpki")
    row = connection.execute("SELECT store_id FROM meta").fetchone()
    if row is None or not _STORE_ID.match(str(row[0])):  # it becomes part of a file's name
        raise CorruptError(f"{path} has no valid store id", hint=_RESTORE)
    return str(row[0])
