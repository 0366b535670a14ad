"""The random model of a linear secret: several writers append entries, and what must hold of what they saw and got."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import NamedTuple

from daskpki.confidential import Confidential
from daskpki.errors import AmbiguousError, CorruptError
from daskpki.store.append_chain import AppendChain, ChainHead, Link, Tip
from tests.support.simulator import Crash, SimulatedSecret, SimulatedStore

SECRET = "daskpki_test_trust"


class Entries(NamedTuple):
    """A payload that holds all operations so far, as a log would."""

    link: Link
    operations: tuple[str, ...]


class EntriesCodec:
    def encode(self, payload: Entries) -> Confidential:
        return Confidential(json.dumps([payload.link, payload.operations]))

    def decode(self, data: Confidential) -> Entries:
        try:
            link, operations = json.loads(data.reveal())
        except ValueError as error:
            raise CorruptError("no entries") from error
        return Entries(Link(*link), tuple(operations))

    def link(self, payload: Entries) -> Link:
        return payload.link


def follow(tip: Tip[Entries], link: Link) -> Entries:
    before = tip.head.payload.operations if tip.head else ()
    return Entries(link, (*before, link.operation))


def includes(head: ChainHead[Entries], payload: Entries) -> bool:
    return payload.link.operation in head.payload.operations


class Run:
    """One schedule: what was acknowledged, every state that anyone saw, and what went wrong."""

    def __init__(
        self, seed: int, linear: type[AppendChain[Entries]] = AppendChain, *, writers: int = 4, appends: int = 4
    ) -> None:
        self.chance = random.Random(seed)
        self.secret = SimulatedSecret(self.chance)
        self.linear = linear
        self.acknowledged: list[str] = []
        self.seen: list[tuple[str, ...]] = []
        self.faults: list[str] = []
        self.secret.baton.run([self._program(number, appends) for number in range(writers)])
        self.secret.settle()

    def _open(self, writer: int) -> AppendChain[Entries]:
        knows = self.chance.random() < 0.5
        store = SimulatedStore(self.secret, writer)
        codec = EntriesCodec()
        return self.linear(store, SECRET, codec, includes=includes) if knows else self.linear(store, SECRET, codec)

    def _program(self, writer: int, appends: int) -> Callable[[], None]:
        def program() -> None:
            linear = self._open(writer)
            for count in range(appends):
                try:
                    self._append(linear, f"{writer}.{count}")
                except Crash:
                    linear = self._open(writer)
                except AmbiguousError:
                    continue
                except Exception as error:  # noqa: BLE001 - judged below
                    self.faults.append(repr(error))

        return program

    def _append(self, linear: AppendChain[Entries], operation: str) -> None:
        head = linear.append(follow, operation)
        assert head is not None
        self.acknowledged.append(operation)
        self.seen.append(head.payload.operations)
        if self.chance.random() < 0.7:
            linear.prune(head)

    def check(self) -> None:
        """Nothing acknowledged is lost, nothing doubled, and every state seen is a beginning of the last one."""
        assert not self.faults, self.faults
        head = self._open(-1).head()
        final = head.payload.operations if head else ()
        assert len(set(final)) == len(final), f"doubled: {final}"
        assert set(self.acknowledged) <= set(final), f"lost: {set(self.acknowledged) - set(final)}"
        for state in self.seen:
            assert final[: len(state)] == state, f"{state} was seen, and is no beginning of {final}"
