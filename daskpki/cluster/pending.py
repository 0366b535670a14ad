"""Bounds connections that have not shown a certificate yet, in number and in time.

Anyone who reaches a port can open connections and stay silent. Each costs a descriptor and some 50 kB, and without
descriptors nobody can connect. At the limit the longest idle connection is closed, not the new one.
"""

from __future__ import annotations

import os
import selectors
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any, Final

from tornado.gen import convert_yielded
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.iostream import IOStream, SSLIOStream
from tornado.netutil import ssl_wrap_socket
from tornado.tcpserver import TCPServer

from daskpki.cluster.audit import TURNED_AWAY, Audit
from daskpki.cluster.refusal import Reason, reason_at_tls
from daskpki.cluster.tls import EXHAUSTED, PkiSocket

DEADLINE: Final = 10
"""Seconds in all that we wait for a peer before its handshake is over."""

_PERIOD: Final = 1
_PAUSE: Final = 0.1
"""Seconds before the next accept, if nothing could be closed to make room."""
_AT_ONCE: Final = 128
"""Connections that are accepted in one turn of the event loop, as in tornado."""
_SEVERAL: Final = 16
"""Connections that are looked at, or closed, in one step: a few, since each step costs a system call."""
_SPARE: Final = 8
"""Descriptors that this process needs itself to ask its store, and to load a key."""
_FEWEST: Final = 64
_MOST: Final = 2048
"""Bounds of the pending connections: enough for a fleet that connects at once, and at most 100 MB of memory."""

# Poll takes descriptors above 1,024, and needs none of its own; Windows has select alone.
_Selector: Final[Any] = getattr(selectors, "PollSelector", selectors.SelectSelector)


