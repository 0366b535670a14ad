"""The object that travels in Dask's connection arguments: one credential, the trust state, and the policy mode.

A `Security` of daskpki has one `Enforcement` for each role that it may act as. The comm backend asks it for TLS
contexts and for admission. Trust and key pair are replaced while connections live.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary, WeakSet

from daskpki.cluster.audit import CONNECTED, EXPIRED, REFUSED, REVOKED, Audit
from daskpki.cluster.conversation import Conversation, Registrations
from daskpki.cluster.peer import Peer, TrustState, parse_peer, verify_peer
from daskpki.cluster.policy import Dashboard, Server, WorkerClients
from daskpki.cluster.refusal import Reason
from daskpki.cluster.tls import KeyPair, client_context, server_context
from daskpki.confidential import Confidential
from daskpki.identity import Identity, Role
from daskpki.pki.trust_document import TrustDocument

_HOUR: Final = 3600
CONNECTION_ARGUMENT: Final = "daskpki"
"""Key of the Enforcement among the arguments that Dask passes to its comm backends."""


class EnforcedConnection(Protocol):
    """The part of a connection that the rules use; `comm.PkiTLS` implements it."""

    conversation: Conversation
    over: asyncio.Event

    @property
    def peer_address(self) -> str:
        """Dask's address of the peer."""

    def bind(self, conversation: Conversation, enforcement: Enforcement) -> None:
        """Put it under a conversation and an Enforcement."""

    def send_soon(self, message: Mapping[str, Any]) -> None:
        """Send a message in the stream."""

    def abort_soon(self) -> None:
        """Cut it."""

    def closed(self) -> bool:
        """True if it has ended."""


class Listener(Protocol):
    """The part of a listener that the rules use: Dask's comms and web pages each have one."""

    def renew(self, context: ssl.SSLContext) -> None:
        """Accept new connections under another TLS context."""


class Manager(Protocol):
    """The part of `trust_updates.TrustManager` that connections use."""

    document: TrustDocument
    signed: Confidential | None
    on_trust: list[Callable[[Any], None]]

    def accept_trust(self, signed: Confidential, *, sender: Peer | None = None) -> bool:
        """Put a trust document in force if it is newer and valid."""


class Refresh(Protocol):
    """The part of `refresh.DialRefresh` that a dial uses."""

    async def begin(self) -> None:
        """Begin a lookup, before the connection is made."""

    async def finish(self) -> None:
        """Wait for the lookup, once TLS is up."""


