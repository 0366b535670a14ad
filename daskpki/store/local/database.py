"""The SQLite database of a local store (`schema.sql`): durable transactions and consistent snapshots of it.

- It is made complete under a temporary name (0600, O_EXCL) and then linked into place, so a crash leaves a store or
  none. File, WAL and shared memory are checked as ssh checks its keys before SQLite opens them.
- A directory on a network file system is refused, since the WAL's index is shared memory, which two hosts do not share
  (https://sqlite.org/wal.html, "Overview", point 2). Linux lists mounts in /proc/self/mountinfo; where there is no such
  file, nothing is refused.
- `journal_mode=WAL` with `synchronous=FULL`: a commit is on the disk when it returns. The pragma's answer is fetched,
  since SQLite reports a failure only there.
- `BEGIN IMMEDIATE` takes the one writer's lock first, so that no transaction has to be repeated half-way.
- Records, names and labels are in the clear, so that listing needs no passphrase; `sealed`, `data_key` and `box` are
  sealed before SQLite sees them, since its write-ahead log keeps what it was given.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
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
from daskpki.files import check_private, is_there

_MOUNTS: Final = Path("/proc/self/mountinfo")
_NETWORK: Final = frozenset(
    ("afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "smb3")
)
_NETWORK_FUSE: Final = frozenset(("ceph", "cvmfs2", "gcsfuse", "glusterfs", "juicefs", "rclone", "s3fs", "sshfs"))


def refuse_network_filesystem(directory: Path, mountinfo: Path = _MOUNTS) -> None:
    """Raise UsageError when `directory` is on a file system that several hosts may share."""
    try:
        mounts = mountinfo.read_text(errors="surrogateescape")
    except OSError:
        return
    kind = filesystem_type(mounts, directory.resolve())
    if is_network(kind):
        raise UsageError(
            f"{directory} is on a network file system ({kind}), where SQLite loses data",
            hint="choose a directory on a local disk: --store local:/path, or DASKPKI_HOME",
        )


def is_network(kind: str) -> bool:
    """True if a file system of that type may be shared by several hosts."""
    return kind in _NETWORK or (kind.startswith("fuse.") and kind.removeprefix("fuse.") in _NETWORK_FUSE)


def filesystem_type(mounts: str, directory: Path) -> str:
    """The type of the file system of `directory`; `mounts` is the text of /proc/self/mountinfo (proc(5))."""
    inside, best, kind = f"{directory}/", "", ""
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if not separator or len(fields) < 5:  # noqa: PLR2004 - the mount point is the fifth
            continue
        # proc(5) escapes space, tab, newline and backslash in octal
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4]).rstrip("/") + "/"
        if inside.startswith(point) and len(point) >= len(best):  # a later mount hides an earlier one
            best, kind = point, after.split(" ")[0]
    return kind


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
    except UnicodeDecodeError as error:  # sqlite3 decodes the file's texts, also those in its own errors
        what = f"{path} is damaged, or no daskpki store: it contains text that is not UTF-8"
        raise CorruptError(what, hint=_RESTORE) from error


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


APPLICATION_ID: Final = 0x44504B49
"""ASCII "DPKI", by which a database is known as ours."""

FORMAT: Final = 1
"""Kept in `user_version`; a newer one is refused."""

NAME: Final = "store.db"
BUSY_SECONDS: Final = 60.0
"""Seconds that a writer waits for others before it gives up with UnavailableError."""


class MasterKey(Protocol):
    """The store's master key, asked for when it is needed first."""

    @property
    def is_unlocked(self) -> bool:
        """True if it is at hand without asking anybody."""

    def unlock(self) -> Confidential:
        """The master key; AccessDeniedError with the ways to it."""


