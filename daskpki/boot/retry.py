"""How long a boot keeps trying: full jitter from 50 ms, doubling up to 5 s, until the deadline; then exit code 75.

Two kinds of failure only: TryAgain, which may go better, and daskpki's errors, which end the boot at once. So each
request says itself what is worth another attempt, and nothing here knows a protocol.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from daskpki.errors import UnavailableError

T = TypeVar("T")

_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 5.0
_LONGEST_ATTEMPT: Final = 10.0
_LATER: Final = "it may pass: start again, or wait longer with --deadline SECONDS"


class TryAgain(Exception):  # noqa: N818 - not an error yet: it becomes one at the deadline
    """What failed and may go better next time; `hint` is what a person can do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def within(seconds: float, call: Callable[[], T], otherwise: str) -> T:
    """The result of `call`, which knows no time limit that holds, or TimeoutError with the words of `otherwise`.

    It runs in a thread, which is left behind then: nothing ends it, and exec and exit do not wait for it.
    """
    from threading import Thread

    results: list[T] = []
    faults: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 - raised where it was called from
            faults.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if results:
        return results[0]
    raise faults[0] if faults else TimeoutError(otherwise)


class Patience(NamedTuple):
    """Until when (on the monotonic clock) attempts are made, and who is told why there is another one."""

    end: float
    note: Callable[[str], None]
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = lambda: int.from_bytes(os.urandom(4)) / (1 << 32)

    def persist(self, attempt: Callable[[float], T]) -> T:
        """The result of `attempt(timeout)`, once there is one; UnavailableError with the last cause at the deadline."""
        wait = _FIRST_WAIT
        told = ""
        while True:
            left = self.end - self.now()
            try:
                if left <= 0:
                    raise TryAgain("no time was left for this request")  # noqa: TRY301 - ends as any other failure
                return attempt(min(_LONGEST_ATTEMPT, left))
            except TryAgain as cause:
                last = cause
            pause = wait * self.jitter()
            if self.now() + pause >= self.end:
                raise UnavailableError(f"gave up at the deadline: {last}", hint=last.hint or _LATER) from last
            if str(last) != told:
                told = str(last)
                self.note(f"{told}; trying again")
            self.sleep(pause)
            wait = min(2 * wait, _LONGEST_WAIT)
