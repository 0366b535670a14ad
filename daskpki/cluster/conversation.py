"""Tracks one connection: what its peer has registered, and which rule applies to its next message. No I/O.

A connection begins with a greeting each way, continues with remote procedure calls, and becomes a stream once one side
has registered. A call is a dict and a stream message is a list. Insisting on that keeps Dask's server and this class in
the same phase: after a failed registration the server still expects calls, and raises an error on a list.

`Registrations` remembers worker addresses and client names by owner for the life of their connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from daskpki.cluster.peer import Peer
from daskpki.cluster.policy import (
    SERVES,
    STREAM_AFTER,
    Caller,
    Channel,
    OperationRefusedError,
    Server,
    WorkerClients,
    settled,
    stricter,
    verify_call,
    verify_sendable,
)
from daskpki.identity import Identity, Role
from daskpki.quoting import shown

_FIRE_AND_FORGET: Final = {"op": "client-desires-keys", "client": "fire-and-forget"}
"""What `distributed.fire_and_forget` sends: the scheduler itself wants these keys until they are done."""

_Claimants = WeakKeyDictionary[object, Identity]


class Registrations:
    """Addresses and ids of workers and nannies, and names of clients, for the life of the registering connection."""

    def __init__(self) -> None:
        self._claims: WeakValueDictionary[tuple[Channel, str], _Claimants] = WeakValueDictionary()
        self._made: WeakKeyDictionary[object, dict[tuple[Channel, str], _Claimants]] = WeakKeyDictionary()
        """Claims by connection; these references keep the entries of `_claims` alive."""

    def register(self, channel: Channel, name: str, identity: Identity, connection: object) -> None:
        """Register `name` for `identity` in streams of that kind as long as `connection` lives."""
        claimants = self._claims.setdefault((channel, name), _Claimants())
        claimants[connection] = identity
        self._made.setdefault(connection, {})[channel, name] = claimants

    def release(self, connection: object) -> None:
        """Remove all registrations of `connection`, which has ended."""
        for claimants in self._made.pop(connection, {}).values():
            claimants.pop(connection, None)

    def owner(self, channel: Channel, name: str) -> Identity | None:
        """Return the identity that registered `name`, or None."""
        claimants = self._claims.get((channel, name))
        return next(claimants.values(), None) if claimants else None

    def holders(self, channel: Channel, name: str) -> list[object]:
        """Return the connections on which `name` was registered."""
        return list(self._claims.get((channel, name), ()))


class Conversation:
    """One connection between us and `peer`; `server` is our kind if the peer dialled us, else None."""

    def __init__(
        self,
        ours: Identity,
        peer: Peer,
        mode: WorkerClients,
        *,
        server: Server | None = None,
        registrations: Registrations | None = None,
        sealed: bool = False,
    ) -> None:
        self.sealed = sealed
        self.ours = ours
        self.peer = peer
        self.server = server
        self.asked = ""
        self._mode = mode
        self._registrations = registrations or Registrations()
        self._registered: Mapping[str, Any] = {}
        self.starts_nanny = False
        """True between a nanny's registration and its message that it has started; nanny plugins wait for that."""
        self._enter(Channel.RPC)

    def _enter(self, channel: Channel) -> None:
        """Begin a phase, and compute which operations need no further check in it."""
        self.channel = channel
        self._inbound = settled((self.server or Server.WORKER,), channel, self.peer.identity.role, self._mode)
        self._outbound = settled(SERVES[self.peer.identity.role], channel, self.ours.role, self._mode)

    @property
    def no_pickle(self) -> bool:
        """True if the peer's messages are read without unpickling.

        These are workers' messages on a scheduler or a nanny, and everybody's on a sealed scheduler.
        """
        if self.sealed:
            return True
        if self.peer.identity.role is not Role.WORKER or self._mode is WorkerClients.ALLOW:
            return False
        return self.ours.role is Role.SCHEDULER or self.server is Server.NANNY

    @property
    def bounded(self) -> bool:
        """True if the peer's messages have no graphs or data: a worker's calls and reports, but not its replies."""
        graphs = self.may_submit and self.channel is Channel.CLIENT_STREAM
        return self.no_pickle and self.peer.identity.role is Role.WORKER and self.server is not None and not graphs

    @property
    def may_submit(self) -> bool:
        """True if the peer's graphs are accepted: a client's always, a worker's in the modes that allow it."""
        return self.peer.identity.role is Role.CLIENT or self._mode in {WorkerClients.ALLOW, WorkerClients.SUBMIT}

    @property
    def keeps_pickles(self) -> bool:
        """True if the peer's pickles are passed on unread: those of clients, and of a task that submits a graph."""
        return self.sealed and (self.peer.identity.role is Role.CLIENT or self.channel is Channel.CLIENT_STREAM)

    @property
    def guarded(self) -> bool:
        """True if the other side reads our messages without unpickling, so that we may send no pickle."""
        submits = self._mode is WorkerClients.SUBMIT and self.channel is Channel.CLIENT_STREAM
        return self._is_workers and self._mode is not WorkerClients.ALLOW and not submits

    @property
    def _is_workers(self) -> bool:
        return (self.ours.role, self.peer.identity.role) == (Role.WORKER, Role.SCHEDULER)

    @property
    def streaming(self) -> bool:
        """True once messages are lists."""
        return self.channel is not Channel.RPC

    def use_mode(self, announced: object) -> None:
        """As a worker, send by the mode that the scheduler announced in its greeting, if it is stricter than ours.

        The scheduler enforces its mode: a worker with another mode would be refused and lost.
        """
        if self._is_workers and isinstance(announced, str) and announced in set(WorkerClients):
            self._mode = stricter(self._mode, WorkerClients(announced))
            self._enter(self.channel)

    def check_inbound_call(self, message: Any) -> None:
        """Judge a call that the peer sent us as a server; OperationRefusedError."""
        if message == "OK" and self.server is Server.WORKER:  # the receipt that its Worker.get_data awaits
            return
        if not isinstance(message, dict):
            raise OperationRefusedError(type(message).__name__, "a call is a dict")
        if self.starts_nanny and "op" not in message:  # the second message of register_nanny, after which it may serve
            self.starts_nanny = False
            return
        assert self.server is not None
        if not _names_one_of(self._inbound, message):
            verify_call(self.server, Channel.RPC, message, self._caller)
        self._begin_stream(message)

    def check_inbound_stream(self, message: Any) -> None:
        """Judge one message of a stream that the peer sent us; OperationRefusedError."""
        if message == "OK":  # distributed.core.Server.handle_stream skips it
            return
        if not isinstance(message, dict):
            raise OperationRefusedError(type(message).__name__, "a message of a stream is a dict")
        if not _names_one_of(self._inbound, message):
            verify_call(self.server or Server.WORKER, self.channel, message, self._caller)
        for field, value in self._registered.items():
            # Dask merges a message over the stream's own fields, so a message could name another worker or client.
            forgotten = field == "client" and message.items() >= _FIRE_AND_FORGET.items()
            if message.get(field, value) != value and not forgotten:
                reason = f"{field}={shown(message[field])} is not the sender"
                raise OperationRefusedError(str(message.get("op")), reason)

    def check_outbound_call(self, message: Mapping[str, Any]) -> None:
        """Judge a call that we are about to send; OperationRefusedError."""
        self.check_outbound(message)
        self.asked = str(message.get("op"))
        if self.asked in STREAM_AFTER:
            self._enter(STREAM_AFTER[self.asked])

    def begin_local_stream(self) -> None:
        """Begin a client's stream on our side only; the peer does not know of it."""
        self._enter(Channel.CLIENT_STREAM)

    def check_outbound(self, message: Mapping[str, Any]) -> None:
        """Judge one message that we are about to send, by the phase of the connection; OperationRefusedError."""
        if not _names_one_of(self._outbound, message):
            verify_sendable(self.peer.identity.role, self.channel, message, self._ourselves)

    def may_send_all(self, messages: Iterable[Any]) -> bool:
        """True if `check_outbound` allows all of these by their operations alone."""
        return all(_names_one_of(self._outbound, message) for message in messages)

    def _begin_stream(self, message: Mapping[str, Any]) -> None:
        match message["op"]:
            case "register-worker":
                self._registered = {"worker": message["address"], "client": None}
                for name in ("address", "nanny", "server_id"):
                    self._claim(message.get(name))
            case "register_nanny":
                self.starts_nanny = True
                self._claim(message["address"])
            case "register-client":
                self._registered = {"client": message["client"], "worker": None}
                self._registrations.register(Channel.CLIENT_STREAM, message["client"], self.peer.identity, self)
        if message["op"] in STREAM_AFTER:
            self._enter(STREAM_AFTER[message["op"]])

    def _claim(self, name: object) -> None:
        if isinstance(name, str):
            self._registrations.register(Channel.WORKER_STREAM, name, self.peer.identity, self)

    @property
    def worker(self) -> str | None:
        """Address under which the peer registered as a worker."""
        return self._registered.get("worker")

    @property
    def _caller(self) -> Caller:  # made each time: a stored one would keep this conversation alive in the registrations
        def may_claim(channel: Channel, name: str) -> bool:
            return self._registrations.owner(channel, name) in {None, self.peer.identity}

        return Caller(self.peer.identity.role, self._mode, may_claim)

    @property
    def _ourselves(self) -> Caller:
        return Caller(self.ours.role, self._mode, lambda _channel, _name: True)  # the scheduler verifies our claims


def _names_one_of(operations: frozenset[str], message: Mapping[str, Any]) -> bool:
    operation = message.get("op")
    return isinstance(operation, str) and operation in operations
