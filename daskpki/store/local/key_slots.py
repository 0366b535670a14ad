"""Key slots of a local store: each seals the same master key, so a change of one slot reseals nothing else.

passphrase  scrypt, with its parameters in the box
keyfile     32 random bytes in a file that the user named
keyring     32 random bytes in the OS keyring, under a name that contains only the store's id
recovery    a code that was printed once: 160 random bits and a checksum against typing errors, in Crockford's base 32
            (nine groups of four; case, spaces and dashes do not matter, O is read as 0, I and L as 1)

The first of these that is given unlocks a store, or creates a new one; a second way is never tried silently:

1. A recovery code, a key file or a passphrase file that the caller names. If it does not work, that is an error.
2. A key file or passphrase file that DASKPKI_KEY_FILE or DASKPKI_PASSPHRASE_FILE names.
3. The store's slots: the OS keyring first, then the passphrase, asked for on a terminal.

If none works, AccessDeniedError names the ways that the store has.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from daskpki.confidential import Confidential, KeyringPort
from daskpki.errors import AccessDeniedError, AlreadyExistsError, CorruptError, NotFoundError, UsageError
from daskpki.files import read_private, write_and_read_back
from daskpki.store.encryption import (
    DEFAULT_COST,
    KEY_BYTES,
    Cost,
    context,
    open_with_key,
    open_with_passphrase,
    random_key,
    seal_with_key,
    seal_with_passphrase,
)
from daskpki.store.local.database import Database

_KEY_FILE_SETTING: Final = "the key file (--key-file, DASKPKI_KEY_FILE)"


class SlotKind(StrEnum):
    """Way in which a slot is unlocked."""

    KEYRING = "keyring"
    PASSPHRASE = "passphrase"
    KEY_FILE = "keyfile"
    RECOVERY = "recovery"


class Slot(NamedTuple):
    """One slot; `box` is the sealed master key, `created` is in seconds since the epoch."""

    id: str
    kind: str
    created: int
    box: bytes


def seal_slot(
    store_id: str, kind: str, master: Confidential, secret: Confidential, *, now: int, cost: Cost = DEFAULT_COST
) -> Slot:
    """Create a slot that `secret` unlocks: a passphrase, or the random key of the other kinds."""
    slot_id = secrets.token_hex(4)
    bound = context("master key", store_id, kind, slot_id)
    if kind == SlotKind.PASSPHRASE:
        box = seal_with_passphrase(master, secret, context=bound, cost=cost)
    else:
        box = seal_with_key(master, secret, context=bound)
    return Slot(slot_id, kind, now, box)


def open_slot(store_id: str, slot: Slot, secret: Confidential) -> Confidential:
    """Return the master key; AccessDeniedError for a wrong secret, CorruptError."""
    unseal = open_with_passphrase if slot.kind == SlotKind.PASSPHRASE else open_with_key
    return unseal(slot.box, secret, context=context("master key", store_id, slot.kind, slot.id))


def insert_slot(connection: sqlite3.Connection, slot: Slot) -> None:
    """Write a slot within the caller's transaction."""
    connection.execute("INSERT INTO key_slot VALUES (?, ?, ?, ?)", slot)


def keyring_service(store_id: str) -> str:
    """The keyring's name for the store; only the id is in it, since names can be read while the keyring is locked."""
    return f"daskpki-store-{store_id}"


def read_key_file(path: Path) -> Confidential:
    """Read the key in a private file; UsageError unless it is exactly 32 bytes."""
    data = read_private(path, called=_KEY_FILE_SETTING)
    if len(data) != KEY_BYTES:
        raise UsageError(
            f"{_KEY_FILE_SETTING} is no key: it has {len(data)} bytes instead of {KEY_BYTES}",
            hint="name a file that does not exist yet: daskpki writes a new random key to it",
        )
    return Confidential(data)


def create_key_file(path: Path) -> Confidential:
    """Read the key in `path`, or write a new one (0600, never over another file) if it does not exist."""
    if not os.path.lexists(path):
        with suppress(AlreadyExistsError):  # another process made it just now
            write_and_read_back(path, random_key().reveal(), called=_KEY_FILE_SETTING)
    return read_key_file(path)


