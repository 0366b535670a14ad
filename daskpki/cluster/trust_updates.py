"""Receives, verifies and forwards newer trust documents over live connections.

The operation is ours and is taken out before Dask sees it. The signature is the authority: a document counts if the
rules of `daskpki.pki.trust` accept it after the one in force, whichever peer delivers it. The tables say who may
deliver one at all: schedulers to their workers and clients, clients to a scheduler (`daskpki revoke`), workers to their
nanny. `TrustManager` holds the document and the credential in force, and replaces them while the process runs.
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
from daskpki.cluster.peer import Peer
from daskpki.cluster.policy import Server
from daskpki.cluster.reasons import Reason
from daskpki.cluster.refusal import detached
from daskpki.cluster.tls import KeyPair
from daskpki.cluster.trust_state import trust_of
from daskpki.confidential import Confidential
from daskpki.errors import DaskpkiError, NotTrustedError, UnavailableError
from daskpki.identity import Role
from daskpki.pki.certificates import lifetime, load_certificate
from daskpki.pki.pem import parse_certificates
from daskpki.pki.profile import Lifetime
from daskpki.pki.trust_document import SignedTrustDocument, TrustDocument, parse_trust


class ForgedError(NotTrustedError):
    """A trust document with a false signature in the name of a CA that this process holds."""


class TooManyRefusedError(UnavailableError):
    """The sender's documents of the last minute did not hold, so that this one was not even looked at.

    It is to be answered in `wait` seconds.
    """

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


class TrustMessage(NamedTuple):
    """A trust document as a source found it, nothing of it verified."""

    signed: Confidential
    place: str = "the source"
    """Where it was found, for reports."""


TRUST: Final = "daskpki-trust"
EPOCH: Final = "daskpki"
"""The field of the greeting that says that daskpki is at this end, and at which epoch."""
MODE: Final = "daskpki-worker-clients"
"""The field in which a scheduler says what a worker's certificate may do as a client."""

CODE: Final = "daskpki-scheduler-code"
"""The field in which it says whether it is sealed or stock."""


def message(signed: Confidential) -> dict[str, Any]:
    """A document on its way."""
    return {"op": TRUST, "signed": signed.reveal()}


def is_news(received: Any) -> bool:
    """Whether a message is one of ours."""
    return isinstance(received, dict) and received.get("op") == TRUST


def consume_trust(enforcement: Enforcement, received: Mapping[str, Any], sender: Peer) -> DaskpkiError | None:
    """Go by the document that `sender` brought, if it is newer and holds; else the reason, which is recorded."""
    try:
        _offer(enforcement, received, sender)
    except DaskpkiError as error:
        enforcement.audit.record(
            REFUSED,
            peer=sender.identity.uri,
            detail=f"a trust document: {error}",
            reason=Reason.TRUST_DOCUMENT,
            again=isinstance(error, TooManyRefusedError),  # one line for each that was judged, and none for a flood
        )
        return detached(error)
    return None


def reply_trust(enforcement: Enforcement, error: DaskpkiError | None) -> Any:
    """The reply to one that came as a call: the epoch that holds now, or why it was not accepted."""
    if error is not None:
        return error_message(PermissionError(str(error)), status="uncaught-error")
    return {"status": "OK", "epoch": enforcement.trust.epoch}


def cut_off(enforcement: Enforcement, sender: Peer, error: DaskpkiError | None) -> None:
    """Cut every connection of a peer that brought a forged document; a worker never cuts its scheduler for it.

    A worker without its scheduler ends, so that one forged document on a scheduler would end all of them.
    """
    ours, theirs = enforcement.identity.role, sender.identity.role
    if isinstance(error, ForgedError) and (ours, theirs) != (Role.WORKER, Role.SCHEDULER):
        enforcement.abort_peer(sender, "it brought a forged trust document")


def _offer(enforcement: Enforcement, received: Mapping[str, Any], sender: Peer) -> None:
    if enforcement.keeper is None:
        raise UnavailableError("this process takes no trust documents")
    signed = received.get("signed")
    if not isinstance(signed, bytes):
        raise DaskpkiError("a message about a trust document, without it")
    enforcement.keeper.offer(Confidential(signed), sender=sender)


async def send_trust(address: str, arguments: Mapping[str, Any], signed: Confidential) -> int:
    """Take a trust document to the server at `address`, with the connection arguments of a Security.

    Returns the epoch that holds there now; PermissionError when it was not accepted, OSError when nobody answers, or
    somebody to whom daskpki would not speak.
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
"""Seconds between two answers beyond a certificate's limit: more connections do not fill the loop."""
_SENDERS: Final = 1000
"""Certificates whose refused documents are counted at a time; beyond that, the one that was quiet longest goes."""


