"""Decides which roles may meet on a connection, and whether a peer may call an operation. Pure, default deny.

`ACCEPTS`, `SERVES` and `Destinations` decide who may be at the two ends. For a message these rules apply in order: the
operations that nobody may call; the table in `operations` for the peer's role (plus, for a worker's certificate on the
scheduler, those that `WorkerClients` adds); the names, kinds and values of its arguments. In mode `allow`, in which a
worker may run code on the scheduler anyway, arguments are checked for ownership only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from daskpki.cluster import operations as ops
from daskpki.cluster.refusal import PeerRefusedError, Reason
from daskpki.cluster.values import arguments, misfit
from daskpki.credentials.contexts import is_canonical
from daskpki.errors import NotTrustedError
from daskpki.identity import Identity, Role
from daskpki.quoting import shown


class Server(StrEnum):
    """The three kinds of Dask server that listen."""

    SCHEDULER = "Scheduler"
    WORKER = "Worker"
    NANNY = "Nanny"


def server_kind(server: Any) -> Server:
    """Return the kind of a Dask server, by the name of its class or of a base class."""
    owner = type(server)
    for ancestor in owner.__mro__:
        if ancestor.__module__.startswith("distributed.") and ancestor.__name__ in set(Server):
            return Server(ancestor.__name__)
    raise NotTrustedError(f"daskpki has no rules for the server {owner.__qualname__}")


SERVES: Final[Mapping[Role, frozenset[Server]]] = {
    Role.SCHEDULER: frozenset({Server.SCHEDULER}),
    Role.WORKER: frozenset({Server.WORKER, Server.NANNY}),
    Role.CLIENT: frozenset(),
}
"""Servers that a role may run, and so the operations that may be sent to a peer of that role."""

ACCEPTS: Final[Mapping[Server, frozenset[Role]]] = {
    Server.SCHEDULER: frozenset({Role.CLIENT, Role.WORKER}),
    Server.WORKER: frozenset({Role.SCHEDULER, Role.WORKER, Role.CLIENT}),  # clients: direct scatter, gather and actors
    Server.NANNY: frozenset({Role.SCHEDULER, Role.WORKER}),
}
"""Roles whose connections a server accepts; a nanny accepts its own worker only (`verify_own_worker`)."""

DIALS: Final[Mapping[Role, frozenset[Role]]] = {
    Role.SCHEDULER: frozenset({Role.WORKER}),
    Role.WORKER: frozenset({Role.SCHEDULER, Role.WORKER}),
    Role.CLIENT: frozenset({Role.SCHEDULER, Role.WORKER}),
}
"""Roles that may be at the other end when a role dials."""


def verify_own_worker(server: Server, ours: Identity, peer: Identity) -> None:
    """Raise NotTrustedError if another worker than a nanny's own connects to it.

    A nanny and its worker have the same credential. Another worker could make the nanny stop its worker for good.
    """
    if (server, peer.role) == (Server.NANNY, Role.WORKER) and peer != ours:
        foreign = f"{peer.uri} is not the worker of this nanny, which is {ours.uri}"
        raise PeerRefusedError(foreign, Reason.ROLE, peer.uri)


ARGUMENT: Final = "daskpki_destinations"
"""Key of the Destinations among the arguments that Dask passes to its comm backends."""


class Destinations:
    """The addresses that one Client, worker or nanny dials; at its scheduler's address, only a scheduler is accepted.

    Dask gives each of them separate connection arguments, which carry this object. A Client dials its scheduler before
    it can know another address, so the first address is the scheduler's, also when it reconnects. For a worker or
    nanny, `backend` sets the address when it begins to listen, since a worker that fails early dials its nanny first.
    """

    def __init__(self) -> None:
        self.scheduler: str | None = None

    def roles(self, location: str, ours: Role) -> frozenset[Role]:
        """Return the roles that may be at `location` (HOST:PORT, as it is dialled) when `ours` dials it."""
        if self.scheduler is None:
            self.scheduler = location
        allowed = DIALS[ours]
        return allowed & {Role.SCHEDULER} or allowed if location == self.scheduler else allowed


_ENVELOPE: Final = arguments("reply:flag close:flag serializers:texts?")
"""Arguments that Dask adds to those of any call."""
_CLIENTS_REGISTRATION: Final = "register-client"
_TOPICS: Final = frozenset({"subscribe-topic", "unsubscribe-topic"})
CLOSING: Final = frozenset({"close", "close-stream"})
"""Messages that end a conversation; they are not operations: the server only closes."""


class WorkerClients(StrEnum):
    """Rights of a worker's certificate as a client (DASKPKI_WORKER_CLIENTS)."""

    DENY = "deny"
    LIMITED = "limited"
    SUBMIT = "submit"
    """The meaning of `allow` on a sealed scheduler, on which graphs run no code: submit, and use own futures."""
    ALLOW = "allow"