def keyring_key(keyring: KeyringPort, store_id: str, slot: Slot) -> Confidential:
    """Read the slot's key from the keyring; AccessDeniedError if the entry is gone."""
    text = keyring.get(keyring_service(store_id), slot.id)
    if text is None:
        raise AccessDeniedError(
            f"the OS keyring has no entry {keyring_service(store_id)!r} for this store",
            hint="unlock it by a passphrase, key file or recovery code, and add a new keyring slot",
        )
    try:
        return Confidential(base64.b64decode(text.reveal(), validate=True))
    except binascii.Error as error:
        raise CorruptError("the keyring's entry for this store is damaged") from error


def keep_in_keyring(keyring: KeyringPort, store_id: str, master: Confidential, now: int) -> Slot:
    """Create a slot, and write its random key to the keyring."""
    key = random_key()
    slot = seal_slot(store_id, SlotKind.KEYRING, master, key, now=now)
    keyring.set(keyring_service(store_id), slot.id, Confidential(base64.b64encode(key.reveal())))
    return slot


class KeySlots:
    """The slots of an open store. Adding one needs the master key, so the store is unlocked first."""

    def __init__(
        self, database: Database, master: Callable[[], Confidential], clock: Callable[[], float], cost: Cost
    ) -> None:
        self._database = database
        self._master = master
        self._clock = clock
        self._cost = cost

    def list(self) -> Sequence[Slot]:
        """List all slots, oldest first."""
        with self._database.read() as connection:
            query = "SELECT id, kind, created, box FROM key_slot ORDER BY created, kind, id"
            rows = connection.execute(query).fetchall()
        return [Slot(*row) for row in rows]

    def add_passphrase(self, passphrase: Confidential) -> Slot:
        """Add a slot for a further passphrase."""
        return self._add(SlotKind.PASSPHRASE, passphrase)

    def change_passphrase(self, passphrase: Confidential) -> Slot:
        """Replace all passphrases by this one, in one step."""
        slot = self._add(SlotKind.PASSPHRASE, passphrase, replace=True)
        self._database.erase_remains()
        return slot

    def add_key_file(self, path: Path) -> Slot:
        """Add a slot for the key in `path`; a missing file is created with a random key."""
        self._master()  # before the file is written
        return self._add(SlotKind.KEY_FILE, create_key_file(path))

    def add_keyring(self, keyring: KeyringPort) -> Slot:
        """Add a slot whose random key is in the OS keyring."""
        slot = keep_in_keyring(keyring, self._database.store_id, self._master(), int(self._clock()))
        with self._database.write() as connection:
            insert_slot(connection, slot)
        return slot

    def add_recovery(self) -> Confidential:
        """Add a slot for a new recovery code; the code is returned to be shown once, and kept nowhere."""
        code = format_recovery_code(Confidential(secrets.token_bytes(_BYTES)))
        self._add(SlotKind.RECOVERY, parse_recovery_code(code))
        return code

    def remove(self, slot_id: str) -> None:
        """Delete a slot; NotFoundError, UsageError for the last one, without which the store is lost."""
        self._master()  # only those who can unlock the store may remove a slot
        with self._database.write() as connection:
            found = connection.execute("DELETE FROM key_slot WHERE id = ?", (slot_id,)).rowcount
            if not found:
                raise NotFoundError(f"there is no key slot {slot_id!r}", hint="daskpki slot list")
            if not connection.execute("SELECT count(*) FROM key_slot").fetchone()[0]:
                raise UsageError(f"key slot {slot_id!r} is the last one: without it the store never opens again")
        self._database.erase_remains()

    def _add(self, kind: str, secret: Confidential, *, replace: bool = False) -> Slot:
        now = int(self._clock())
        slot = seal_slot(self._database.store_id, kind, self._master(), secret, now=now, cost=self._cost)
        with self._database.write() as connection:
            if replace:
                connection.execute("DELETE FROM key_slot WHERE kind = ?", (kind,))
            insert_slot(connection, slot)
        return slot


