"""Key slots: each seals the same master key by other means, so that changing one reseals nothing else.

passphrase  scrypt, with its parameters in the box
keyfile     32 random bytes in a file that someone asked for
keyring     32 random bytes in the OS keyring, under a name that says nothing but the store's id
recovery    a code that was printed once
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError, CorruptError, NotFoundError, UsageError
from daskpki.files import read_private, write_and_read_back
from daskpki.store.local.database import Database
from daskpki.store.local.recovery import generate_recovery_code, parse_recovery_code
from daskpki.store.sealing import (
    DEFAULT_COST,
    KEY_BYTES,
    Cost,
    context,
    generate_key,
    open_with_key,
    open_with_passphrase,
    seal_with_key,
    seal_with_passphrase,
)

PASSPHRASE: Final = "passphrase"
KEY_FILE: Final = "keyfile"
KEYRING: Final = "keyring"
RECOVERY: Final = "recovery"
_KEY_FILE_SETTING: Final = "the key file (--key-file, DASKPKI_KEY_FILE)"


class KeyringPort(Protocol):
    """The OS keyring, as `daskpki.credentials` offers it: texts named by service and username."""

    def get(self, service: str, username: str) -> Confidential | None:
        """The entry's secret, or None; AccessDeniedError without a usable keyring."""
        ...

    def set(self, service: str, username: str, secret: Confidential) -> None:
        """Write the entry; AccessDeniedError without a usable keyring."""
        ...

    def delete(self, service: str, username: str) -> None:
        """Remove the entry if there is one."""
        ...


class Slot(NamedTuple):
    """One slot; `box` holds the sealed master key, `created` is in seconds since the epoch."""

    id: str
    kind: str
    created: int
    box: bytes


def seal_slot(
    store_id: str, kind: str, master: Confidential, secret: Confidential, *, now: int, cost: Cost = DEFAULT_COST
) -> Slot:
    """A slot that opens with `secret`: a passphrase, or the random key of the other kinds."""
    slot_id = secrets.token_hex(4)
    bound = context("master key", store_id, kind, slot_id)
    if kind == PASSPHRASE:
        box = seal_with_passphrase(master, secret, context=bound, cost=cost)
    else:
        box = seal_with_key(master, secret, context=bound)
    return Slot(slot_id, kind, now, box)


def open_slot(store_id: str, slot: Slot, secret: Confidential) -> Confidential:
    """The master key; AccessDeniedError for a wrong secret, CorruptError."""
    unseal = open_with_passphrase if slot.kind == PASSPHRASE else open_with_key
    return unseal(slot.box, secret, context=context("master key", store_id, slot.kind, slot.id))


def insert_slot(connection: sqlite3.Connection, slot: Slot) -> None:
    """Write a slot within the caller's transaction."""
    connection.execute("INSERT INTO key_slot VALUES (?, ?, ?, ?)", slot)


def keyring_service(store_id: str) -> str:
    """The keyring's name for the store: readable while it is locked, so it says nothing more."""
    return f"daskpki-store-{store_id}"


def read_key_file(path: Path) -> Confidential:
    """The key in a file that only we may read; UsageError unless it is exactly 32 bytes."""
    data = read_private(path, called=_KEY_FILE_SETTING)
    if len(data) != KEY_BYTES:
        raise UsageError(
            f"{_KEY_FILE_SETTING} is none: it has {len(data)} bytes instead of {KEY_BYTES}",
            hint="a file that does not exist yet is filled with a new random key",
        )
    return Confidential(data)


def create_key_file(path: Path) -> Confidential:
    """The key in `path`, which is made (0600, never over another file) when it is missing."""
    if os.path.lexists(path):
        return read_key_file(path)
    key = generate_key()
    write_and_read_back(path, key.reveal(), called=_KEY_FILE_SETTING)
    return key


