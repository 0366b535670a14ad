"""The REST edge: HTTP request → protobuf request → service → JSON, with the headers a real reply carries."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import format_datetime

from tests.emulator.http_listener import HttpReply, HttpRequest
from tests.emulator.journal import Entry
from tests.emulator.messages import METHODS, Pb
from tests.emulator.rest_routes import Match, enums_as_numbers, find_route, read_request, render, render_error
from tests.emulator.service import Service
from tests.emulator.status import ApiError
from tests.emulator.tokens import bearer_token


class RestEdge:
    """Answers HTTP requests from the service.

    Attributes:
        date_skew: How far the `Date` header is from the servers' clock.
    """

    def __init__(self, service: Service, now: Callable[[], datetime]) -> None:
        self._service = service
        self._now = now
        self.date_skew = timedelta()

    def answer(self, http: HttpRequest) -> HttpReply:
        """One reply to one request; faults on the wire are the listener's."""
        match = find_route(http.method, http.path)
        rpc = match.route.rpc if match else ""
        entry = Entry("secretmanager", rpc, "rest", path=http.target, headers=http.headers, body=http.body)
        try:
            request = _read(http, match)
        except ApiError as error:
            self._service.refuse(entry, error)
            return self._error(error)
        try:
            reply = self._service.answer(entry, request, bearer_token(http.headers))
        except ApiError as error:
            return self._error(error)
        body = render(reply.message, numbers=enums_as_numbers(http.query))
        return self._reply(200, body, "application/json", truncated=reply.truncated)

    def _error(self, error: ApiError) -> HttpReply:
        if error.html:
            return self._reply(error.http_status, _page(error), "text/html", error)
        return self._reply(error.http_status, render_error(error), "application/json", error)

    def _reply(
        self, status: int, body: bytes, kind: str, error: ApiError | None = None, *, truncated: bool = False
    ) -> HttpReply:
        headers = {
            "Content-Type": f"{kind}; charset=UTF-8",
            "Date": format_datetime(self._now() + self.date_skew, usegmt=True),
            "Server": "ESF",
            "Cache-Control": "private",
            "X-Content-Type-Options": "nosniff",
            **(error.headers if error else {}),
        }
        return HttpReply(status, body, headers, truncated)


def _read(http: HttpRequest, match: Match | None) -> Pb:
    if not match:
        raise ApiError("NOT_FOUND", f"The requested URL {http.path} was not found.", html=True)
    if match.route.rpc not in METHODS:
        raise ApiError("UNIMPLEMENTED", f"{match.route.rpc} is not part of this server.")
    return read_request(match, http.query, http.body)


def _page(error: ApiError) -> bytes:
    status = error.http_status
    page = f"<!DOCTYPE html>\n<html lang=en><title>Error {status}</title><p><b>{status}.</b> {error.message}\n"
    return page.encode()
