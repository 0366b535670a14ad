"""Receives, verifies and forwards newer trust documents over live connections.

Dask never sees this operation of ours. The signature is the authority: a document counts if the rules of
`daskpki.pki.trust` accept it after the one in force, whichever peer delivers it. The tables list who may deliver one at
all: schedulers to their workers and clients, clients to a scheduler (`daskpki revoke`), workers to their nanny.
`TrustManager` has the document and the credential in force, and replaces them while the process runs.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from distributed.comm.core import connect
from distributed.core import error_message, send_recv

from daskpki.cluster.audit import REFUSED, RELOADED
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.peer import Peer, trust_of
from daskpki.cluster.policy import Server
from daskpki.cluster.refusal import Reason, detached
from daskpki.cluster.tls import KeyPair
from daskpki.confidential import Confidential
from daskpki.errors import DaskpkiError, NotTrustedError, UnavailableError
from daskpki.identity import Role
from daskpki.pki.certificates import lifetime, load_certificate
from daskpki.pki.pem import parse_certificates
from daskpki.pki.profile import Lifetime
from daskpki.pki.trust_document import SignedTrustDocument, TrustDocument, parse_trust


class ForgedError(NotTrustedError):
    """A trust document with a false signature in the name of a CA that this process trusts."""


class TooManyRefusedError(UnavailableError):
    """Too many documents of the sender were refused in the last minute, so this one was not verified.

    Answer it in `wait` seconds.
    """

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


class TrustMessage(NamedTuple):
    """A trust document as a source found it, not verified."""

    signed: Confidential
    place: str = "the source"
    """Its origin, for reports."""


TRUST: Final = "daskpki-trust"
EPOCH: Final = "daskpki"
"""Field of the greeting with daskpki's epoch, which also shows that the peer runs daskpki."""
MODE: Final = "daskpki-worker-clients"
"""Field with a scheduler's mode for worker certificates as clients."""

CODE: Final = "daskpki-scheduler-code"
"""Field with a scheduler's code, sealed or stock."""


def message(signed: Confidential) -> dict[str, Any]:
    """Make the message that carries a document."""
    return {"op": TRUST, "signed": signed.reveal()}


def is_trust_message(received: Any) -> bool:
    """True if a message carries a trust document."""
    return isinstance(received, dict) and received.get("op") == TRUST


def consume_trust(enforcement: Enforcement, received: Mapping[str, Any], sender: Peer) -> DaskpkiError | None:
    """Put a document from `sender` in force if it is newer and valid; record an error, and return it.

    Every connection of a peer that sent a forged document is cut soon. But a worker never cuts its scheduler: without
    its scheduler a worker ends, so one forged document on a scheduler would end all workers.
    """
    signed, ours, theirs = received.get("signed"), enforcement.identity.role, sender.identity.role
    try:
        if enforcement.manager is None:
            raise UnavailableError("this process takes no trust documents")
        if not isinstance(signed, bytes):
            raise DaskpkiError("a message for a trust document has none")  # noqa: TRY301 - recorded as well
        enforcement.manager.accept_trust(Confidential(signed), sender=sender)
    except DaskpkiError as error:
        enforcement.audit.record(
            REFUSED,
            peer=sender.identity.uri,
            detail=f"a trust document: {error}",
            reason=Reason.TRUST_DOCUMENT,
            again=isinstance(error, TooManyRefusedError),  # log only documents that were verified, and no flood
        )
        if isinstance(error, ForgedError) and (ours, theirs) != (Role.WORKER, Role.SCHEDULER):
            enforcement.abort_peer(sender, "it sent a forged trust document")
        return detached(error)
    return None


def reply_trust(enforcement: Enforcement, error: DaskpkiError | None) -> Any:
    """Make the reply to a document that came as a call: the epoch in force now, or the reason of the refusal."""
    if error is not None:
        return error_message(PermissionError(str(error)), status="uncaught-error")
    return {"status": "OK", "epoch": enforcement.trust.epoch}


async def send_trust(address: str, arguments: Mapping[str, Any], signed: Confidential) -> int:
    """Send a trust document to the server at `address`, with the connection arguments of a Security.

    Returns the epoch in force there now; PermissionError if it was refused, OSError if nobody answers or the peer is
    not trusted.
    """
    comm = await connect(address, **arguments)
    try:
        reply = await send_recv(comm, **message(signed))
    finally:
        comm.abort()
    return int(reply["epoch"])


_REFUSALS_PER_MINUTE: Final = 10
_MINUTE: Final = 60.0
_TURN: Final = 0.1
"""Seconds between two answers beyond a certificate's limit, over all its connections."""
_SENDERS: Final = 1000
"""Certificates whose refused documents are counted, at most; the longest quiet one is dropped."""


