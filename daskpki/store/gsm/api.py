"""Requests to Secret Manager with their retries.

A refused call is repeated only if that cannot do it twice. Waits have full jitter and double, up to a deadline. Time is
injected.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from daskpki.settings import GsmUrl
from daskpki.store.gsm.client import GoogleConnection
from daskpki.store.gsm.errors import METHODS, ApiError, error_for, may_retry


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


class RetryPolicy:
    """Decides when to try again."""

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


_WORTH_A_WORD: Final = 6  # attempts: by then some seconds have passed, and a person wonders
_LOGGER: Final = logging.getLogger("daskpki")


class GsmApi:
    """Secret Manager's methods at one place; raises daskpki's errors, as `daskpki.store.port` lists them."""

    def __init__(self, connection: GoogleConnection, url: GsmUrl, patience: RetryPolicy) -> None:
        self._connection = connection
        self._patience = patience
        self._told = False
        self.url = url

    def call(self, method: str, request: Mapping[str, Any], subject: str, *, patient: bool = True) -> Any:
        """The reply; None when a repeated call finds its work done. Without `patient` there is one attempt only."""
        last = ApiError("DEADLINE_EXCEEDED", "there was no time for an attempt")
        for attempt in self._patience.attempts():
            try:
                # The client's own retries are off, since only `access` has any, and those miss REST's 429.
                return self._connection.call(method, request, timeout=self._patience.timing.attempt_timeout, retry=None)
            except ApiError as refusal:
                if attempt > 1 and refusal.status == METHODS[method].done:
                    return None
                last = refusal
            if not patient or not may_retry(last, method):
                break
            self._tell(attempt, last)
        raise error_for(last, method, subject, self.url) from last

    def _tell(self, attempt: int, refusal: ApiError) -> None:
        if attempt >= _WORTH_A_WORD and not self._told:
            self._told = True
            limit = self._patience.timing.deadline
            _LOGGER.warning("%s: %s; trying again for up to %.0f s", self.url, refusal.message, limit)

    def pages(self, method: str, request: Mapping[str, Any], subject: str) -> Iterator[Any]:
        """The pages of a list, each with the retries of `call`."""
        token = ""
        while True:
            pager = self.call(method, {**request, "page_token": token}, subject)
            page = next(iter(pager.pages))
            yield page
            token = page.next_page_token
            if not token:
                return