def keyring_key(keyring: KeyringPort, store_id: str, slot: Slot) -> Confidential:
    """The slot's key from the keyring; AccessDeniedError when the entry is gone."""
    text = keyring.get(keyring_service(store_id), slot.id)
    if text is None:
        raise AccessDeniedError(
            f"the OS keyring has no entry {keyring_service(store_id)!r} for this store",
            hint="unlock it by a passphrase, key file or recovery code, and add a new keyring slot",
        )
    try:
        return Confidential(base64.b64decode(text.reveal(), validate=True))
    except binascii.Error as error:
        raise CorruptError("the keyring's entry for this store is not what was written") from error


def keep_in_keyring(keyring: KeyringPort, store_id: str, master: Confidential, now: int) -> Slot:
    """A new slot whose random key is now in the keyring."""
    key = generate_key()
    slot = seal_slot(store_id, KEYRING, master, key, now=now)
    keyring.set(keyring_service(store_id), slot.id, Confidential(base64.b64encode(key.reveal())))
    return slot


class KeySlots:
    """The slots of an open store. Adding one takes the master key, so the store is unlocked first."""

    def __init__(
        self, database: Database, master: Callable[[], Confidential], clock: Callable[[], float], cost: Cost
    ) -> None:
        self._database = database
        self._master = master
        self._clock = clock
        self._cost = cost

    def list(self) -> Sequence[Slot]:
        """All slots, oldest first."""
        with self._database.read() as connection:
            query = "SELECT id, kind, created, box FROM key_slot ORDER BY created, kind, id"
            rows = connection.execute(query).fetchall()
        return [Slot(*row) for row in rows]

    def add_passphrase(self, passphrase: Confidential) -> Slot:
        """A further passphrase."""
        return self._add(PASSPHRASE, passphrase)

    def change_passphrase(self, passphrase: Confidential) -> Slot:
        """Replace all passphrases by this one, in one step."""
        slot = seal_slot(
            self._database.store_id, PASSPHRASE, self._master(), passphrase, now=self._now(), cost=self._cost
        )
        with self._database.write() as connection:
            connection.execute("DELETE FROM key_slot WHERE kind = ?", (PASSPHRASE,))
            insert_slot(connection, slot)
        self._database.erase_remains()
        return slot

    def add_key_file(self, path: Path) -> Slot:
        """A slot for the key in `path`; a missing file is made with a random key."""
        master = self._master()
        return self._add(KEY_FILE, create_key_file(path), master)

    def add_keyring(self, keyring: KeyringPort) -> Slot:
        """A slot whose random key is in the OS keyring."""
        slot = keep_in_keyring(keyring, self._database.store_id, self._master(), self._now())
        with self._database.write() as connection:
            insert_slot(connection, slot)
        return slot

    def add_recovery(self) -> Confidential:
        """A slot for a new recovery code; the code is returned to be shown once, and kept nowhere."""
        code = generate_recovery_code()
        self._add(RECOVERY, parse_recovery_code(code))
        return code

    def remove(self, slot_id: str) -> None:
        """Forget a slot; NotFoundError, UsageError for the last one, which would lose everything."""
        self._master()  # whoever removes a slot has another one that opens
        with self._database.write() as connection:
            found = connection.execute("DELETE FROM key_slot WHERE id = ?", (slot_id,)).rowcount
            if not found:
                raise NotFoundError(f"there is no key slot {slot_id!r}", hint="daskpki slot list")
            if not connection.execute("SELECT count(*) FROM key_slot").fetchone()[0]:
                raise UsageError(f"key slot {slot_id!r} is the last one: without it the store never opens again")
        self._database.erase_remains()

    def _add(self, kind: str, secret: Confidential, master: Confidential | None = None) -> Slot:
        slot = seal_slot(
            self._database.store_id, kind, master or self._master(), secret, now=self._now(), cost=self._cost
        )
        with self._database.write() as connection:
            insert_slot(connection, slot)
        return slot

    def _now(self) -> int:
        return int(self._clock())
