"""Scripted faults and hooks: which requests they hit, and what happens to those before, instead of or after acting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from tests.emulator.journal import Entry
from tests.emulator.messages import Pb
from tests.emulator.status import HTTP_BY_STATUS, STATUS_BY_HTTP, ApiError, error_info

Hook = Callable[[Entry], object]


class ConnectionReset(Exception):  # noqa: N818 (what happens to the caller, not an error of the server)
    """The edge shall drop the connection without a reply."""


@dataclass
class Fault:
    """What happens to the requests that match.

    Attributes:
        method: An RPC's name (or a metadata path), with `*` as a wildcard.
        secret: A secret's id, with `*` as a wildcard; None for any.
        principal: A caller; None for any.
        nth: The first of the matching requests to be hit, counting from 1.
        times: How many in a row from there; None for all.
        status: Answer this canonical status instead.
        http: Answer this HTTP status instead (over gRPC, the status it maps to).
        reason: The ErrorInfo reason of that answer.
        metadata: The ErrorInfo's fields.
        message: Its message.
        headers: HTTP headers of that answer, such as Retry-After.
        html: Over HTTP, answer with a page as a front end would, not with JSON.
        acts_first: Do what was asked, and only then fail.
        latency: Seconds to wait before acting; with `acts_first`, after it.
        reset: Drop the connection instead of an answer.
        truncate: Over HTTP, cut the reply in the middle and close.
        wrong_crc32c: Return a payload whose checksum does not fit.
        before: Runs before the request acts, outside all locks.
        after: Runs after it acted and before the reply is sent, outside all locks.
    """

    method: str = "*"
    secret: str | None = None
    principal: str | None = None
    nth: int = 1
    times: int | None = 1
    status: str | None = None
    http: int | None = None
    reason: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    message: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    html: bool = False
    acts_first: bool = False
    latency: float = 0.0
    reset: bool = False
    truncate: bool = False
    wrong_crc32c: bool = False
    before: Hook | None = None
    after: Hook | None = None
    seen: int = 0
    hits: int = 0

    def concerns(self, entry: Entry) -> bool:
        """Whether a request is of the kind, whatever its number."""
        return (
            fnmatchcase(entry.method, self.method)
            and (self.secret is None or fnmatchcase(entry.secret_id, self.secret))
            and self.principal in (None, entry.principal)
        )

    def strike(self) -> None:
        """Fail the request, if this fault does."""
        if self.reset:
            raise ConnectionReset
        if self.status or self.http:
            raise self._error()

    def distort(self, response: Pb) -> None:
        """Change the reply, if this fault does."""
        if self.wrong_crc32c and hasattr(response, "payload"):
            response.payload.data_crc32c ^= 1

    def _error(self) -> ApiError:
        status = self.status or STATUS_BY_HTTP.get(self.http or 0, "UNKNOWN")
        http = self.http or HTTP_BY_STATUS[status]
        details = [error_info(self.reason, **self.metadata)] if self.reason else []
        text = self.message or f"Injected fault: {status}."
        return ApiError(status, text, *details, http_status=http, headers=self.headers, html=self.html)


class FaultPlan:
    """The faults in force; thread-safe."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault | None = None, **settings: Any) -> Fault:
        """Put a fault in force, given as such or by its settings."""
        fault = fault or Fault(**settings)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """All is well again."""
        with self._lock:
            self._faults.clear()

    def remove(self, fault: Fault) -> None:
        """End one fault."""
        with self._lock:
            self._faults.remove(fault)

    def claim(self, entry: Entry) -> list[Fault]:
        """The faults that hit this request; each counts it."""
        with self._lock:
            return [fault for fault in self._faults if fault.concerns(entry) and _counts(fault)]


def _counts(fault: Fault) -> bool:
    fault.seen += 1
    end = float("inf") if fault.times is None else fault.nth + fault.times
    hit = fault.nth <= fault.seen < end
    fault.hits += hit
    return hit
