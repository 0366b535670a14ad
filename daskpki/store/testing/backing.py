"""The place in which the suites run, which the author of a store provides, and the parallel writers.

A `Backing` gives handles to one empty place and makes it fail on demand. Writers run in threads and in processes.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from functools import partial
from itertools import repeat
from typing import Final, Protocol

import pytest

from daskpki.confidential import Confidential
from daskpki.inventory import Inventory
from daskpki.records import Draft, Stamp
from daskpki.store.port import Store


class Backing(Protocol):
    """One empty place for secrets and logs, which lasts for one test. Pickle can send it to other processes."""

    def factory(self) -> Store:
        """A new handle on the same place, independent of the others."""

    def foreign(self, secret: str) -> None:
        """Make a secret without daskpki's labels, with one version whose payload is b"foreign"."""

    def corrupt(self, secret: str, number: int) -> None:
        """Damage the stored bytes of that version, so that its payload cannot be returned as it was."""

    def make_stale(self, secret: str) -> None:
        """Freeze the answer of `latest` for that secret; a store in which it is never stale does nothing."""

    def unavailable(self) -> AbstractContextManager[None]:
        """Let writes through new handles fail with a temporary error."""

    def denied(self) -> AbstractContextManager[None]:
        """Let new handles neither write nor read payloads."""


SECRET: Final = "daskpki_c_secret_shared"


class OneStore:
    """The fixture of every suite."""

    @pytest.fixture
    def store(self, backing: Backing) -> Iterator[Store]:
        """A handle for one test."""
        with closing(backing.factory()) as store:
            yield store


STAMP: Final = Stamp(1_700_000_000, "operation", "user@host", "daskpki test")


threads = ThreadPoolExecutor
processes = partial(ProcessPoolExecutor, mp_context=multiprocessing.get_context("spawn"))
"""Makes a pool of that many processes. They are spawned, since gRPC's channels do not survive a fork."""


def run(
    executor: Executor, work: Callable[[Backing, int, int], list[int]], backing: Backing, writers: int, each: int
) -> Sequence[list[int]]:
    """Run `work` for each writer; returns their results, and raises their exceptions."""
    return list(executor.map(work, repeat(backing, writers), range(writers), repeat(each, writers)))


def add_versions(backing: Backing, writer: int, count: int) -> list[int]:
    """Add payloads `WRITER-N` to SECRET, and return their numbers."""
    with closing(backing.factory()) as store:
        return [store.secrets.add(SECRET, Confidential(f"{writer}-{turn}")) for turn in range(count)]


def append_records(backing: Backing, writer: int, count: int) -> list[int]:
    """Append records that name the head after which they were decided, and return their numbers."""

    def decide(view: Inventory) -> list[Draft]:
        return [Draft("note", {"writer": writer, "after": list(view.head)})]

    with closing(backing.factory()) as store:
        return [store.log("c").commit(decide, STAMP)[0].seq for _ in range(count)]