def stricter(one: WorkerClients, other: WorkerClients) -> WorkerClients:
    """Return the mode that permits less."""
    return min(one, other, key=list(WorkerClients).index)


class Dashboard(StrEnum):
    """Audience of a server's pages: this machine's users, holders of a client's certificate, or nobody."""

    LOOPBACK = "loopback"
    MTLS = "mtls"
    OFF = "off"


class Channel(StrEnum):
    """The kinds of conversation, each with its tables."""

    RPC = "rpc"
    WORKER_STREAM = "worker stream"
    CLIENT_STREAM = "client stream"


STREAM_AFTER: Final[Mapping[str, Channel]] = {
    "register-worker": Channel.WORKER_STREAM,
    _CLIENTS_REGISTRATION: Channel.CLIENT_STREAM,
}
"""The operations after which a connection carries a stream."""


class OperationRefusedError(NotTrustedError):
    """The peer may not call this operation, or not with these arguments."""

    def __init__(self, operation: str, reason: str) -> None:
        super().__init__(f"{shown(operation)} is refused: {reason}")


class ContestedAddressError(OperationRefusedError):
    """Another identity registered the address that the peer claims; either may be the impostor."""

    def __init__(self, operation: str, reason: str, address: str) -> None:
        super().__init__(operation, reason)
        self.address = address


class Caller(NamedTuple):
    """A caller: role, the mode for worker certificates, and a test whether a name is free or the caller's own.

    `may_claim` takes addresses of workers (Channel.WORKER_STREAM) and names of clients (Channel.CLIENT_STREAM).
    """

    role: Role
    mode: WorkerClients
    may_claim: Callable[[Channel, str], bool]


def verify_call(server: Server, channel: Channel, message: Mapping[str, Any], caller: Caller) -> None:
    """Raise OperationRefusedError unless `caller` may send this message to `server` on that channel."""
    operation = message.get("op")
    if not isinstance(operation, str):
        raise OperationRefusedError(shown(operation), "an operation is a text")
    if operation in CLOSING:
        return
    if operation in ops.DENIED:
        raise OperationRefusedError(operation, ops.DENIED[operation])
    if operation not in allowed(server, channel, caller.role, caller.mode):
        raise OperationRefusedError(operation, _why(server, channel, operation, caller))
    if operation == _CLIENTS_REGISTRATION:
        _verify_client_name(message.get("client"), caller)
    if _has_rules_for_arguments(server, caller.role):
        _verify_worker_arguments(channel, operation, message, caller)


def allowed(server: Server, channel: Channel, role: Role, mode: WorkerClients) -> frozenset[str]:
    """Return the operations that a role may call on a server."""
    return _TABLES.get((server, channel, role, mode), frozenset())


def settled(servers: Iterable[Server], channel: Channel, role: Role, mode: WorkerClients) -> frozenset[str]:
    """Return the operations that `verify_call` allows on one of `servers` with any arguments.

    Computed once for a connection, they save most messages the full check.
    """
    tables = (_by_name_alone(server, channel, role, mode) for server in servers)
    return frozenset[str]().union(*tables).difference(ops.DENIED)


def _by_name_alone(server: Server, channel: Channel, role: Role, mode: WorkerClients) -> frozenset[str]:
    if not _has_rules_for_arguments(server, role):
        return allowed(server, channel, role, mode) - {_CLIENTS_REGISTRATION}
    if channel is Channel.RPC or mode is not WorkerClients.ALLOW:
        return frozenset()
    return allowed(server, channel, role, mode)


def _has_rules_for_arguments(server: Server, role: Role) -> bool:
    return (server, role) == (Server.SCHEDULER, Role.WORKER)