class Refusals:
    """Refused trust documents of the last minute, by the certificate that brought them.

    Each costs the verification of a signature, so a certificate has a number of them. Counted together, the documents
    of one peer would keep out those of all others, and one that revokes that peer among them.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._moments: dict[int, deque[float]] = {}
        self._turns: dict[int, float] = {}
        """When the last one beyond the limit has its answer, which the next one waits for on whatever connection."""

    def check(self, sender: Peer) -> None:
        """Raise TooManyRefusedError when that peer has to wait."""
        moments, now = self._moments.get(sender.serial, deque()), self._clock()
        if len(moments) < _REFUSALS_PER_MINUTE or now - moments[0] >= _MINUTE:
            return
        turn = self._turns[sender.serial] = max(self._turns.get(sender.serial, now), now) + _TURN
        raise TooManyRefusedError(
            f"{_REFUSALS_PER_MINUTE} trust documents that {sender.identity.uri} brought within a minute did not "
            "hold; wait one",
            turn - now,
        )

    def note(self, sender: Peer) -> None:
        """Count one of that peer's."""
        moments = self._moments.pop(sender.serial, deque(maxlen=_REFUSALS_PER_MINUTE))
        moments.append(self._clock())
        self._moments[sender.serial] = moments  # now the last in order
        if len(self._moments) > _SENDERS:
            quiet = next(iter(self._moments))
            del self._moments[quiet]
            self._turns.pop(quiet, None)


class TrustManager:
    """Of one Enforcement. Newer documents are accepted from anywhere, by the rules of `daskpki.pki.trust`."""

    def __init__(
        self,
        enforcement: Enforcement,
        document: TrustDocument,
        signed: Confidential | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.document = document
        self.on_news: list[Callable[[TrustManager], None]] = []
        self.on_credential: list[Callable[[KeyPair], None]] = []
        self._enforcement = enforcement
        self._signed = signed
        self._refusals = Refusals(clock)
        self._lock = threading.Lock()

    @property
    def epoch(self) -> int:
        """Of the document that holds."""
        return self.document.epoch

    @property
    def signed(self) -> Confidential | None:
        """The document that holds as it was signed; None when only its content is known here."""
        return self._signed

    @property
    def lifetime(self) -> Lifetime:
        """When the leaf in use is valid."""
        return lifetime(load_certificate(self._leaf))

    @property
    def awaits_credential(self) -> bool:
        """Whether a newer one is to be expected: the leaf in use is revoked, or not of the CA that issues now."""
        leaf, active = load_certificate(self._leaf), load_certificate(self.document.active.issuing)
        return leaf.issuer != active.subject or leaf.serial_number in self._enforcement.trust.revoked

    @property
    def _leaf(self) -> bytes:
        return parse_certificates(self._enforcement.pair.certificates.encode(), "our certificate")[0]

    def message(self) -> dict[str, Any] | None:
        """The document that holds, to be passed on; None when it is not at hand as it was signed."""
        return None if self._signed is None else message(self._signed)

    def offer(self, signed: Confidential, *, sender: Peer | None = None) -> bool:
        """Whether `signed` is newer than what holds, and holds from now on.

        NotTrustedError or CorruptError when it does not hold, and nothing has changed: ForgedError when it claims to be
        of a CA that holds here. TooManyRefusedError for a `sender` with too many such offers; what this process found
        where it looks itself has none, and is always judged.
        """
        if sender is not None:
            self._refusals.check(sender)
        try:
            with self._lock:
                parsed = parse_trust(signed)
                if parsed.document.epoch <= self.epoch:
                    return False
                self._go_by(parsed, signed)
        except NotTrustedError:
            if sender is not None:
                self._refusals.note(sender)
            raise
        self._tell_everyone()
        return True

    def _verified(self, parsed: SignedTrustDocument) -> TrustDocument:
        from daskpki.pki.trust import is_forged, verify_trust

        try:
            return verify_trust(parsed, now=datetime.now(UTC), cluster=self.document.cluster, previous=self.document)
        except NotTrustedError as error:
            if is_forged(parsed, self.document):
                raise ForgedError(str(error), hint=error.hint) from error
            raise

    def _go_by(self, parsed: SignedTrustDocument, signed: Confidential) -> None:
        document = self._verified(parsed)
        self._enforcement.replace(trust=trust_of(document))
        if self.document.active.certificate not in document.roots:
            # It did not retire first: an emergency, or a whole rollover that was missed, which looks the same.
            self._enforcement.abort_foreign()
        self.document, self._signed = document, signed
        self._enforcement.audit.record(RELOADED, detail=f"trust document {document.epoch} holds")

    def _tell_everyone(self) -> None:
        message = self.message()
        for comm in self._enforcement.connections():
            if message is not None and comm.conversation.server is Server.SCHEDULER:
                comm.tell_soon(message)
        for listener in self.on_news:
            listener(self)

    def renew(self, pair: KeyPair) -> None:
        """Go by a newer credential of the same identity; NotTrustedError when it does not hold: nothing has changed."""
        from daskpki.pki.verify import verify_leaf

        identity = self._enforcement.identity
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
        self._enforcement.replace(pair=pair)
        self._enforcement.audit.record(RELOADED, peer=identity.uri, detail="a newer credential is in use")
        for listener in self.on_credential:
            listener(pair)