class Database:
    """The open database of one store; may be shared by threads."""

    def __init__(self, directory: Path, *, busy_seconds: float = BUSY_SECONDS) -> None:
        self.path = directory / NAME
        self._busy_seconds = busy_seconds
        check_files(self.path)
        self._lock = threading.RLock()
        self._depth = 0
        self._closed = False
        self._before: dict[str, Callable[[sqlite3.Connection], None]] = {}
        self._afterwards: list[Callable[[], None]] = []
        self._verified: int | None = None
        self._snapshots: weakref.WeakSet[DatabaseSnapshot] = weakref.WeakSet()
        with translated(self.path):
            self._connection, self.store_id = _open(self.path, busy_seconds)

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
                    actions, self._before = self._before, {}
                    for action in actions.values():
                        action(self._connection)
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

    def beforehand(self, key: str, action: Callable[[sqlite3.Connection], None]) -> None:
        """Within `write`: run `action` once, at the end of the outermost transaction, as part of it."""
        self._before.setdefault(key, action)

    def is_pending(self, key: str) -> bool:
        """True if `beforehand` was called with that key in the open transaction."""
        return key in self._before

    def afterwards(self, action: Callable[[], None]) -> None:
        """Within `write`: run `action` once the outermost transaction is durable, and not if it is undone."""
        self._afterwards.append(action)

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
        """The connection; the block's statements see one state, which inside a batch is the batch itself."""
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
            snapshot = DatabaseSnapshot(self.path, _begin_reading(self.path, self._busy_seconds), owned=True)
            self._snapshots.add(snapshot)
            return snapshot

    def verify_once(self, snapshot: DatabaseSnapshot, verify: Callable[[sqlite3.Connection], None]) -> None:
        """Let `verify` look at the snapshot, unless nobody else wrote to the database since it last did.

        `data_version` changes with each commit of another connection, and with none of this one.
        """
        with self._lock, translated(self.path):
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
            if version != self._verified:
                snapshot.apply(verify)
                (now,) = self._connection.execute("PRAGMA data_version").fetchone()
                self._verified = version if now == version else None

    def erase_remains(self) -> None:
        """Empty the WAL, in which deleted and replaced rows remain; a reader in the way delays it."""
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
        self._connection = connection
        self._release = weakref.finalize(self, connection.close) if owned else None

    def row(self, statement: str, *parameters: Any) -> tuple[Any, ...] | None:
        """The first row, or None."""
        with translated(self._path):
            row: tuple[Any, ...] | None = self._connection.execute(statement, parameters).fetchone()
            return row

    def rows(self, statement: str, *parameters: Any) -> Iterator[tuple[Any, ...]]:
        """All rows, streamed."""
        with translated(self._path):
            for row in self._connection.execute(statement, parameters):  # noqa: UP028 - it would close the cursor as well,
                yield row  # which fails once the connection is closed

    def apply(self, look: Callable[[sqlite3.Connection], None]) -> None:
        """Let `look` read from the snapshot's connection."""
        with translated(self._path):
            look(self._connection)

    def close(self) -> None:
        """End the read transaction of an owned snapshot."""
        if self._release is not None:
            self._release()


def connect_database(path: Path, busy_seconds: float = BUSY_SECONDS, *, new: bool = False) -> sqlite3.Connection:
    """A connection to a store's database, or to an empty file where a `new` one is made, set up for durable commits."""
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


def _open(path: Path, busy_seconds: float) -> tuple[sqlite3.Connection, str]:
    """A connection, and the id of the store."""
    connection = connect_database(path, busy_seconds)
    try:
        return connection, read_format(connection, path)
    except BaseException:
        connection.close()
        raise


def _set_up(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA trusted_schema=OFF")  # a forged schema calls no functions
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise DaskpkiError(f"SQLite answers with journal mode {mode!r} instead of 'wal'")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON")  # what is destroyed is overwritten


def _begin_reading(path: Path, busy_seconds: float) -> sqlite3.Connection:
    with translated(path):
        connection = connect_database(path, busy_seconds)
        connection.execute("PRAGMA query_only=ON")
        connection.execute("BEGIN")
        connection.execute("SELECT store_id FROM meta").fetchone()  # the first read decides what is seen
        return connection


def check_files(path: Path) -> None:
    """Refuse a store whose files others can read or replace, and one on a network file system."""
    if not is_there(path):
        hint = "--store says where it is; daskpki init-ca makes a new one"
        raise NotFoundError(f"there is no store in {path.parent}", hint=hint)
    check_private(path.parent)
    refuse_network_filesystem(path.parent)
    for file in (path, path.with_name(f"{NAME}-wal"), path.with_name(f"{NAME}-shm")):
        if file.is_symlink():
            raise NotTrustedError(f"{file} is a symbolic link, and a store's files are not")
        if file.exists():
            check_private(file)


def check_application(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse another program's database before anything in it is changed; CorruptError.

    SQLite is asked, and the file is never opened beside it: closing a file drops every lock that this process has on
    it. Without those of another handle, the next process to close the store removes the write-ahead log into which
    that handle goes on writing (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise CorruptError(f"{path} is not the database of a daskpki store", hint="restore it from a backup")


def read_format(connection: sqlite3.Connection, path: Path) -> str:
    """The store's id, once its format is known to be one that this daskpki reads."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != FORMAT:
        raise NotTrustedError(f"{path} has format {version}; this daskpki reads {FORMAT}", hint="upgrade daskpki")
    row = connection.execute("SELECT store_id FROM meta").fetchone()
    if row is None:
        raise CorruptError(f"{path} does not say which store it is")
    return str(row[0])
