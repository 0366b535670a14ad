"""A keyring in memory, with the faults that a real one has; that one is tested with `daskpki.credentials`."""

from __future__ import annotations

from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError


class MemoryKeyring:
    """Implements KeyringPort; a `locked` one refuses every call."""

    def __init__(self, *, locked: bool = False) -> None:
        self.entries: dict[tuple[str, str], Confidential] = {}
        self.locked = locked

    def get(self, service: str, username: str) -> Confidential | None:
        self._check()
        return self.entries.get((service, username))

    def set(self, service: str, username: str, secret: Confidential) -> None:
        self._check()
        self.entries[service, username] = secret

    def delete(self, service: str, username: str) -> None:
        self._check()
        self.entries.pop((service, username), None)

    def _check(self) -> None:
        if self.locked:
            raise AccessDeniedError("the OS keyring is locked")
