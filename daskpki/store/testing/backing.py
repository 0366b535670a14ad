"""The place that the suites run in, which a store's author provides, and the writers that they run in parallel.

A `Backing` gives handles to one empty place and makes it fail on demand. Writers run in threads and in processes.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import repeat
from typing import Final, Protocol

import pytest

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.inventory import Inventory
from daskpki.records import Draft, Stamp
from daskpki.store.port import SecretStore, Store


class Backing(Protocol):
    """One empty place for secrets and logs, which lasts for one test. It can be pickled, to be used in processes."""

    def factory(self) -> Store:
        """A new handle on the same place, independent of the others."""

    def foreign(self, secret: str) -> None:
        """Make a secret without daskpki's labels, with one version whose payload is b"foreign"."""

    def corrupt(self, secret: str, number: int) -> None:
        """Damage what is stored of that version, so that its payload cannot be returned as it was."""

    def make_stale(self, secret: str) -> None:
        """Freeze the answer of `latest` for that secret; a store in which it is never stale does nothing."""

    def unavailable(self) -> AbstractContextManager[None]:
        """Within it, writes through handles that are made by `factory` fail for a reason that passes."""

    def denied(self) -> AbstractContextManager[None]:
        """Within it, handles that are made by `factory` may neither write nor read payloads."""


SECRET: Final = "daskpki_c_secret_shared"
LABELS: Final = secret_names.labels("c", secret_names.SECRET, "shared")
MISSING: Final = "daskpki_c_secret_missing"
FOREIGN: Final = "daskpki_c_secret_foreign"


class OneStore:
    """The fixture of every suite."""

    @pytest.fixture
    def store(self, backing: Backing) -> Iterator[Store]:
        """A handle for one test."""
        with closing(backing.factory()) as store:
            yield store


class OneSecret(OneStore):
    """The fixtures of both halves of the suite of payloads."""

    @pytest.fixture
    def secrets(self, store: Store) -> SecretStore:
        """Its payloads, with one secret that has no version yet."""
        store.secrets.create(SECRET, labels=LABELS, annotations={"note": "für alle"})
        return store.secrets


STAMP: Final = Stamp(1_700_000_000, "operation", "user@host", "daskpki test")


@contextmanager
def threads(count: int) -> Iterator[Executor]:
    """Run that many threads."""
    with ThreadPoolExecutor(count) as executor:
        yield executor


@contextmanager
def processes(count: int) -> Iterator[Executor]:
    """Spawn that many processes, since gRPC's channels do not survive a fork."""
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


def run(
    executor: Executor, work: Callable[[Backing, int, int], list[int]], backing: Backing, writers: int, each: int
) -> Sequence[list[int]]:
    """Run `work` for each writer; returns their results, and raises their exceptions."""
    return list(executor.map(work, repeat(backing, writers), range(writers), repeat(each, writers)))


def add_versions(backing: Backing, writer: int, count: int) -> list[int]:
    """Add payloads `WRITER-N` to the secret `daskpki_c_secret_shared`, and return their numbers."""
    with closing(backing.factory()) as store:
        return [store.secrets.add("daskpki_c_secret_shared", Confidential(f"{writer}-{turn}")) for turn in range(count)]


def append_records(backing: Backing, writer: int, count: int) -> list[int]:
    """Append records that say after which head they were decided, and return their numbers."""

    def decide(view: Inventory) -> list[Draft]:
        return [Draft("note", {"writer": writer, "after": list(view.head)})]

    with closing(backing.factory()) as store:
        return [store.log("c").commit(decide, STAMP)[0].seq for _ in range(count)]
