"""The pure core: projects → secrets → versions, with an injected clock. No transport, no threads, no IAM.

Decided here: numbering, what `latest` and an alias mean (the highest number in any state, or an older one while
a test holds them back), etags, expiry and scheduled destruction. The RPCs themselves are in `rpc_*.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from tests.emulator.messages import DESTROYED, STATE_NAMES, Binding, Pb, Policy
from tests.emulator.names import Parent, SecretName, VersionName
from tests.emulator.status import ApiError, failed_precondition, invalid, not_found


@dataclass
class StoredVersion:
    """One version; `data` is None once it is destroyed."""

    message: Pb
    data: bytes | None
    crc32c: int

    @property
    def state(self) -> str:
        """ENABLED, DISABLED or DESTROYED."""
        return STATE_NAMES[self.message.state]


Behind = int | Callable[[], int]


@dataclass(frozen=True)
class Lag:
    """How far the eventually consistent reads of a secret are behind: at a number, and by so many versions."""

    at: int | None = None
    behind: Behind = 0

    def visible(self, newest: int) -> int:
        """The highest version number that those reads see."""
        limit = newest if self.at is None else min(self.at, newest)
        behind = self.behind() if callable(self.behind) else self.behind
        return max(0, limit - behind)


@dataclass
class StoredSecret:
    """A secret with its versions (number n at index n-1) and its IAM policy."""

    name: SecretName
    message: Pb
    born: int
    versions: list[StoredVersion] = field(default_factory=list)
    policy: Pb = field(default_factory=lambda: Policy(etag=b"\x00\x20\x01"))
    lag: Lag = field(default_factory=Lag)
    stale_aliases: dict[str, int] | None = None

    @property
    def newest(self) -> int:
        """The highest number, in any state; 0 without versions."""
        return len(self.versions)

    @property
    def visible(self) -> int:
        """The highest number that eventually consistent reads see."""
        return self.lag.visible(self.newest)

    @property
    def aliases(self) -> dict[str, int]:
        """The aliases that reads see at present."""
        return dict(self.message.version_aliases) if self.stale_aliases is None else self.stale_aliases

    def bindings(self) -> list[Binding]:
        """The grants on the secret itself."""
        return list(self.policy.bindings)


class Catalogue:
    """All secrets by canonical name. Not thread-safe: its owner holds a lock around each call."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self._secrets: dict[str, StoredSecret] = {}
        self._sequence = 0
        self.default_lag = Lag()

    def next_etag(self) -> str:
        """A fresh opaque etag, with the quotes that are part of it in the real service."""
        self._sequence += 1
        return f'"{0x16_0000_0000_0000 + self._sequence * 0x9E3779B1:x}"'

    def insert(self, name: SecretName, message: Pb) -> StoredSecret:
        """Store a new secret.

        Raises:
            ApiError: ALREADY_EXISTS.
        """
        if self.peek(name):
            raise ApiError("ALREADY_EXISTS", f"Secret [{name}] already exists.")
        message.name, message.etag = str(name), self.next_etag()
        stored = StoredSecret(name, message, self._sequence, lag=self.default_lag)
        self._secrets[str(name)] = stored
        return stored

    def remove(self, name: SecretName) -> None:
        """Forget a secret and its versions; a new one of that name starts at version 1."""
        del self._secrets[str(name)]

    def peek(self, name: SecretName) -> StoredSecret | None:
        """The secret, if it is there and has not expired."""
        stored = self._secrets.get(str(name))
        if stored and self._expired(stored):
            self.remove(name)
            return None
        if stored:
            self._destroy_what_is_due(stored)
        return stored

    def secret(self, name: SecretName, *, because: str = "") -> StoredSecret:
        """The secret, or NOT_FOUND."""
        stored = self.peek(name)
        if stored is None:
            raise not_found(f"Secret [{name}] not found{because}.")
        return stored

    def version(self, name: VersionName) -> StoredVersion:
        """A version by number (strongly consistent), or by `latest` or alias (as stale as the lag says)."""
        stored = self.secret(name.secret, because=" or has no versions")
        number = self._number(stored, name)
        if name.version == "latest" and not number:
            raise not_found(f"Secret [{name.secret}] not found or has no versions.")
        if not 1 <= number <= stored.newest:
            raise not_found(f"Secret Version [{name}] not found.")
        return stored.versions[number - 1]

    def version_to_change(self, name: VersionName, etag: str) -> tuple[StoredSecret, StoredVersion]:
        """A version by number, whose etag matches where one is given, and that is not destroyed."""
        if not name.version.isdigit():
            raise invalid(f"Secret Version [{name}] must be named by its number.")
        version = self.version(name)
        if version.message.state == DESTROYED:
            raise failed_precondition(f"Secret Version [{version.message.name}] is in DESTROYED state.")
        check_etag(version.message, etag, "Secret Version")
        return self.secret(name.secret), version

    def everything(self) -> list[StoredSecret]:
        """All secrets, in order of creation."""
        return list(self._secrets.values())

    def in_parent(self, parent: Parent) -> Iterator[StoredSecret]:
        """A parent's secrets, newest first."""
        names = [stored.name for stored in self._secrets.values() if str(stored.name.parent) == str(parent)]
        found = [stored for name in names if (stored := self.peek(name))]
        return iter(sorted(found, key=lambda stored: stored.born, reverse=True))

    def _number(self, stored: StoredSecret, name: VersionName) -> int:
        if name.version.isdigit():
            return int(name.version)
        if name.version == "latest":
            return stored.visible
        return stored.aliases.get(name.version, 0)

    def _expired(self, stored: StoredSecret) -> bool:
        message = stored.message
        return bool(message.HasField("expire_time")) and message.expire_time.ToSeconds() <= self.now().timestamp()

    def _destroy_what_is_due(self, stored: StoredSecret) -> None:
        for version in stored.versions:
            message = version.message
            due = message.scheduled_destroy_time.ToSeconds() if message.HasField("scheduled_destroy_time") else None
            if due is not None and due <= self.now().timestamp():
                self.destroy(version)

    def destroy(self, version: StoredVersion) -> None:
        """Wipe the payload now."""
        version.data = None
        version.message.state = DESTROYED
        version.message.destroy_time.FromDatetime(self.now())
        version.message.ClearField("scheduled_destroy_time")
        version.message.etag = self.next_etag()


def check_etag(message: Pb, etag: str, kind: str) -> None:
    """An etag that is given must be the present one: 400 FAILED_PRECONDITION, unlike AIP-154's ABORTED."""
    if etag and etag != message.etag:
        raise failed_precondition(f"The etag provided for {kind} [{message.name}] does not match the current etag.")


def copy_of(message: Pb) -> Pb:
    """A snapshot that stays as it is once the lock is released."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