_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_BYTES: Final = 20
_CHECKSUM_BITS: Final = 20
_LENGTH: Final = (8 * _BYTES + _CHECKSUM_BITS) // 5
_FORGIVEN: Final = str.maketrans("OIL", "011", " -\t\r\n")


def format_recovery_code(key: Confidential) -> Confidential:
    """Return the printed form of 20 bytes."""
    number = int.from_bytes(key.reveal(), "big") << _CHECKSUM_BITS | _checksum(key)
    digits = [_ALPHABET[number >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5)]
    groups = ["".join(digits[at : at + 4]) for at in range(0, _LENGTH, 4)]
    return Confidential("-".join(groups))


def parse_recovery_code(code: Confidential) -> Confidential:
    """Parse a printed code to its 20 bytes; UsageError names the mistake without repeating the code."""
    text = code.reveal().decode("ascii", "replace").upper().translate(_FORGIVEN)
    if len(text) != _LENGTH:
        raise UsageError(f"a recovery code has {_LENGTH} letters and digits, this one has {len(text)}")
    if not set(text) <= set(_ALPHABET):
        raise UsageError("a recovery code has only digits and letters, without U")
    number = 0
    for digit in text:
        number = number << 5 | _ALPHABET.index(digit)
    key = Confidential((number >> _CHECKSUM_BITS).to_bytes(_BYTES, "big"))
    if number & (1 << _CHECKSUM_BITS) - 1 != _checksum(key):
        raise UsageError("the recovery code does not match its checksum: a letter or digit is wrong")
    return key


def _checksum(key: Confidential) -> int:
    return int.from_bytes(hashlib.sha256(b"daskpki recovery code" + key.reveal()).digest()[:4], "big") >> 12


_PASSPHRASE_SETTING: Final = "the passphrase file (--passphrase-file, DASKPKI_PASSPHRASE_FILE)"


class Prompt(Protocol):
    """Asks for the store's passphrase, twice if it is `new`; AccessDeniedError without a terminal."""

    def __call__(self, *, new: bool) -> Confidential:
        """Return the passphrase."""


class Unlocking(NamedTuple):
    """The ways of this run to unlock the master key; `cost` is scrypt's for new passphrases."""

    key_file: Path | None = None
    passphrase_file: Path | None = None
    recovery_code: Confidential | None = None
    keyring: KeyringPort | None = None
    prompt: Prompt | None = None
    cost: Cost = DEFAULT_COST

    @property
    def named(self) -> bool:
        """True if the caller chose a way, rather than leaving it to the slots."""
        return bool(self.key_file or self.passphrase_file or self.recovery_code)


def with_environment(ways: Unlocking, environ: Mapping[str, str]) -> Unlocking:
    """Add the ways that the environment names, if the caller names none; UsageError if two are named at once."""
    if not ways.named:
        key_file, passphrase_file = environ.get("DASKPKI_KEY_FILE"), environ.get("DASKPKI_PASSPHRASE_FILE")
        ways = ways._replace(
            key_file=Path(key_file) if key_file else None,
            passphrase_file=Path(passphrase_file) if passphrase_file else None,
        )
    if ways.key_file and ways.passphrase_file:
        raise UsageError(
            "both a key file and a passphrase file are named",
            hint="name one of --key-file (DASKPKI_KEY_FILE) and --passphrase-file (DASKPKI_PASSPHRASE_FILE)",
        )
    return ways


def read_passphrase_file(path: Path, called: str = _PASSPHRASE_SETTING) -> Confidential:
    """Read the first line of a private file; UsageError if it is empty. Messages name the file by `called`."""
    line = read_private(path, called=called).split(b"\n", 1)[0].rstrip(b"\r")
    if not line:
        raise UsageError(f"{called} has no passphrase in its first line")
    return Confidential(line)


