"""Tests, before a process serves, that the rules work with the installed distributed; its version decides nothing.

A made-up scheduler and worker talk over loopback under a throw-away CA. A pickle, bytes that a handler would unpickle,
and an unknown operation must be refused, and an allowed call must arrive. Every operation that a server of distributed
registers must be in the tables.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding
from distributed.comm import tcp
from distributed.comm.core import connect, listen
from distributed.protocol.serialize import ToPickle

from daskpki.cluster import operations as ops
from daskpki.cluster.audit import Audit
from daskpki.cluster.backend import SERVER_ARGUMENT, install
from daskpki.cluster.enforcement import CONNECTION_ARGUMENT, Enforcement
from daskpki.cluster.peer import TrustState, ca_name
from daskpki.cluster.policy import Channel, Server, WorkerClients, allowed, server_kind
from daskpki.cluster.tls import key_pair
from daskpki.errors import NotTrustedError
from daskpki.identity import Identity, Role, default_trust_domain
from daskpki.pki.credential import Credential
from daskpki.pki.issuer import create_root, issue_leaf
from daskpki.pki.keys import KeyType, generate_key, serialize_key
from daskpki.pki.profile import LeafRequest, make_policy

_CLUSTER = "rehearsal"


def _enforcements(*roles: Role) -> Iterator[Enforcement]:
    """Make Enforcements that trust each other, with fresh keys."""
    now = datetime.now(UTC)
    policy = make_policy(default_trust_domain(_CLUSTER))
    issuer = create_root(_CLUSTER, policy, generate_key(KeyType.P256), generation=1, serial=1, now=now)
    root = issuer.root.public_bytes(Encoding.DER)
    trust = TrustState(_CLUSTER, policy.trust_domain, 1, (root,), frozenset({ca_name(root)}))
    for role in roles:
        identity = Identity(policy.trust_domain, role, role.value)
        key = generate_key(KeyType.P256)
        leaf = issue_leaf(issuer, LeafRequest(identity), key.public_key(), serial=2, now=now, policy=policy)
        credential = Credential(_CLUSTER, identity, serialize_key(key), leaf.public_bytes(Encoding.DER), ())
        yield Enforcement(identity, key_pair(credential), trust, mode=WorkerClients.LIMITED, audit=Audit(log=None))


TESTED: Final = ("2026.1.0", "2026.6.0", "2026.7.0", "2026.8.0")
"""The versions of distributed that the tests run against (tests/cluster/test_versions.py). A newer one may work."""

_DEADLINE: Final = 20.0
"""Seconds for a test that takes hundredths of one, on a machine that starts many processes at once."""


class _Canary:
    """Sets a flag if it is unpickled in this process."""

    sang = threading.Event()

    def __reduce__(self) -> Any:
        return _sing, ()


def _sing() -> None:
    _Canary.sang.set()


def run() -> None:
    """Raise NotTrustedError if the reading without pickle or the tables do not work with this distributed.

    Blocks for a few hundredths of a second; may be called inside a running event loop.
    """
    with ThreadPoolExecutor(1, "daskpki-self-test") as pool:
        error = pool.submit(asyncio.run, asyncio.wait_for(_rehearse(), _DEADLINE)).exception()
    if error is not None:
        raise NotTrustedError(
            f"daskpki's rules do not work with distributed {importlib.metadata.version('distributed')}: {error}",
            hint=tested_with(),
        ) from error


def tested_with() -> str:
    """List the tested versions for the error that stops a start."""
    *others, newest = TESTED
    return f"tested with distributed {', '.join(others)} and {newest}"


async def _rehearse() -> None:
    install()
    scheduler, worker = _enforcements(Role.SCHEDULER, Role.WORKER)
    heard: list[Any] = []

    async def serve(comm: Any) -> None:
        while not comm.closed():
            try:
                message = await comm.read()
            except OSError:
                return
            heard.append(message.get("op"))
            await comm.write("served")

    arguments = {CONNECTION_ARGUMENT: scheduler, SERVER_ARGUMENT: Server.SCHEDULER}
    async with listen("tls://127.0.0.1:0", serve, deserialize=False, **arguments) as listener:
        comm = await connect(listener.contact_address, **{CONNECTION_ARGUMENT: worker})
        answers: list[Any] = []
        for message in (*_REFUSED, {"op": "identity"}):
            await tcp.TLS.write(comm, message)  # as a worker that ignores the rules would
            answers.append(await comm.read())
        await comm.close()
    served = answers.pop()
    if _Canary.sang.is_set():
        raise NotTrustedError("a pickle from a worker was loaded")
    for message, answer in zip(_REFUSED, answers, strict=True):
        if not isinstance(answer, dict) or answer.get("status") != "uncaught-error":
            raise NotTrustedError(f"{message['op']!r} was not refused, but answered with {answer!r}")
    if served != "served" or heard != ["identity"]:
        raise NotTrustedError(f"an allowed operation was not let through: {heard!r}, {served!r}")


_REFUSED: Final[tuple[dict[str, Any], ...]] = (
    {"op": "identity", "n_workers": ToPickle(_Canary())},
    {"op": "retire_workers", "key": b"bytes that the handler unpickles"},
    {"op": "no-such-operation"},
)


def unknown_operations(server: Any) -> set[str]:
    """Find operations that distributed registered on this live server and that are not in the tables.

    Handlers of others (a plugin, a preload) may exist; they are denied like anything that is not in a table.
    """
    kind = server_kind(server)
    known = _known(kind, Channel.RPC) | set(ops.DENIED)
    streamed = _known(kind, Channel.WORKER_STREAM) | _known(kind, Channel.CLIENT_STREAM)
    found = {name for name, handler in server.handlers.items() if _is_dasks(handler)} - known
    return found | {name for name, handler in server.stream_handlers.items() if _is_dasks(handler)} - streamed


def _known(server: Server, channel: Channel) -> set[str]:
    return {name for role in Role for name in allowed(server, channel, role, WorkerClients.ALLOW)}


def _is_dasks(handler: Any) -> bool:
    return str(getattr(handler, "__module__", "distributed")).partition(".")[0] == "distributed"
