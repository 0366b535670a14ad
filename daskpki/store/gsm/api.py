"""Requests to Secret Manager with their retries: a refused call is repeated only where that cannot do it twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from daskpki.settings import GsmUrl
from daskpki.store.gsm.client import Connection
from daskpki.store.gsm.patience import Patience
from daskpki.store.gsm.refusals import METHODS, Refusal, error_for, may_retry


class GsmApi:
    """Secret Manager's methods at one place; raises daskpki's errors, as `daskpki.store.port` lists them."""

    def __init__(self, connection: Connection, url: GsmUrl, patience: Patience) -> None:
        self._connection = connection
        self._patience = patience
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
        raise error_for(last, method, subject, self.url) from last

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
