"""The record of every request, for counting and for searching keys in what travelled."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TextIO


@dataclass
class Entry:
    """One request as it arrived, and how it ended.

    `status` is the canonical name such as OK or NOT_FOUND, or what a fault did to the reply: RESET, TRUNCATED.
    """

    server: str
    method: str
    transport: str
    resource: str = ""
    secret_id: str = ""
    version: str = ""
    principal: str = ""
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    status: str = ""
    http_status: int = 0

    def as_json(self) -> str:
        """One line, with the body in hexadecimal."""
        return json.dumps({**asdict(self), "headers": dict(self.headers), "body": self.body.hex()})


class Journal:
    """Entries in order of arrival, each complete once its request has ended; thread-safe."""

    def __init__(self, sink: TextIO | None = None) -> None:
        self._entries: list[Entry] = []
        self._sink = sink
        self._lock = threading.Lock()

    def arrived(self, entry: Entry) -> None:
        """Take up a request."""
        with self._lock:
            self._entries.append(entry)

    def ended(self, entry: Entry) -> None:
        """Pass a finished request on to the sink, as a line of JSON."""
        if self._sink:
            with self._lock:
                self._sink.write(entry.as_json() + "\n")
                self._sink.flush()

    def entries(self, method: str | None = None) -> list[Entry]:
        """All entries so far, or those of one method."""
        with self._lock:
            return [entry for entry in self._entries if method in (None, entry.method)]

    def count(self, method: str | None = None) -> int:
        """How many requests arrived, of one method or of all."""
        return len(self.entries(method))

    def clear(self) -> None:
        """Start anew."""
        with self._lock:
            self._entries.clear()
