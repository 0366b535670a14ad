"""By which key slot a store is unlocked, and by which a new one is made: decided here, and never two silently.

1. What was named explicitly: a recovery code, a key file or a passphrase file. It works, or that is the error.
2. The same two files named by DASKPKI_KEY_FILE or DASKPKI_PASSPHRASE_FILE.
3. The slots that there are: the OS keyring first, then the passphrase, asked for on a terminal.

There is no step 4: without a way in, AccessDeniedError names those that the store has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError, NotFoundError, UsageError
from daskpki.files import read_private
from daskpki.store.local import slots
from daskpki.store.local.recovery import parse_recovery_code
from daskpki.store.local.slots import KeyringPort, Slot
from daskpki.store.sealing import DEFAULT_COST, Cost

_PASSPHRASE_SETTING: Final = "the passphrase file (--passphrase-file, DASKPKI_PASSPHRASE_FILE)"


class Prompt(Protocol):
    """Asks for the store's passphrase, twice when it is `new`; AccessDeniedError without a terminal."""

    def __call__(self, *, new: bool) -> Confidential:
        """The passphrase."""
        ...


class Unlocking(NamedTuple):
    """The ways to the master key that this run has; `cost` is scrypt's for new passphrases."""

    key_file: Path | None = None
    passphrase_file: Path | None = None
    recovery_code: Confidential | None = None
    keyring: KeyringPort | None = None
    prompt: Prompt | None = None
    cost: Cost = DEFAULT_COST

    @property
    def named(self) -> bool:
        """Whether a way was chosen, rather than left to the slots."""
        return bool(self.key_file or self.passphrase_file or self.recovery_code)


def with_environment(ways: Unlocking, environ: Mapping[str, str]) -> Unlocking:
    """The same ways, with the environment's when none was named; UsageError when two are named at once."""
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
    """The first line of a file that only we may read; UsageError when it is empty. Messages say `called`."""
    line = read_private(path, called=called).split(b"\n", 1)[0].rstrip(b"\r")
    if not line:
        raise UsageError(f"{called} holds no passphrase in its first line")
    return Confidential(line)


def unlock(ways: Unlocking, store_id: str, present: Sequence[Slot]) -> Confidential:
    """The master key; AccessDeniedError when no way leads to it."""
    if ways.recovery_code is not None:
        return _try(store_id, present, slots.RECOVERY, parse_recovery_code(ways.recovery_code))
    if ways.key_file is not None:
        return _try(store_id, present, slots.KEY_FILE, _read(ways.key_file, slots.read_key_file, "key"))
    if ways.passphrase_file is not None:
        return _try(
            store_id, present, slots.PASSPHRASE, _read(ways.passphrase_file, read_passphrase_file, "passphrase")
        )
    return _unlock_by_slots(ways, store_id, present)


def _read(path: Path, read: Callable[[Path], Confidential], what: str) -> Confidential:
    try:
        return read(path)
    except NotFoundError as error:  # which callers would take for a secret that is not there
        hint = f"name the path of the {what} file that opens the store"
        raise AccessDeniedError(f"the store is locked: {error}", hint=hint) from None


def _unlock_by_slots(ways: Unlocking, store_id: str, present: Sequence[Slot]) -> Confidential:
    kinds = [slot.kind for slot in present]
    reason = None
    for slot in present if ways.keyring else ():
        if slot.kind == slots.KEYRING:
            assert ways.keyring is not None
            try:
                return slots.open_slot(store_id, slot, slots.keyring_key(ways.keyring, store_id, slot))
            except AccessDeniedError as error:
                reason = error
    if ways.prompt is not None and slots.PASSPHRASE in kinds:
        return _try(store_id, present, slots.PASSPHRASE, ways.prompt(new=False))
    because = f": {reason}" if reason else ""
    raise AccessDeniedError(f"the store is locked{because}", hint=_ways_out(kinds)) from reason


def _try(store_id: str, present: Sequence[Slot], kind: str, secret: Confidential) -> Confidential:
    """Open the first slot of that kind that the secret fits."""
    refused = AccessDeniedError(
        f"the store has no key slot of kind {kind!r}", hint=_ways_out([slot.kind for slot in present])
    )
    for slot in present:
        if slot.kind == kind:
            try:
                return slots.open_slot(store_id, slot, secret)
            except AccessDeniedError as error:
                hint = f"give the right one, or another way: {_ways_out([other.kind for other in present])}"
                refused = AccessDeniedError(f"the store does not open by that {kind}: {error}", hint=hint)
    raise refused


_WAYS: dict[str, str] = {
    slots.KEYRING: "the OS keyring (unlocked)",
    slots.PASSPHRASE: "its passphrase (--passphrase-file, DASKPKI_PASSPHRASE_FILE, or a terminal)",
    slots.KEY_FILE: "its key file (--key-file, DASKPKI_KEY_FILE)",
    slots.RECOVERY: "its recovery code",
}


def _ways_out(kinds: Sequence[str]) -> str:
    return "it opens by " + ", or by ".join(way for kind, way in _WAYS.items() if kind in kinds)


def first_slot(ways: Unlocking, master: Confidential, clock: Callable[[], float]) -> Callable[[str], Slot]:
    """Makes a new store's first slot: by what was named, else the OS keyring, else a passphrase from the terminal."""

    def make(store_id: str) -> Slot:
        now = int(clock())
        if ways.key_file is not None:
            key = slots.create_key_file(ways.key_file)
            return slots.seal_slot(store_id, slots.KEY_FILE, master, key, now=now)
        if ways.passphrase_file is not None:
            passphrase = read_passphrase_file(ways.passphrase_file)
            return slots.seal_slot(store_id, slots.PASSPHRASE, master, passphrase, now=now, cost=ways.cost)
        return _slot_of_a_person(ways, store_id, master, now)

    return make


def _slot_of_a_person(ways: Unlocking, store_id: str, master: Confidential, now: int) -> Slot:
    refused: AccessDeniedError | None = None
    if ways.keyring is not None:
        try:
            return slots.keep_in_keyring(ways.keyring, store_id, master, now)
        except AccessDeniedError as error:
            refused = error
    try:
        if ways.prompt is not None:
            return slots.seal_slot(store_id, slots.PASSPHRASE, master, ways.prompt(new=True), now=now, cost=ways.cost)
    except AccessDeniedError as error:
        refused = refused or error
    reason = f": {refused}" if refused else ""
    raise AccessDeniedError(
        f"nothing is there to protect the new store with{reason}",
        hint="unlock the OS keyring, or name --passphrase-file FILE, or --key-file FILE (made when it is missing)",
    ) from refused
