"""What a store's author provides to the suites: a place, handles to it, and faults on demand."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from daskpki.store.port import Store


class Backing(Protocol):
    """One empty place for secrets and logs, which lasts for one test. It can be pickled, to be used in processes."""

    def factory(self) -> Store:
        """A new handle on the same place, independent of the others."""
        ...

    def foreign(self, secret: str) -> None:
        """Make a secret without daskpki's labels, with one version whose payload is b"foreign"."""
        ...

    def corrupt(self, secret: str, number: int) -> None:
        """Damage what is stored of that version, so that its payload cannot be returned as it was."""
        ...

    def make_stale(self, secret: str) -> None:
        """From now on `latest` of that secret answers what it would answer now; nothing, where it is never stale."""
        ...

    def unavailable(self) -> AbstractContextManager[None]:
        """Within it, writes through handles that are made by `factory` fail for a reason that passes."""
        ...

    def denied(self) -> AbstractContextManager[None]:
        """Within it, handles that are made by `factory` may neither write nor read payloads."""
        ...
