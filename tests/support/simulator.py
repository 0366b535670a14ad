"""A secret in memory whose writers take turns at random, one store call at a time, and meet every misfortune.

`latest` and the list lag; adds are cut off before, after, or long before they act; writers crash between any two
calls. Whatever happens follows from the seed.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping

from daskpki.confidential import Confidential
from daskpki.errors import AmbiguousError, DisabledError, NotFoundError
from daskpki.store.port import DESTROYED, ENABLED, Payload, SecretInfo, Version


class Crash(BaseException):
    """The writer's process is gone."""


class Baton:
    """Lets one thread at a time go on, chosen by the seed, from one store call to the next."""

    def __init__(self, chance: random.Random, between: Callable[[], None]) -> None:
        self._chance = chance
        self._between = between
        self._gates: dict[int, threading.Lock] = {}
        self._done = threading.Event()

    def pause(self, writer: int) -> None:
        """Hand the turn on, perhaps to oneself, and wait for the next one."""
        chosen = self._choose()
        if chosen != writer:
            gate = self._gates[writer]
            self._gates[chosen].release()
            gate.acquire()

    def run(self, programs: list[Callable[[], None]]) -> None:
        """Run the programs to their ends."""
        threads = [self._thread(number, program) for number, program in enumerate(programs)]
        for thread in threads:
            thread.start()
        self._gates[self._choose()].release()
        self._done.wait()
        for thread in threads:
            thread.join()

    def _choose(self) -> int:
        self._between()
        return self._chance.choice(sorted(self._gates))

    def _thread(self, number: int, program: Callable[[], None]) -> threading.Thread:
        gate = self._gates[number] = threading.Lock()
        gate.acquire()

        def turn() -> None:
            gate.acquire()
            try:
                program()
            finally:
                del self._gates[number]
                self._end_turn()

        return threading.Thread(target=turn, daemon=True)

    def _end_turn(self) -> None:
        if self._gates:
            self._gates[self._choose()].release()
        else:
            self._done.set()


class SimulatedSecret:
    """The versions of one secret, and the misfortunes; `calm` ends them."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.calm = False
        self.payloads: list[Confidential | None] = []
        self.late: list[Confidential] = []
        self.baton = Baton(chance, self.between)

    def between(self) -> None:
        """An add that was cut off long ago may arrive now."""
        if self.late and self.chance.random() < 0.2:
            self.payloads.append(self.late.pop(self.chance.randrange(len(self.late))))

    def settle(self) -> None:
        """What is still under way arrives, and nothing goes wrong any more."""
        self.payloads += self.late
        self.late = []
        self.calm = True

    def strikes(self, probability: float) -> bool:
        """Whether a misfortune of that probability happens now."""
        return not self.calm and self.chance.random() < probability

    def lag(self) -> int:
        """How far `latest` and the list are behind at present."""
        return self.chance.randrange(6) if self.strikes(0.5) else 0


class SimulatedStore:
    """One writer's view of it, as a `SecretStore`."""

    def __init__(self, secret: SimulatedSecret, writer: int) -> None:
        self._secret = secret
        self._writer = writer

    def _turn(self) -> None:
        if not self._secret.calm:
            self._secret.baton.pause(self._writer)
        if self._secret.strikes(0.01):
            raise Crash

    def add(self, secret: str, payload: Confidential) -> int:
        self._turn()
        if self._secret.strikes(0.04):
            raise AmbiguousError(f"{secret}: cut off before it acted")
        if self._secret.strikes(0.04):
            self._secret.late.append(payload)
            raise AmbiguousError(f"{secret}: cut off, and under way")
        self._secret.payloads.append(payload)
        number = len(self._secret.payloads)
        if self._secret.strikes(0.04):
            raise AmbiguousError(f"{secret}: cut off after it acted")
        self._turn()
        return number

    def access(self, secret: str, number: int) -> Confidential:
        self._turn()
        if not 1 <= number <= len(self._secret.payloads):
            raise NotFoundError(f"{secret}, version {number}")
        payload = self._secret.payloads[number - 1]
        if payload is None:
            raise DisabledError(f"{secret}, version {number}")
        return payload

    def latest(self, secret: str) -> Payload:
        number = len(self._secret.payloads) - self._secret.lag()
        if number < 1:
            self._turn()
            raise NotFoundError(secret)
        return Payload(number, self.access(secret, number))

    def versions(self, secret: str) -> Iterator[Version]:  # noqa: ARG002 - there is one secret
        self._turn()
        seen = len(self._secret.payloads) - self._secret.lag()
        for number in range(seen, 0, -1):
            payload = self._secret.payloads[number - 1]
            yield Version(number, DESTROYED if payload is None else ENABLED, 0)

    def destroy(self, secret: str, number: int) -> None:  # noqa: ARG002
        self._turn()
        self._secret.payloads[number - 1] = None

    def create(
        self, secret: str, *, labels: Mapping[str, str], annotations: Mapping[str, str] | None = None
    ) -> SecretInfo:
        return SecretInfo(secret, labels, annotations or {}, "", 0)

    def describe(self, secret: str) -> SecretInfo:
        return SecretInfo(secret, {}, {}, "", 0)

    def select(self, labels: Mapping[str, str]) -> Iterator[SecretInfo]:
        raise AssertionError(f"a linear secret selects nothing ({labels})")

    def update(
        self,
        secret: str,
        *,
        etag: str,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> SecretInfo:
        raise AssertionError(f"a linear secret is not updated ({secret}, {etag}, {labels}, {annotations})")

    def delete(self, secret: str, *, etag: str | None = None) -> None:
        raise AssertionError(f"a linear secret is not deleted ({secret}, {etag})")

    def enable(self, secret: str, number: int) -> None:
        raise AssertionError(f"nothing is enabled ({secret}, {number})")

    def disable(self, secret: str, number: int) -> None:
        raise AssertionError(f"nothing is disabled ({secret}, {number})")