def _why(server: Server, channel: Channel, operation: str, caller: Caller) -> str:
    """Explain a refusal, for the log and the refused peer."""
    if operation in allowed(server, channel, caller.role, WorkerClients.ALLOW):  # a worker: modes add to no other role
        if caller.mode is WorkerClients.SUBMIT:
            return (
                f"this task tried to manage the cluster ({operation}) with the worker's certificate, which on a sealed "
                "scheduler may submit work and nothing else (DASKPKI_WORKER_CLIENTS=allow); use a client's"
            )
        what = "submit work" if operation == "update-graph" else "act as a client"
        return (
            f"this task tried to {what} ({operation}) with the worker's certificate, which "
            f"DASKPKI_WORKER_CLIENTS={caller.mode.value} does not allow; use compute(scheduler='threads') for nested "
            "work, or DASKPKI_WORKER_CLIENTS=allow, which lets a worker run code on the scheduler"
        )
    roles = [role.value for role in Role if operation in allowed(server, channel, role, caller.mode)]
    if roles:
        return f"on a {server.value} only {' and '.join(roles)} may call it, and the caller is a {caller.role.value}"
    return f"it is not in daskpki's table for a {server.value} ({channel.value}), so it is denied"


def _verify_worker_arguments(channel: Channel, operation: str, message: Mapping[str, Any], caller: Caller) -> None:
    if caller.mode is not WorkerClients.ALLOW:
        _verify_arguments(channel, operation, message)
    else:
        if channel is not Channel.RPC or operation in ops.SCHEDULER_FOR_CLIENTS:
            return
        _verify_names(operation, message, ops.SCHEDULER_FOR_WORKERS[operation])
    if operation in ops.OWN_ADDRESS:
        _verify_own_address(operation, message, caller)


def _verify_client_name(name: object, caller: Caller) -> None:
    """Verify that the name is free: a second client of a name would get the first one's results and end its tasks."""
    if not isinstance(name, str) or name.startswith(ops.SCHEDULERS_OWN_CLIENTS):
        raise OperationRefusedError(_CLIENTS_REGISTRATION, f"client={shown(name)} is not allowed as a client's name")
    if not caller.may_claim(Channel.CLIENT_STREAM, name):
        raise OperationRefusedError(_CLIENTS_REGISTRATION, f"client={shown(name)} is registered by another identity")


def _verify_arguments(channel: Channel, operation: str, message: Mapping[str, Any]) -> None:
    """Verify names and kinds of arguments, and the topics that a worker's client follows."""
    kinds = _KINDS[channel][operation]
    _verify_names(operation, message, kinds)
    if wrong := misfit({**kinds, **_ENVELOPE}, message):
        raise OperationRefusedError(operation, wrong)
    if operation in _TOPICS and message.get("topic") not in ops.WORKER_CLIENT_TOPICS:
        raise OperationRefusedError(operation, f"a worker's client does not follow {shown(message.get('topic'))}")


def _verify_names(operation: str, message: Mapping[str, Any], known: Mapping[str, str]) -> None:
    unknown = next((name for name in message if name not in known and name not in _ENVELOPE and name != "op"), None)
    if unknown is not None:
        raise OperationRefusedError(operation, f"a worker may not give the argument {shown(unknown)}")


def _verify_own_address(operation: str, message: Mapping[str, Any], caller: Caller) -> None:
    argument = ops.OWN_ADDRESS[operation]
    value = message.get(argument)
    if operation == "retire_workers":  # a list, and exactly one
        (value,) = value if isinstance(value, (list, tuple)) and len(value) == 1 else (None,)
    _verify_claim(operation, argument, value, caller)
    if operation == "register-worker":
        _verify_registration(message, caller)


def _verify_claim(operation: str, argument: str, address: object, caller: Caller) -> None:
    foreign = f"{argument}={shown(address)} is not the caller's own address"
    if not isinstance(address, str):
        raise OperationRefusedError(operation, foreign)
    if not is_canonical(address):
        reason = f"{argument}={shown(address)} is not of the form tls://IP:PORT (as --contact-address, for one)"
        raise OperationRefusedError(operation, reason)
    if caller.may_claim(Channel.WORKER_STREAM, address):
        return
    if operation in ops.CLAIMS_ADDRESS:
        raise ContestedAddressError(operation, foreign, address)
    raise OperationRefusedError(operation, foreign)


def _verify_registration(message: Mapping[str, Any], caller: Caller) -> None:
    """Verify name, nanny and server id, by any of which a worker could be taken for another.

    The scheduler looks an address up among its workers' names first (distributed.Scheduler.coerce_address), has a
    worker restarted by the nanny that it named, and takes two workers with one server id for the same.
    """
    operation, name, nanny = "register-worker", message.get("name"), message.get("nanny")
    if isinstance(name, str) and "://" in name and name != message.get("address"):
        raise OperationRefusedError(operation, f"name={shown(name)} is an address, but not the caller's own")
    if nanny is not None:
        _verify_claim(operation, "nanny", nanny, caller)
    server = message.get("server_id")
    if isinstance(server, str) and not caller.may_claim(Channel.WORKER_STREAM, server):
        raise OperationRefusedError(operation, f"server_id={shown(server)} is another worker's")


