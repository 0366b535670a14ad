"""Dask's comm backend for `tls`: decides who may be at the other end before a byte of Dask's protocol is read.

`install` replaces one entry of distributed's registry of comm backends. Everything else travels in the connection
arguments, so two `Security` objects in one process do not affect each other, and a stock one stays stock. The TLS
context travels inside the Enforcement instead of Dask's argument `ssl_context`: a backend that is not ours finds no
context and refuses to connect.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

from distributed.comm import registry, tcp
from distributed.comm.addressing import parse_address
from distributed.comm.core import Comm, CommClosedError, FatalCommClosedError
from distributed.node import ServerNode
from tornado.iostream import SSLIOStream, StreamClosedError

from daskpki.cluster.audit import TURNED_AWAY
from daskpki.cluster.comm import PkiTLS
from daskpki.cluster.enforcement import CONNECTION_ARGUMENT, Enforcement
from daskpki.cluster.node import port_is_taken
from daskpki.cluster.peer import WrongRoleError, shown_certificate
from daskpki.cluster.pending import PendingConnections
from daskpki.cluster.policy import (
    ACCEPTS,
    ARGUMENT,
    SERVES,
    Channel,
    Destinations,
    Server,
    server_kind,
    verify_own_worker,
)
from daskpki.cluster.refusal import turned_away
from daskpki.cluster.web.server import install_guard
from daskpki.errors import NotTrustedError, UnavailableError
from daskpki.identity import Identity, Role

SERVER_ARGUMENT: Final = "daskpki_server"
"""Argument with the kind of server that listens, if it is not the owner of the listener's handler."""


class PkiConnector(tcp.TLSConnector):
    """Dials under an Enforcement: the peer is verified before anything is sent to it."""

    comm_class = PkiTLS

    _failure: OSError | None = None
    """Cause of the previous attempt's failure: Dask uses one connector for all attempts of a dial, until a time-out."""

    async def connect(self, address: str, deserialize: bool = True, **arguments: Any) -> tcp.TLS:  # noqa: FBT001, FBT002
        """Dial; FatalCommClosedError, which Dask does not retry, for a peer that is not trusted.

        CommClosedError, which Dask does retry, if credential or CAs were replaced meanwhile: either side may no longer
        accept what the other used for this dial.
        """
        try:
            return await self._connect(address, deserialize, **arguments)
        except OSError as error:
            self._failure = error
            raise
        except asyncio.CancelledError as cut:
            raise cut from self._failure  # Dask shows the cause of the last attempt, which had no time to fail

    async def _connect(self, address: str, deserialize: bool, **arguments: Any) -> tcp.TLS:  # noqa: FBT001
        enforcement = arguments.pop(CONNECTION_ARGUMENT, None)
        if enforcement is None:
            return cast("tcp.TLS", await tcp.TLSConnector().connect(address, deserialize, **arguments))
        roles = arguments.pop(ARGUMENT, Destinations()).roles(address, enforcement.identity.role)
        refresh = enforcement.on_dial
        if refresh is not None:
            await refresh.begin()
        try:
            arguments["ssl_context"] = context = enforcement.client_context()
        except UnavailableError as error:
            raise CommClosedError(str(error)) from error
        try:
            comm = cast("PkiTLS", await super().connect(address, deserialize, **arguments))
        except FatalCommClosedError as error:
            await _finish(enforcement, context, address)
            if isinstance(failure := error.__cause__, ssl.SSLError):  # Dask's text is empty, or does not say where
                reason = f"the TLS handshake with tls://{address} failed: {failure.strerror}"
                raise FatalCommClosedError(reason) from failure
            raise
        try:
            await _finish(enforcement, context, address)
            peer = enforcement.admit(shown_certificate(comm.stream), roles)
            _verify_owner(enforcement, f"tls://{address}", peer.identity)
        except NotTrustedError as refusal:
            comm.abort()
            reason = f"refused to speak to tls://{address}: {refusal}"
            if isinstance(refusal, WrongRoleError) and enforcement.identity.role is Role.WORKER:
                raise NotTrustedError(reason) from refusal  # a worker retries any OSError for ever
            raise FatalCommClosedError(reason) from refusal
        except BaseException:  # Dask gave up waiting, or shall try again
            comm.abort()
            raise
        comm.dialled_under = context
        enforcement.connected(comm, peer)
        return comm


async def _finish(enforcement: Enforcement, context: ssl.SSLContext, address: str) -> None:
    """Wait for the lookup that began before the dial; CommClosedError if credential or CAs were replaced since."""
    if enforcement.on_dial is not None:
        await enforcement.on_dial.finish()
    if enforcement.client_context() is not context:
        raise CommClosedError(f"credential or trust changed while tls://{address} was dialled")


