"""Messages that this process writes to itself, to be read as if the other side had sent them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


class Inbox:
    """Lets a local answer overtake a read that waits for the network. Costs nothing until the first answer is due."""

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._arrived = asyncio.Event()
        self._reading: asyncio.Future[Any] | None = None

    def put(self, messages: list[Any]) -> None:
        """Have `messages` read next."""
        self._messages.extend(messages)
        if self._messages:
            self._arrived.set()

    async def race(self, read: Callable[[], Awaitable[Any]]) -> Any:
        """The local messages if there are any, else what `read` brings, whichever comes first."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(read())
        arrival = asyncio.ensure_future(self._arrived.wait())
        try:
            await asyncio.wait({self._reading, arrival}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            arrival.cancel()
        return self._taken() if self._messages else self._brought()

    def _taken(self) -> list[Any]:
        self._arrived.clear()
        taken, self._messages = self._messages, []
        return taken

    def _brought(self) -> Any:
        assert self._reading is not None
        reading, self._reading = self._reading, None
        return reading.result()