def usual_limit() -> int:
    """Return how many connections may wait at once: a quarter of this process's descriptors."""
    allowed = _descriptors()
    return _MOST if allowed is None else max(_FEWEST, min(allowed // 4, _MOST))


def is_crowded(descriptor: int) -> bool:
    """True if a descriptor is among the last sixteenth, which is reserved for reads of the store and `daskpki revoke`.

    A process gets the lowest number that is free, so the number tells how many are in use.
    """
    allowed = _descriptors()
    return allowed is not None and descriptor >= allowed - max(allowed // 16, 1)


def _some_are_spare() -> bool:
    held: list[int] = []
    try:
        held.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(_SPARE))
    except OSError:
        return False
    finally:
        for descriptor in held:
            os.close(descriptor)
    return True


def _descriptors() -> int | None:
    try:
        import resource
    except ImportError:  # Windows, where descriptors are not counted
        return None
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if allowed == resource.RLIM_INFINITY else allowed


class PendingConnections:
    """The pending connections of one server. At the limit the longest idle one is closed, never a new one.

    `close_known(most, why)` closes authenticated connections, if descriptors are short and none is pending.

    A peer's time is counted only while nothing that it sent is unread: delays of this process do not count.
    """

    def __init__(self, audit: Audit, close_known: Callable[[int, str], None] = lambda _most, _why: None) -> None:
        self._audit = audit
        self._close_known = close_known
        self.limit = usual_limit()
        self._waited: OrderedDict[SSLIOStream, int] = OrderedDict()  # seconds; the longest idle one comes first
        self._looking = PeriodicCallback(self.look, _PERIOD * 1000)

    def __len__(self) -> int:
        return len(self._waited)

    def enter(self, stream: SSLIOStream) -> None:
        """Add an accepted connection; it stays until `leave`."""
        if len(self._waited) >= self.limit:
            self._close_longest_idle(f"{self.limit} connections waited at once, and this one was idle for longest")
        self._waited[stream] = 0
        if isinstance(stream.socket, PkiSocket):
            stream.socket.on_turn = partial(self._move_to_end, stream)

    def leave(self, stream: SSLIOStream) -> None:
        """Remove a connection whose peer is known, or gone."""
        self._waited.pop(stream, None)
        if isinstance(stream.socket, PkiSocket):  # a closed one is None
            stream.socket.on_turn = None

    async def handshake(self, stream: SSLIOStream, address: str, where: str = "") -> SSLIOStream | None:
        """Wait for TLS on an accepted connection; None if it fails, which is recorded.

        Dask and tornado would log every failure; the audit limits their number.
        """
        self.enter(stream)
        try:
            return await stream.wait_for_handshake()
        except OSError:
            why, reason = f"{where}no TLS: {stream.error or 'it closed the connection'}", reason_at_tls(stream.error)
            self._audit.record(TURNED_AWAY, address=address, detail=why, reason=reason)
            return None
        finally:
            self.leave(stream)

    def _move_to_end(self, stream: SSLIOStream) -> None:
        if stream in self._waited:
            self._waited.move_to_end(stream)

    def look(self) -> None:
        """Once a second, count the time of idle peers; close those that take too long, or the last descriptors.

        A call counts one second however late it comes, so that a busy loop does not cost its peers time.
        """
        for stream in set(self._waited) - readable(self._waited):
            self._waited[stream] += _PERIOD
            if self._waited[stream] >= DEADLINE:
                self._close_stream(stream, f"no handshake within {DEADLINE} s")
        if not _some_are_spare():  # which no accept finds out while nobody dials
            self.thin_out()
        self._audit.log_repeated()

    def _close_longest_idle(self, why: str) -> bool:
        for _ in range(0, len(self._waited), _SEVERAL):
            oldest = list(islice(self._waited, _SEVERAL))
            late = readable(oldest)
            idle = next((stream for stream in oldest if stream not in late), None)
            if idle is not None:
                self._close_stream(idle, why)
                return True
            for stream in oldest:  # they wait for us
                self._waited.move_to_end(stream)
        if self._waited:
            self._close_stream(next(iter(self._waited)), why)
            return True
        return False

    def _close_stream(self, stream: SSLIOStream, why: str) -> None:
        self.leave(stream)
        stream.close(exc_info=TimeoutError(why))  # raised in the handshake, which records it

    # --- accepting -------------------------------------------------------------------------------------------------

    def open(self, server: TCPServer) -> None:
        """Accept the connections of `server` from now on, in place of tornado.

        Tornado lets the error of `accept` escape into the event loop, which logs it and calls again at once: without
        descriptors that was 17,000 lines a second.
        """
        for descriptor, listening in server._sockets.items():  # noqa: SLF001 - ADR 10 lists it
            server._handlers.pop(descriptor)()  # noqa: SLF001 - likewise
            take = partial(_begin_tls, server) if server.ssl_options else server._handle_connection  # noqa: SLF001
            server._handlers[descriptor] = _Accepting(self, listening, take).stop  # noqa: SLF001 - likewise
        self._looking.start()

    def close(self) -> None:
        """Accept no more."""
        self._looking.stop()

    def free_place(self, error: OSError) -> bool:
        """Record `error` of an accept; return whether to accept again at once."""
        why = f"a connection could not be accepted: {error}"
        self._audit.record(TURNED_AWAY, detail=why, reason=Reason.TLS)
        if error.errno not in EXHAUSTED:
            return False
        why = f"no descriptors or memory left ({error})"
        # Several, since the rest of the process needs some as well.
        if sum(self._close_longest_idle(why) for _ in range(_SEVERAL)) > 0:
            return True
        self._close_known(_SEVERAL, why)
        return False  # their descriptors are free at the loop's next turn

    def thin_out(self) -> None:
        """Close several connections before descriptors run out: pending ones idle for a second, else known ones."""
        why = "few descriptors are left"
        idle = [stream for stream, seconds in self._waited.items() if seconds][:_SEVERAL]
        for stream in idle:
            self._close_stream(stream, why)
        if not idle:
            self._close_known(_SEVERAL, why)


def keep_few(server: HTTPServer, most: int) -> None:
    """Let an HTTP server that asks for no certificate close its oldest connection for each new one beyond `most`."""
    streams: list[IOStream] = []
    take_in = server.handle_stream

    def take_in_one(stream: IOStream, address: tuple[Any, ...]) -> None:
        streams[:] = [each for each in streams if not each.closed()]
        if len(streams) >= most:
            streams.pop(0).close()
        streams.append(stream)
        take_in(stream, address)

    server.handle_stream = take_in_one  # type: ignore[method-assign]  # ADR 10 lists it


class _Accepting:
    """One listening socket, in the event loop."""

    def __init__(
        self, pending: PendingConnections, listening: socket.socket, take: Callable[[socket.socket, Any], None]
    ) -> None:
        self._pending, self._listening, self._take = pending, listening, take
        self._loop = IOLoop.current()
        self._resuming: object = None
        self._resume()

    def _resume(self) -> None:
        self._loop.add_handler(self._listening, self._accept, IOLoop.READ)

    def stop(self) -> None:
        self._loop.remove_handler(self._listening)  # does nothing during a pause
        if self._resuming is not None:
            self._loop.remove_timeout(self._resuming)  # does nothing after it
        self._pending.close()

    def _accept(self, listening: socket.socket, _events: int) -> None:
        crowded = False
        for _ in range(_AT_ONCE):  # then the others have their turn
            try:
                connection, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # it was there, and went
            except OSError as error:
                if not self._pending.free_place(error):
                    self._loop.remove_handler(listening)
                    self._resuming = self._loop.call_later(_PAUSE, self._resume)
                    return
                continue
            if not crowded and is_crowded(connection.fileno()):
                crowded = True
                self._pending.thin_out()
            try:
                self._take(connection, address)
            except OSError as error:  # it was reset before TLS could begin
                connection.close()
                self._pending.free_place(error)


def _begin_tls(server: TCPServer, connection: socket.socket, address: Any) -> None:
    """Do what tornado's `_handle_connection` does, which also loads the system's CAs once: 30 ms at a start, unused."""
    options = server.ssl_options
    assert options is not None
    wrapped = ssl_wrap_socket(connection, options, server_side=True, do_handshake_on_connect=False)
    sizes = {"max_buffer_size": server.max_buffer_size, "read_chunk_size": server.read_chunk_size}
    stream = SSLIOStream(wrapped, ssl_options=options, **sizes)
    handled = server.handle_stream(stream, address)
    if handled is not None:
        IOLoop.current().add_future(convert_yielded(handled), lambda done: done.result())


def readable(streams: Iterable[SSLIOStream]) -> set[SSLIOStream]:
    """Return the streams with unread bytes, or at their end."""
    with _Selector() as selector:
        for stream in streams:
            if not stream.closed():
                selector.register(stream.socket, selectors.EVENT_READ, stream)
        return {key.data for key, _ in selector.select(0)} if selector.get_map() else set()