def _verify_owner(enforcement: Enforcement, address: str, found: Identity) -> None:
    """Raise NotTrustedError if another identity than `found` registered this address of a worker or nanny."""
    owner = enforcement.registrations.owner(Channel.WORKER_STREAM, address)
    if owner is not None and owner != found:
        raise NotTrustedError(f"{owner.uri} registered that address, and {found.uri} answers there")


class PkiListener(tcp.TLSListener):
    """Listens under an Enforcement: a peer is verified before anything is read from it."""

    comm_class = PkiTLS

    def __init__(self, address: str, handler: Any, *args: Any, enforcement: Enforcement, **arguments: Any) -> None:
        self.enforcement = enforcement
        owner = getattr(handler, "__self__", None)
        self.server = arguments.pop(SERVER_ARGUMENT, None) or server_kind(owner)
        self._pending = PendingConnections(enforcement.audit, close_known=enforcement.abort_crowd)
        self._owner = owner
        if self.server not in SERVES[enforcement.identity.role]:
            uri = enforcement.identity.uri
            raise NotTrustedError(f"a {self.server.value} cannot listen with the credential of {uri}")
        super().__init__(address, handler, *args, ssl_context=enforcement.server_context(), **arguments)
        enforcement.listeners.add(self)
        if isinstance(owner, ServerNode):
            node = cast("Any", owner)
            destinations = node.connection_args.get(ARGUMENT)
            if destinations is not None and self.server is not Server.SCHEDULER:
                destinations.scheduler = parse_address(node.scheduler.address)[1]
            install_guard(owner, self.server, enforcement)
            if enforcement.on_listening is not None:
                enforcement.on_listening(owner)

    async def start(self) -> None:
        """Listen."""
        try:
            await super().start()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                where = f"tls://{self.ip}:{self.port}" if self.ip else f"port {self.port}"
                raise port_is_taken(where, self.port) from None
            raise
        assert self.tcp_server is not None
        self._pending.open(self.tcp_server)

    def renew(self, context: ssl.SSLContext) -> None:
        """Accept new connections under another context; open ones keep theirs."""
        self.server_args["ssl_options"] = context
        if self.tcp_server is not None:
            self.tcp_server.ssl_options = context

    async def _prepare_stream(self, stream: SSLIOStream, address: str) -> SSLIOStream | None:
        return await self._pending.handshake(stream, address)

    async def on_connection(self, comm: Comm, handshake_overrides: dict[str, Any] | None = None) -> None:
        """Verify the peer; Dask calls this once TLS is up, and reads nothing before."""
        assert isinstance(comm, PkiTLS)
        enforcement = self.enforcement
        try:
            peer = enforcement.admit(shown_certificate(comm.stream), ACCEPTS[self.server])
            verify_own_worker(self.server, enforcement.identity, peer.identity)
        except NotTrustedError as refusal:
            enforcement.audit.refuse(TURNED_AWAY, refusal, address=comm.peer_address)
            await turn_away(comm, f"{enforcement.identity.uri} refused the connection: {refusal.with_hint}")
            raise CommClosedError(str(refusal)) from refusal
        comm.owner = self._owner
        enforcement.connected(comm, peer, self.server)
        await super().on_connection(comm, handshake_overrides)


async def turn_away(comm: PkiTLS, reason: str) -> None:
    """Write one frame with the reason, and close; drop what the peer has sent, unread."""
    assert comm.stream is not None
    try:
        await tcp.TLS.write(comm, turned_away(reason))
        # Closing with unread bytes would send RST, which may overtake the frame.
        await asyncio.wait_for(comm.stream.read_bytes(1 << 16, partial=True), timeout=1)
    except (TimeoutError, OSError, StreamClosedError):
        pass
    await comm.close()


class PkiBackend(tcp.TLSBackend):
    """The registry's entry for `tls`."""

    _connector_class = PkiConnector
    _listener_class: type[tcp.TLSListener] = PkiListener

    adopt: Callable[[Any], Enforcement | None] | None = None
    """Called for a server that begins to listen without an Enforcement: `preload` gives it the node's."""

    def get_listener(self, loc: str, handle_comm: Any, deserialize: bool, **arguments: Any) -> tcp.TLSListener:  # noqa: FBT001
        """Return our listener if the arguments have an Enforcement or the server is adopted, else Dask's own."""
        enforcement = arguments.pop(CONNECTION_ARGUMENT, None)
        if enforcement is None and self.adopt is not None:
            enforcement = self.adopt(getattr(handle_comm, "__self__", None))
        if enforcement is None:
            return tcp.TLSListener(loc, handle_comm, deserialize, **arguments)
        arguments.pop("ssl_context", None)  # an adopted server has Dask's own
        return PkiListener(loc, handle_comm, deserialize, enforcement=enforcement, **arguments)


def install() -> PkiBackend:
    """Make ours the backend of `tls` in this process, and return it; idempotent."""
    backend = registry.backends.get("tls")
    if not isinstance(backend, PkiBackend):
        backend = registry.backends["tls"] = PkiBackend()
    return backend