def verify_sendable(peer: Role, channel: Channel, message: Mapping[str, Any], sender: Caller) -> None:
    """Verify as the sender: OperationRefusedError if no server of the peer's role would accept the message."""
    operation = str(message.get("op"))
    refused = OperationRefusedError(operation, f"a {peer.value} serves nothing")
    for server in SERVES[peer]:
        try:
            return verify_call(server, channel, message, sender)
        except OperationRefusedError as refusal:
            refused = refusal
    others = [server.value for server in Server if operation in allowed(server, channel, sender.role, sender.mode)]
    if others:
        raise OperationRefusedError(operation, f"it belongs to a {others[0]}, and the peer is a {peer.value}")
    raise refused


_AS_CLIENT: Final[Mapping[WorkerClients, tuple[Collection[str], Collection[str]]]] = {
    WorkerClients.DENY: ((), ()),
    WorkerClients.LIMITED: (ops.SCHEDULER_FOR_WORKER_CLIENTS, ops.WORKER_CLIENT_STREAM),
    WorkerClients.SUBMIT: (
        {**ops.SCHEDULER_FOR_WORKER_CLIENTS, **ops.SCHEDULER_FOR_SUBMITTERS},
        {**ops.WORKER_CLIENT_STREAM, **ops.SUBMITTERS_STREAM},
    ),
    WorkerClients.ALLOW: (ops.SCHEDULER_FOR_CLIENTS, ops.CLIENT_STREAM),
}
"""Operations that a mode adds for a worker's certificate on the scheduler: calls, and a client's stream."""

_KINDS: Final[Mapping[Channel, Mapping[str, Mapping[str, str]]]] = {
    Channel.RPC: {
        **ops.SCHEDULER_FOR_WORKERS,
        **ops.SCHEDULER_FOR_WORKER_CLIENTS,
        **ops.SCHEDULER_FOR_SUBMITTERS,
    },
    Channel.WORKER_STREAM: ops.WORKER_STREAM,
    Channel.CLIENT_STREAM: {**ops.WORKER_CLIENT_STREAM, **ops.SUBMITTERS_STREAM},
}
"""Kinds of the arguments that workers give to a scheduler, except in mode `allow`."""

_IN_EVERY_MODE: Final[Mapping[tuple[Server, Channel, Role], Collection[str]]] = {
    (Server.SCHEDULER, Channel.RPC, Role.CLIENT): ops.SCHEDULER_FOR_CLIENTS,
    (Server.SCHEDULER, Channel.WORKER_STREAM, Role.WORKER): ops.WORKER_STREAM,
    (Server.SCHEDULER, Channel.CLIENT_STREAM, Role.CLIENT): ops.CLIENT_STREAM,
    (Server.WORKER, Channel.RPC, Role.WORKER): ops.WORKER_FOR_WORKERS,
    (Server.WORKER, Channel.RPC, Role.CLIENT): ops.WORKER_FOR_CLIENTS,
    (Server.WORKER, Channel.RPC, Role.SCHEDULER): ops.WORKER_FOR_SCHEDULER,
    (Server.WORKER, Channel.WORKER_STREAM, Role.SCHEDULER): ops.SCHEDULER_TO_WORKER_STREAM,
    (Server.NANNY, Channel.RPC, Role.WORKER): ops.NANNY_FOR_WORKERS,
    (Server.NANNY, Channel.RPC, Role.SCHEDULER): ops.NANNY_FOR_SCHEDULER,
}

_TABLES: Final[Mapping[tuple[Server, Channel, Role, WorkerClients], frozenset[str]]] = {
    (server, channel, role, mode): frozenset(table)
    for mode, (calls, stream) in _AS_CLIENT.items()
    for (server, channel, role), table in {
        **_IN_EVERY_MODE,
        (Server.SCHEDULER, Channel.RPC, Role.WORKER): {*ops.SCHEDULER_FOR_WORKERS, *calls},
        (Server.SCHEDULER, Channel.CLIENT_STREAM, Role.WORKER): stream,
    }.items()
}
