"""A store that ends the command at a chosen change, before or after it was made: what a kill leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

from daskpki.confidential import Confidential
from daskpki.inventory import Base, Inventory
from daskpki.records import Draft, Head, Record, Stamp
from daskpki.store.port import Payload, RecordLog, SecretInfo, SecretStore, Store, Version

T = TypeVar("T")

BEFORE: Final = "before"
AFTER: Final = "after"


class Killed(BaseException):
    """Nothing may catch it, as nothing catches SIGKILL."""


class Fuse:
    """Counts changes; blows at the one of that number (counted from 1), if ever."""

    def __init__(self, number: int | None = None, when: str = BEFORE) -> None:
        self.count = 0
        self._number = number
        self._when = when

    def change(self, act: Callable[[], T]) -> T:
        """One change to the store."""
        self.count += 1
        if self.count == self._number and self._when == BEFORE:
            raise Killed
        try:
            return act()
        finally:
            if self.count == self._number:
                raise Killed


class Meanwhile(Fuse):
    """Lets something else happen, once, after the change of that number."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        super().__init__()
        self._turn = number
        self._act = act

    def change(self, act: Callable[[], T]) -> T:
        """One change to the store."""
        result = super().change(act)
        if self.count == self._turn:
            self._act()
        return result


class FragileStore:
    """A Store, implemented by another one."""

    def __init__(self, inner: Store, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse
        self.secrets: SecretStore = FragileSecrets(inner.secrets, fuse)

    @property
    def url(self) -> str:
        return self._inner.url

    def log(self, cluster: str) -> RecordLog:
        return FragileLog(self._inner.log(cluster), self._fuse)

    @contextmanager
    def batch(self) -> Iterator[None]:
        with self._inner.batch():
            yield

    def clusters(self) -> Sequence[str]:
        return self._inner.clusters()

    def close(self) -> None:
        self._inner.close()


class FragileSecrets:
    """A SecretStore."""

    def __init__(self, inner: SecretStore, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def create(
        self, secret: str, *, labels: Mapping[str, str], annotations: Mapping[str, str] | None = None
    ) -> SecretInfo:
        return self._fuse.change(lambda: self._inner.create(secret, labels=labels, annotations=annotations))

    def describe(self, secret: str) -> SecretInfo:
        return self._inner.describe(secret)

    def select(self, labels: Mapping[str, str]) -> Iterator[SecretInfo]:
        return self._inner.select(labels)

    def update(
        self,
        secret: str,
        *,
        etag: str,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> SecretInfo:
        return self._fuse.change(lambda: self._inner.update(secret, etag=etag, labels=labels, annotations=annotations))

    def delete(self, secret: str, *, etag: str | None = None) -> None:
        self._fuse.change(lambda: self._inner.delete(secret, etag=etag))

    def add(self, secret: str, payload: Confidential) -> int:
        return self._fuse.change(lambda: self._inner.add(secret, payload))

    def access(self, secret: str, number: int) -> Confidential:
        return self._inner.access(secret, number)

    def latest(self, secret: str) -> Payload:
        return self._inner.latest(secret)

    def versions(self, secret: str) -> Iterator[Version]:
        return self._inner.versions(secret)

    def enable(self, secret: str, number: int) -> None:
        self._fuse.change(lambda: self._inner.enable(secret, number))

    def disable(self, secret: str, number: int) -> None:
        self._fuse.change(lambda: self._inner.disable(secret, number))

    def destroy(self, secret: str, number: int) -> None:
        self._fuse.change(lambda: self._inner.destroy(secret, number))


class FragileLog:
    """A RecordLog."""

    def __init__(self, inner: RecordLog, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def inventory(self) -> Inventory:
        return self._inner.inventory()

    def read_cached(self) -> Inventory:
        return self._inner.read_cached()

    def records(self, *, after: int = 0) -> Iterator[Record]:
        return self._inner.records(after=after)

    def authenticate(self) -> Head:
        return self._inner.authenticate()

    def base(self) -> Base:
        return self._inner.base()

    def sealed(self, before: int, upto: int) -> Head:
        return self._inner.sealed(before, upto)

    def cut(self, base: Base, drafts: Sequence[Draft], stamp: Stamp, *, seen: Head) -> None:
        self._fuse.change(lambda: self._inner.cut(base, drafts, stamp, seen=seen))

    def begin(self, base: Base) -> None:
        self._fuse.change(lambda: self._inner.begin(base))

    def adopt(self, records: Sequence[Record]) -> None:
        self._fuse.change(lambda: self._inner.adopt(records))

    def commit(self, decide: Callable[[Inventory], Sequence[Draft]], stamp: Stamp) -> Sequence[Record]:
        return self._fuse.change(lambda: self._inner.commit(decide, stamp))