class Refusals:
    """Counts refused trust documents of the last minute, by the certificate of the sender.

    Each costs the verification of a signature, so each certificate has a limit. A common limit would let one peer block
    the documents of all others, such as one that revokes it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._moments: dict[int, deque[float]] = {}
        self._turns: dict[int, float] = {}
        """By serial, the time of the answer to the last document beyond the limit; the next one waits for it."""

    def check(self, sender: Peer) -> None:
        """Raise TooManyRefusedError if that peer has to wait."""
        moments, now = self._moments.get(sender.serial, deque()), self._clock()
        if len(moments) < _REFUSALS_PER_MINUTE or now - moments[0] >= _MINUTE:
            return
        turn = self._turns[sender.serial] = max(self._turns.get(sender.serial, now), now) + _TURN
        raise TooManyRefusedError(
            f"{_REFUSALS_PER_MINUTE} trust documents that {sender.identity.uri} sent within a minute were not valid; "
            "wait a minute",
            turn - now,
        )

    def note(self, sender: Peer) -> None:
        """Count a refused document of that peer."""
        moments = self._moments.pop(sender.serial, deque(maxlen=_REFUSALS_PER_MINUTE))
        moments.append(self._clock())
        self._moments[sender.serial] = moments  # the order is that of the last refusals
        if len(self._moments) > _SENDERS:
            quiet = next(iter(self._moments))
            del self._moments[quiet]
            self._turns.pop(quiet, None)


class TrustManager:
    """Trust document and credential of one Enforcement; replaces them, by the rules of `daskpki.pki.trust`."""

    def __init__(
        self,
        enforcement: Enforcement,
        document: TrustDocument,
        signed: Confidential | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.document = document
        self.signed = signed
        """The document in force as it was signed; None if only its content is known here."""
        self.on_trust: list[Callable[[TrustManager], None]] = []
        self.on_credential: list[Callable[[KeyPair], None]] = []
        self.enforcement = enforcement
        self._refusals = Refusals(clock)
        self._lock = threading.Lock()

    @property
    def lifetime(self) -> Lifetime:
        """Lifetime of the leaf in use."""
        return lifetime(load_certificate(self._leaf))

    @property
    def awaits_credential(self) -> bool:
        """True if a newer credential is likely: the leaf in use is revoked, or not from the CA that issues now."""
        leaf, active = load_certificate(self._leaf), load_certificate(self.document.active.issuing)
        return leaf.issuer != active.subject or leaf.serial_number in self.enforcement.trust.revoked

    @property
    def _leaf(self) -> bytes:
        return parse_certificates(self.enforcement.pair.certificates.encode(), "our certificate")[0]

    def accept_trust(self, signed: Confidential, *, sender: Peer | None = None) -> bool:
        """Put `signed` in force if it is newer than the current document; return True if it is.

        Raises NotTrustedError or CorruptError if it is invalid, and then nothing has changed: ForgedError if it claims
        to be signed by a CA that is trusted here. TooManyRefusedError if the `sender` has sent too many invalid ones; a
        document that this process found itself has no sender, and is always verified. UnavailableError, and no change,
        if no descriptor is left; that does not count against the sender.
        """
        if sender is not None:
            self._refusals.check(sender)
        try:
            with self._lock:
                parsed = parse_trust(signed)
                if parsed.document.epoch <= self.document.epoch:
                    return False
                self._put_in_force(parsed, signed)
        except NotTrustedError:
            if sender is not None:
                self._refusals.note(sender)
            raise
        update = message(signed)
        for comm in self.enforcement.connections():
            if comm.conversation.server is Server.SCHEDULER:
                comm.send_soon(update)
        for listener in self.on_trust:
            listener(self)
        return True

    def _put_in_force(self, parsed: SignedTrustDocument, signed: Confidential) -> None:
        from daskpki.pki.trust import is_forged, verify_trust

        now, before = datetime.now(UTC), self.document
        try:
            document = verify_trust(parsed, now=now, cluster=before.cluster, previous=before)
        except NotTrustedError as error:
            if is_forged(parsed, before):
                raise ForgedError(str(error), hint=error.hint) from error
            raise
        # If the CA was not retired first, this is an emergency, or a missed rollover, which looks the same.
        emergency = before.active.certificate not in document.roots
        self.enforcement.replace(trust=trust_of(document), emergency=emergency)
        self.document, self.signed = document, signed
        self.enforcement.audit.record(RELOADED, detail=f"trust document {document.epoch} is in force")

    def renew(self, pair: KeyPair) -> None:
        """Use a newer credential of the same identity; NotTrustedError if it is invalid, and then nothing changes."""
        from daskpki.pki.verify import verify_leaf

        identity = self.enforcement.identity
        leaf, *chain = parse_certificates(pair.certificates.encode(), "the newer certificate")
        if lifetime(load_certificate(leaf)).not_before < self.lifetime.not_before:
            raise NotTrustedError(f"a credential of {identity.uri} was offered that is older than the one in use")
        verify_leaf(
            leaf,
            chain,
            self.document.roots,
            now=datetime.now(UTC),
            trust_domain=identity.trust_domain,
            role=identity.role,
            name=identity.name,
        )
        self.enforcement.replace(pair=pair)
        self.enforcement.audit.record(RELOADED, peer=identity.uri, detail="a newer credential is in use")
        for listener in self.on_credential:
            listener(pair)
