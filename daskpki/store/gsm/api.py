"""Requests to Secret Manager with their retries.

A refused call is repeated only if that cannot carry it out twice. Waits have full jitter and double, up to a deadline.
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


class RetryPolicy(NamedTuple):
    """Decides when to try again: sources of time and chance, and limits in seconds."""

    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic
    jitter: Callable[[float, float], float] = random.uniform
    nonce: Callable[[], str] = partial(secrets.token_hex, 8)
    deadline: float = 120.0
    attempt_timeout: float = 20.0
    first_wait: float = 0.2
    longest_wait: float = 8.0

    def attempts(self) -> Iterator[int]:
        """Yield 1, 2, 3, ... with a random wait before each but the first; ends if the next would pass the deadline."""
        end = self.now() + self.deadline
        number = 1
        while True:
            yield number
            wait = self._wait(number)
            if self.now() + wait > end:
                return
            self.sleep(wait)
            number += 1

    def pause(self, number: int) -> None:
        """Wait as `attempts` does after attempt `number`, for a caller that counts its attempts itself."""
        self.sleep(self._wait(number))

    def _wait(self, number: int) -> float:
        return self.jitter(0.0, min(self.first_wait * 2.0 ** (number - 1), self.longest_wait))


_LOGGED_FROM: Final = 6
"""Attempt from which a wait is logged: some seconds have passed by then."""
_LOGGER: Final = logging.getLogger("daskpki")


class GsmApi:
    """Secret Manager's methods in one project or location; raises daskpki's errors (`daskpki.store.port`)."""

    def __init__(self, connection: GoogleConnection, url: GsmUrl, policy: RetryPolicy) -> None:
        self._connection = connection
        self._policy = policy
        self._logged = False
        self.url = url

    def call(self, method: str, request: Mapping[str, Any], subject: str, *, retried: bool = True) -> Any:
        """Return the reply; None if a repeated call finds its work done. Without `retried` there is one attempt."""
        last = ApiError("DEADLINE_EXCEEDED", "there was no time for an attempt")
        for attempt in self._policy.attempts():
            try:
                # The client's own retries are off, since only `access` has any, and those miss REST's 429.
                return self._connection.call(method, request, timeout=self._policy.attempt_timeout, retry=None)
            except ApiError as refusal:
                if attempt > 1 and refusal.status == METHODS[method].done:
                    return None
                last = refusal
            if not retried or not may_retry(last, method):
                break
            if attempt >= _LOGGED_FROM and not self._logged:
                self._logged = True
                limit = self._policy.deadline
                _LOGGER.warning("%s: %s; trying again for up to %.0f s", self.url, last.message, limit)
        raise error_for(last, method, subject, self.url) from last

    def pages(self, method: str, request: Mapping[str, Any], subject: str) -> Iterator[Any]:
        """Yield the pages of a list, each with the retries of `call`."""
        token = ""
        while True:
            pager = self.call(method, {**request, "page_token": token}, subject)
            page = next(iter(pager.pages))
            yield page
            token = page.next_page_token
            if not token:
                return
