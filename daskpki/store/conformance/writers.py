"""Writers that the suites run many of at once, in threads and in processes of their own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import repeat
from typing import Final

from daskpki.confidential import Confidential
from daskpki.inventory import Inventory
from daskpki.records import Draft, Stamp
from daskpki.store.conformance.backing import Backing

STAMP: Final = Stamp(1_700_000_000, "operation", "user@host", "daskpki test")


@contextmanager
def threads(count: int) -> Iterator[Executor]:
    """That many threads."""
    with ThreadPoolExecutor(count) as executor:
        yield executor


@contextmanager
def processes(count: int) -> Iterator[Executor]:
    """That many processes, spawned, since gRPC's channels do not survive a fork."""
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


def run(
    executor: Executor, work: Callable[[Backing, int, int], list[int]], backing: Backing, writers: int, each: int
) -> Sequence[list[int]]:
    """What each writer returned; their exceptions are raised here."""
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