def unlock(ways: Unlocking, store_id: str, present: Sequence[Slot]) -> Confidential:
    """Return the master key; AccessDeniedError if no way unlocks it."""
    if ways.recovery_code is not None:
        return _try(store_id, present, SlotKind.RECOVERY, parse_recovery_code(ways.recovery_code))
    if ways.key_file is not None:
        return _try(store_id, present, SlotKind.KEY_FILE, _read(ways.key_file, read_key_file, "key"))
    if ways.passphrase_file is not None:
        return _try(
            store_id, present, SlotKind.PASSPHRASE, _read(ways.passphrase_file, read_passphrase_file, "passphrase")
        )
    return _unlock_by_slots(ways, store_id, present)


def _read(path: Path, read: Callable[[Path], Confidential], what: str) -> Confidential:
    try:
        return read(path)
    except NotFoundError as error:  # callers would take it for a missing secret
        hint = f"name the path of the {what} file that opens the store"
        raise AccessDeniedError(f"the store is locked: {error}", hint=hint) from None


def _unlock_by_slots(ways: Unlocking, store_id: str, present: Sequence[Slot]) -> Confidential:
    reason = None
    if ways.keyring is not None:
        for slot in present:
            if slot.kind == SlotKind.KEYRING:
                try:
                    return open_slot(store_id, slot, keyring_key(ways.keyring, store_id, slot))
                except AccessDeniedError as error:
                    reason = error
    if ways.prompt is not None and any(slot.kind == SlotKind.PASSPHRASE for slot in present):
        return _try(store_id, present, SlotKind.PASSPHRASE, ways.prompt(new=False))
    because = f": {reason}" if reason else ""
    raise AccessDeniedError(f"the store is locked{because}", hint=_ways_out(present)) from reason


def _try(store_id: str, present: Sequence[Slot], kind: str, secret: Confidential) -> Confidential:
    """Open the first slot of that kind that the secret unlocks."""
    refusal = None
    for slot in present:
        if slot.kind == kind:
            try:
                return open_slot(store_id, slot, secret)
            except AccessDeniedError as error:
                refusal = error
    if refusal is None:
        raise AccessDeniedError(f"the store has no key slot of kind '{kind}'", hint=_ways_out(present))
    hint = f"check it, or {_ways_out(present)}"
    raise AccessDeniedError(f"that {kind} does not unlock the store: {refusal}", hint=hint)


_WAYS: dict[str, str] = {
    SlotKind.KEYRING: "the OS keyring (unlocked)",
    SlotKind.PASSPHRASE: "its passphrase (--passphrase-file, DASKPKI_PASSPHRASE_FILE, or a terminal)",
    SlotKind.KEY_FILE: "its key file (--key-file, DASKPKI_KEY_FILE)",
    SlotKind.RECOVERY: "its recovery code",
}


def _ways_out(present: Sequence[Slot]) -> str:
    kinds = {slot.kind for slot in present}
    return "unlock it with " + ", or with ".join(way for kind, way in _WAYS.items() if kind in kinds)


def first_slot(ways: Unlocking, store_id: str, master: Confidential, now: int) -> Slot:
    """Create a new store's first slot: by the way that is named, else the OS keyring, else a passphrase prompt."""
    if ways.key_file is not None:
        return seal_slot(store_id, SlotKind.KEY_FILE, master, create_key_file(ways.key_file), now=now)
    if ways.passphrase_file is not None:
        passphrase = read_passphrase_file(ways.passphrase_file)
        return seal_slot(store_id, SlotKind.PASSPHRASE, master, passphrase, now=now, cost=ways.cost)
    refused: AccessDeniedError | None = None
    if ways.keyring is not None:
        try:
            return keep_in_keyring(ways.keyring, store_id, master, now)
        except AccessDeniedError as error:
            refused = error
    if ways.prompt is not None:
        try:
            return seal_slot(store_id, SlotKind.PASSPHRASE, master, ways.prompt(new=True), now=now, cost=ways.cost)
        except AccessDeniedError as error:
            refused = refused or error
    reason = f": {refused}" if refused else ""
    raise AccessDeniedError(
        f"there is no key to protect the new store{reason}",
        hint="unlock the OS keyring, or name --passphrase-file FILE, or --key-file FILE (created if it is missing)",
    ) from refused