class Enforcement:
    """One credential in use, and the rules for its connections. `now` returns seconds since the epoch."""

    def __init__(
        self,
        identity: Identity,
        pair: KeyPair,
        trust: TrustState,
        *,
        mode: WorkerClients = WorkerClients.LIMITED,
        sealed: bool = False,
        minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        allow_stale: bool = False,
        dashboard: Dashboard = Dashboard.LOOPBACK,
        now: Callable[[], float] = time.time,
        audit: Audit | None = None,
    ) -> None:
        self.identity = identity
        self.trust = trust
        self.mode = WorkerClients.SUBMIT if sealed and mode is WorkerClients.ALLOW else mode
        self.sealed = sealed
        """True for a sealed scheduler, which unpickles nothing from anyone."""
        self.measure_seal: Callable[[], Mapping[str, float]] | None = None
        """Returns the counters of a sealed scheduler, for the page."""
        self.audit = audit or Audit()
        self.dashboard = dashboard
        self.now = now
        self.registrations = Registrations()
        """Registered addresses and client names on our listeners."""
        self._live: WeakKeyDictionary[EnforcedConnection, float] = WeakKeyDictionary()
        self._met: dict[int, float] = {}
        self.manager: Manager | None = None
        self.on_dial: Refresh | None = None
        """Looks for newer material before a process without a poller dials."""
        self.on_listening: Callable[[Any], None] | None = None
        """Called with each server that begins to listen under this Enforcement."""
        self.listeners: WeakSet[Listener] = WeakSet()
        """Listeners under this Enforcement; each of them gets every new TLS context."""
        self.pair = pair
        self._minimum = minimum
        self._allow_stale = allow_stale
        self._tolerated = trust.issuers
        """Issuers of live connections: the CAs that were trusted at any time since the last emergency."""
        self._outlived: WeakSet[EnforcedConnection] = WeakSet()
        self._replacing = threading.Lock()  # a push of a trust document and a poll's key pair may come at once
        self._lock = threading.Lock()  # the event loop adds connections while a thread may list them
        self._contexts: dict[bool, ssl.SSLContext] = {}

    def __repr__(self) -> str:
        return f"<Enforcement of {self.identity.uri}>"

    def server_context(self) -> ssl.SSLContext:
        """Return the TLS context of our listeners."""
        if True not in self._contexts:
            self._contexts[True] = server_context(self.pair, self.trust.anchors, self._minimum)
        return self._contexts[True]

    def client_context(self) -> ssl.SSLContext:
        """Return the TLS context for dialling."""
        if False not in self._contexts:
            self._contexts[False] = client_context(self.pair, self.trust.anchors, self._minimum)
        return self._contexts[False]

    @property
    def stale(self) -> bool:
        """True if the revocation list has expired; new peers are then refused, unless `allow_stale` was given."""
        return self.trust.next_update is not None and self.now() > self.trust.next_update

    def admit(self, certificate: bytes | None, roles: frozenset[Role]) -> Peer:
        """Verify the peer of this certificate (DER); NotTrustedError."""
        peer = parse_peer(certificate)
        verify_peer(peer, self.trust, roles, now=self.now(), allow_stale=self._allow_stale)
        return peer

    def connected(self, comm: EnforcedConnection, peer: Peer, server: Server | None = None) -> None:
        """Put an admitted connection under its rules, and list it as long as it lives.

        `server` is our kind if the peer dialled us.
        """
        conversation = Conversation(
            self.identity, peer, self.mode, server=server, registrations=self.registrations, sealed=self.sealed
        )
        comm.bind(conversation, self)
        with self._lock:
            self._live[comm] = self.now()
        self.record_admitted(peer, comm.peer_address)
        # A thread may have replaced the trust state after `admit`, and cut connections before this one was listed.
        dropped = peer.issuer not in (self.trust.issuers if server else self._tolerated)
        if dropped or peer.serial in self.trust.revoked:
            self.abort_those((comm,), REVOKED, "its certificate was revoked, or its CA dropped, as it connected", None)

    def record_admitted(self, peer: Peer, address: str, detail: str = "") -> None:
        """Record an admitted connection; the log shows the first of each certificate in an hour."""
        again = self.now() < self._met.get(peer.serial, 0) + _HOUR
        if not again:
            self._met[peer.serial] = self.now()
        self.audit.record(CONNECTED, peer=peer.identity.uri, address=address, detail=detail, again=again)

    def connections(self) -> dict[EnforcedConnection, float]:
        """Return the live connections, each with its start time (seconds since the epoch)."""
        with self._lock:
            return dict(self._live.items())

    def replace(self, *, trust: TrustState | None = None, pair: KeyPair | None = None, emergency: bool = False) -> None:
        """Use another trust state or key pair; NotTrustedError, and no change, if they do not match.

        UnavailableError, and no change either, if no descriptor is left to load the key.

        New connections use it. Live ones stay, unless the peer's certificate is now revoked, or in an `emergency` comes
        from a CA that is no longer trusted.
        """
        with self._replacing:
            trust, pair = trust or self.trust, pair or self.pair
            # A new context for listeners in any case: it understands no earlier session.
            contexts = {True: server_context(pair, trust.anchors, self._minimum)}
            if trust.anchors != self.trust.anchors or pair is not self.pair:
                contexts[False] = client_context(pair, trust.anchors, self._minimum)
            former = frozenset() if emergency else self._tolerated
            self._tolerated = (former | trust.issuers) - trust.cut_off
            self.trust, self.pair, self._contexts = trust, pair, self._contexts | contexts
            for listener in list(self.listeners):
                listener.renew(contexts[True])
        self._abort(lambda peer: peer.serial in self.trust.revoked, REVOKED, "the certificate is revoked")
        unlisted = "its CA was dropped with too many revoked certificates to list"
        self._abort(lambda peer: peer.issuer in self.trust.cut_off, REVOKED, unlisted)
        self._abort(lambda peer: peer.issuer not in self._tolerated, REVOKED, "its CA is not trusted any more")

    def abort_expired(self, grace: float) -> None:
        """Cut live connections whose peer's certificate expired more than `grace` seconds ago; warn once before."""
        now = self.now()
        self._abort(lambda peer: peer.not_after + grace < now, EXPIRED, "the certificate expired; no newer one came")
        for comm in self.connections():
            peer = comm.conversation.peer
            if peer.not_after < now and comm not in self._outlived:
                self._outlived.add(comm)
                left = f"the certificate has expired; the connection is cut off in {peer.not_after + grace - now:.0f} s"
                self.audit.record(EXPIRED, peer=peer.identity.uri, address=comm.peer_address, detail=left)

    def abort_peer(self, culprit: Peer, reason: str) -> None:
        """Cut every live connection of that peer's certificate."""
        self._abort(lambda peer: peer.serial == culprit.serial, REFUSED, reason, Reason.TRUST_DOCUMENT)

    def abort_crowd(self, most: int, why: str) -> None:
        """To free descriptors, cut up to `most` connections of the certificate that has the most, oldest first.

        Streams of registered workers and clients stay, since these would end with them; so do those that we dialled.
        """
        crowds: dict[int, list[tuple[float, EnforcedConnection]]] = {}
        for comm, begun in self.connections().items():
            if comm.conversation.server and not comm.conversation.streaming:
                crowds.setdefault(comm.conversation.peer.serial, []).append((begun, comm))
        crowd = max(crowds.values(), key=len, default=[])
        oldest = {comm for _, comm in sorted(crowd, key=itemgetter(0))[:most]}
        detail = f"{why}, and this certificate has {len(crowd)} connections"
        self.abort_those(oldest, REFUSED, detail, Reason.TLS)

    def _abort(self, condition: Callable[[Peer], bool], kind: str, detail: str, reason: Reason | None = None) -> None:
        culprits = (comm for comm in self.connections() if condition(comm.conversation.peer))
        self.abort_those(culprits, kind, detail, reason)

    def abort_those(self, comms: Iterable[EnforcedConnection], kind: str, detail: str, reason: Reason | None) -> None:
        """Cut these connections, and record each."""
        for comm in comms:
            with self._lock:
                self._live.pop(comm, None)
            peer, address = comm.conversation.peer.identity.uri, comm.peer_address
            self.audit.record(kind, peer=peer, address=address, detail=detail, reason=reason)
            comm.abort_soon()
