"""The local store's `SecretStore`: each secret has its own data key, encrypted with the master key.

A payload's associated data names store, secret and version, so a row that was moved cannot be decrypted. A MAC of each
secret covers its row and the list of its versions with their states, so a missing version is detected too. The store's
seal covers these MACs, so an older state of a secret is detected.
"""

from __future__ import annotations

import hmac
import json
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.errors import AlreadyExistsError, ConflictError, CorruptError, DisabledError, NotFoundError
from daskpki.store.encryption import context, decrypt, derive, encrypt, random_key
from daskpki.store.local.database import Database, MasterKey
from daskpki.store.local.table_seal import TableSeal, secret_part
from daskpki.store.port import DESTROYED, DISABLED, ENABLED, Payload, SecretInfo, Version

_MAX_INTEGER: Final = 2**63 - 1  # SQLite's; a larger number is no version either
_COLUMNS: Final = "id, labels, annotations, etag, created"
_ROW: Final = f"SELECT {_COLUMNS}, data_key, mac FROM secret WHERE id = ?"  # noqa: S608 - our own columns
_VERSIONS: Final = "SELECT number, state, created FROM version WHERE secret = ? ORDER BY number"


class LocalSecretStore:
    """A `daskpki.store.port.SecretStore` in a SQLite database, where every read is strongly consistent."""

    def __init__(self, database: Database, master_key: MasterKey, clock: Callable[[], float]) -> None:
        self._database = database
        self._master_key = master_key
        self._clock = clock

    def create(
        self, secret: str, *, labels: Mapping[str, str], annotations: Mapping[str, str] | None = None
    ) -> SecretInfo:
        """Create a secret without versions."""
        secret_names.check_secret_id(secret)
        secret_names.check_labels(labels)
        secret_names.check_annotations(annotations or {})
        data_key = encrypt(self._wrapping_key(), random_key(), self._key_context(secret))
        info = SecretInfo(secret, dict(labels), dict(annotations or {}), secrets.token_hex(8), int(self._clock()))
        with self._database.write() as connection:
            self._verify_part(connection, secret)
            added = connection.execute(
                f"INSERT INTO secret ({_COLUMNS}, data_key, mac) VALUES (?, ?, ?, ?, ?, ?, x'') "  # noqa: S608
                "ON CONFLICT (id) DO NOTHING",
                (*_row(info), data_key),
            )
            if not added.rowcount:
                raise AlreadyExistsError(f"secret {secret!r} exists")
            self._authenticate(connection, secret)
        return info

    def describe(self, secret: str) -> SecretInfo:
        """Return a secret's labels, annotations and etag."""
        secret_names.check_secret_id(secret)
        with self._database.read() as connection:
            return _get(connection, secret)

    def select(self, labels: Mapping[str, str]) -> Iterator[SecretInfo]:
        """Find our secrets that carry all these labels."""
        secret_names.check_label_pairs(labels)
        wanted = {"managed-by": "daskpki", **labels}
        where = " AND ".join("json_extract(labels, ?) = ?" for _ in wanted)
        parameters = [part for key, value in wanted.items() for part in (f'$."{key}"', value)]
        statement = f"SELECT {_COLUMNS} FROM secret WHERE {where} ORDER BY id"  # noqa: S608 - no value is in the text
        return map(_info, self._database.snapshot().rows(statement, *parameters))

    def update(
        self,
        secret: str,
        *,
        etag: str,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> SecretInfo:
        """Replace labels or annotations under an etag."""
        if labels is not None:
            secret_names.check_labels(labels)
        secret_names.check_annotations(annotations or {})
        self._master_key.unlock()
        with self._database.write() as connection:
            info = self._owned(connection, secret)
            _check_etag(info, etag)
            info = info._replace(
                labels=info.labels if labels is None else dict(labels),
                annotations=info.annotations if annotations is None else dict(annotations),
                etag=secrets.token_hex(8),
            )
            connection.execute(
                "UPDATE secret SET labels = ?, annotations = ?, etag = ? WHERE id = ?", (*_row(info)[1:4], secret)
            )
            self._authenticate(connection, secret)
        return info

    def delete(self, secret: str, *, etag: str | None = None) -> None:
        """Remove a secret and all its versions."""
        self._master_key.unlock()  # before the lock of writers: it may ask for a passphrase
        with self._database.write() as connection:
            info = self._owned(connection, secret)
            if etag is not None:
                _check_etag(info, etag)
            connection.execute("DELETE FROM secret WHERE id = ?", (secret,))
            self._seal_later(secret)
        self._database.erase_remains()

    def add(self, secret: str, payload: Confidential) -> int:
        """Add a version."""
        secret_names.check_payload(payload)
        secret_names.check_secret_id(secret)
        self._master_key.unlock()
        with self._database.write() as connection:
            self._owned(connection, secret)
            key = self._data_key(connection, secret)
            numbers = [row[0] for row in connection.execute(_VERSIONS, (secret,))]
            number: int = max(numbers, default=0) + 1
            sealed = encrypt(key, payload, self._payload_context(secret, number))
            row = (secret, number, ENABLED, int(self._clock()), sealed)
            connection.execute("INSERT INTO version VALUES (?, ?, ?, ?, ?)", row)
            self._authenticate(connection, secret)
        return number

    def access(self, secret: str, number: int) -> Confidential:
        """Return a version's payload."""
        secret_names.check_secret_id(secret)
        self._master_key.unlock()
        with self._database.read() as connection:
            self._verify(connection, secret)
            return self._open(connection, secret, number)

    def latest(self, secret: str) -> Payload:
        """Return the newest version and its payload."""
        secret_names.check_secret_id(secret)
        self._master_key.unlock()
        with self._database.read() as connection:
            self._verify(connection, secret)
            newest = connection.execute("SELECT max(number) FROM version WHERE secret = ?", (secret,)).fetchone()[0]
            return Payload(newest, self._open(connection, secret, newest or 1))

    def versions(self, secret: str) -> Iterator[Version]:
        """List the versions, newest first; authenticated if the store is unlocked."""
        secret_names.check_secret_id(secret)
        with self._database.read() as connection:
            info = _get(connection, secret)
            if self._master_key.is_unlocked and secret_names.is_ours(info.labels):
                self._verify(connection, secret)
            rows = connection.execute(_VERSIONS, (secret,)).fetchall()
        return (Version(*row) for row in reversed(rows))

    def enable(self, secret: str, number: int) -> None:
        """Make a disabled version readable."""
        self._set_state(secret, number, ENABLED)

    def disable(self, secret: str, number: int) -> None:
        """Make a version unreadable."""
        self._set_state(secret, number, DISABLED)

    def destroy(self, secret: str, number: int) -> None:
        """Erase a version's payload."""
        self._set_state(secret, number, DESTROYED)
        self._database.erase_remains()

    def _set_state(self, secret: str, number: int, wanted: str) -> None:
        self._master_key.unlock()
        with self._database.write() as connection:
            self._owned(connection, secret)
            state, _ = _version(connection, secret, number)
            if state == DESTROYED != wanted:
                raise DisabledError(f"version {number} of {secret!r} is destroyed, for good")
            change = "state = ?, sealed = NULL" if wanted == DESTROYED else "state = ?"
            statement = f"UPDATE version SET {change} WHERE secret = ? AND number = ?"  # noqa: S608 - one of our own two
            connection.execute(statement, (wanted, secret, number))
            self._authenticate(connection, secret)

    def _owned(self, connection: sqlite3.Connection, secret: str) -> SecretInfo:
        secret_names.check_secret_id(secret)
        info = _get(connection, secret)
        secret_names.check_ours(secret, info.labels)
        self._verify(connection, secret)
        return info

    def _authenticate(self, connection: sqlite3.Connection, secret: str) -> None:
        """Write the MAC of a secret as it is in the caller's transaction."""
        connection.execute("UPDATE secret SET mac = ? WHERE id = ?", (self._mac(connection, secret)[1], secret))
        self._seal_later(secret)

    def _seal_later(self, secret: str) -> None:
        """Seal the secret's part at the end of the transaction, with all others of a batch."""
        self._database.beforehand(secret_part(secret), self._renew_seal)

    def _renew_seal(self, connection: sqlite3.Connection, parts: Sequence[str]) -> None:
        self._seal(connection).renew_secrets(parts)

    def _seal(self, connection: sqlite3.Connection) -> TableSeal:
        return TableSeal(connection, self._master_key.unlock(), self._database.store_id)

    def _verify_part(self, connection: sqlite3.Connection, secret: str) -> None:
        part, pending = secret_part(secret), self._database.pending
        if part not in pending:  # else it was verified before this transaction changed it, and so was the MAC
            self._seal(connection).verify_secrets(part, digests_too=not pending)

    def _verify(self, connection: sqlite3.Connection, secret: str) -> None:
        """Raise CorruptError unless a holder of the store's key wrote the secret and its versions."""
        written, wanted = self._mac(connection, secret)
        if written is not None and not hmac.compare_digest(written, wanted):
            raise CorruptError(
                f"secret {secret!r} or the list of its versions was changed by someone without the store's key",
                hint="restore the store from a backup, and find out who could write to it",
            )
        self._verify_part(connection, secret)  # also for a secret that is not there: it may have been deleted

    def _mac(self, connection: sqlite3.Connection, secret: str) -> tuple[bytes | None, bytes]:
        """Return the stored MAC (None without such a secret) and the right one."""
        row = connection.execute(_ROW, (secret,)).fetchone()
        if row is None:
            return None, b""
        *columns, data_key, written = row
        versions = connection.execute(_VERSIONS, (secret,)).fetchall()
        subject = json.dumps([self._database.store_id, *columns, data_key.hex(), versions]).encode()
        return written, hmac.digest(derive(self._master_key.unlock(), b"authenticate secrets"), subject, "sha256")

    def _open(self, connection: sqlite3.Connection, secret: str, number: int) -> Confidential:
        state, sealed = _version(connection, secret, number)
        if state != ENABLED or sealed is None:
            raise DisabledError(f"version {number} of {secret!r} is {state.lower()}")
        key = self._data_key(connection, secret)
        try:
            return decrypt(key, sealed, self._payload_context(secret, number))
        except CorruptError as error:
            raise CorruptError(f"version {number} of {secret!r}: {error}", hint="restore it from a backup") from error

    def _data_key(self, connection: sqlite3.Connection, secret: str) -> bytes:
        (sealed,) = connection.execute("SELECT data_key FROM secret WHERE id = ?", (secret,)).fetchone()
        try:
            return decrypt(self._wrapping_key(), sealed, self._key_context(secret)).reveal()
        except CorruptError as error:
            raise CorruptError(f"the key of {secret!r}: {error}", hint="restore it from a backup") from error

    def _wrapping_key(self) -> bytes:
        return derive(self._master_key.unlock(), b"wrap data keys")

    def _key_context(self, secret: str) -> bytes:
        return context("data key", self._database.store_id, secret)

    def _payload_context(self, secret: str, number: int) -> bytes:
        return context("payload", self._database.store_id, secret, number)


def _get(connection: sqlite3.Connection, secret: str) -> SecretInfo:
    row = connection.execute(f"SELECT {_COLUMNS} FROM secret WHERE id = ?", (secret,)).fetchone()  # noqa: S608
    if row is None:
        raise NotFoundError(f"there is no secret {secret!r}")
    return _info(row)


def _version(connection: sqlite3.Connection, secret: str, number: int) -> tuple[str, bytes | None]:
    row = connection.execute(
        "SELECT state, sealed FROM version WHERE secret = ? AND number = ?", (secret, min(number, _MAX_INTEGER))
    ).fetchone()
    if row is None:
        _get(connection, secret)
        raise NotFoundError(f"secret {secret!r} has no version {number}")
    return row[0], row[1]


def _info(row: Sequence[Any]) -> SecretInfo:
    try:
        return SecretInfo(row[0], json.loads(row[1]), json.loads(row[2]), row[3], row[4])
    except ValueError as error:
        raise CorruptError(f"the labels of secret {row[0]!r} are damaged") from error


def _row(info: SecretInfo) -> tuple[str, str, str, str, int]:
    return info.id, json.dumps(info.labels), json.dumps(info.annotations), info.etag, info.created


def _check_etag(info: SecretInfo, etag: str) -> None:
    if info.etag != etag:
        raise ConflictError(f"secret {info.id!r} was changed in between", hint="read it again")
