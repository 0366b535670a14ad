"""How long and how often a refused call is tried again: full jitter, doubling, up to a deadline. Time is injected."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple


class Timing(NamedTuple):
    """The sources of time and chance, and the limits in seconds."""

    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic
    jitter: Callable[[float, float], float] = random.uniform
    nonce: Callable[[], str] = partial(secrets.token_hex, 8)
    deadline: float = 120.0
    attempt_timeout: float = 20.0
    first_wait: float = 0.2
    longest_wait: float = 8.0


class Patience:
    """When to try again."""

    def __init__(self, timing: Timing) -> None:
        self.timing = timing

    def now(self) -> float:
        """Seconds on the monotonic clock."""
        return self.timing.now()

    def attempts(self) -> Iterator[int]:
        """1, 2, 3, ... with a random wait before each but the first; ends when the next would pass the deadline."""
        end = self.now() + self.timing.deadline
        number = 1
        while True:
            yield number
            wait = self._wait(number)
            if self.now() + wait > end:
                return
            self.timing.sleep(wait)
            number += 1

    def pause(self, number: int) -> None:
        """Wait as `attempts` does after attempt `number`, for those who count themselves."""
        self.timing.sleep(self._wait(number))

    def _wait(self, number: int) -> float:
        return self.timing.jitter(0.0, min(self.timing.first_wait * 2.0 ** (number - 1), self.timing.longest_wait))
