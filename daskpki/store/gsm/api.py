"""Requests to Secret Manager with their retries: a refused call is repeated only where that cannot do it twice."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

from daskpki.settings import GsmUrl
from daskpki.store.gsm.client import Connection
from daskpki.store.gsm.patience import Patience
from daskpki.store.gsm.refusals import METHODS, Refusal, error_for, may_retry

_WORTH_A_WORD: Final = 6  # attempts: by then some seconds have passed, and a person wonders
_LOGGER: Final = logging.getLogger("daskpki")


class GsmApi:
    """Secret Manager's methods at one place; raises daskpki's errors, as `daskpki.store.port` lists them."""

    def __init__(self, connection: Connection, url: GsmUrl, patience: Patience) -> None:
        self._connection = connection
        self._patience = patience
        self._told = False
        self.url = url

    def call(self, method: str, request: Mapping[str, Any], subject: str, *, patient: bool = True) -> Any:
        """The reply; None when a repeated call finds its work done. Without `patient` there is one attempt only."""
        last = Refusal("DEADLINE_EXCEEDED", "there was no time for an attempt")
        for attempt in self._patience.attempts():
            try:
                return self._connection.call(method, request, self._patience.timing.attempt_timeout)
            except Refusal as refusal:
                if attempt > 1 and refusal.status == METHODS[method].done:
                    return None
                last = refusal
            if not patient or not may_retry(last, method):
                break
            self._tell(attempt, last)
        raise error_for(last, method, subject, self.url) from last

    def _tell(self, attempt: int, refusal: Refusal) -> None:
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
