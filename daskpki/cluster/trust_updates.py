"""Trust documents that travel over live connections: an operation of our own, taken out before Dask sees it.

The signature is the authority, so it does not matter who brings a document, only whether the rules of
`daskpki.pki.trust` accept it after the one that holds. Who may bring one at all is in the tables: schedulers to their
workers and clients, clients to a scheduler (`daskpki revoke` does), workers to their nanny.

The trust document and the credential that a process goes by, and how newer ones take their place while it runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from distributed.comm.core import connect
from distributed.core import error_message, send_recv

from daskpki.cluster.audit import RELOADED
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.policy import Server
from daskpki.cluster.tls import KeyPair
from daskpki.cluster.trust_state import trust_of
from daskpki.confidential import Confidential
from daskpki.errors import DaskpkiError, NotTrustedError, UnavailableError
from daskpki.pki.certificates import lifetime, load_certificate
from daskpki.pki.pem import parse_certificates
from daskpki.pki.profile import Lifetime
from daskpki.pki.trust_document import TrustDocument, parse_trust

TRUST: Final = "daskpki-trust"
EPOCH: Final = "daskpki"
"""The field of the greeting that says that daskpki is at this end, and at which epoch."""
MODE: Final = "daskpki-worker-clients"
"""The field in which a scheduler says what a worker's certificate may do as a client."""


def message(signed: Confidential) -> dict[str, Any]:
    """A document on its way."""
    return {"op": TRUST, "signed": signed.reveal()}


def consume_trust(enforcement: Enforcement, received: Any) -> bool:
    """Whether a message of a stream was one of ours; a document that does not hold is noted and changes nothing."""
    if not isinstance(received, dict) or received.get("op") != TRUST:
        return False
    try:
        accept_trust(enforcement, received)
    except DaskpkiError as error:
        enforcement.audit.record("refused", detail=f"a trust document: {error}")
    return True


def reply_trust(enforcement: Enforcement, received: Mapping[str, Any]) -> Any:
    """The reply to one that came as a call: the epoch that holds now, or why it was not accepted."""
    try:
        accept_trust(enforcement, received)
    except DaskpkiError as error:
        enforcement.audit.record("refused", detail=f"a trust document: {error}")
        return error_message(PermissionError(str(error)), status="uncaught-error")
    return {"status": "OK", "epoch": enforcement.trust.epoch}


def accept_trust(enforcement: Enforcement, received: Mapping[str, Any]) -> bool:
    """Whether the document is newer than ours and holds, and so is ours now; DaskpkiError when it does not hold."""
    if enforcement.keeper is None:
        raise UnavailableError("this process takes no trust documents")
    signed = received.get("signed")
    if not isinstance(signed, bytes):
        raise DaskpkiError("a message about a trust document, without it")
    return enforcement.keeper.offer(Confidential(signed))


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
        self._clock = clock
        self._refused: list[float] = []
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

    def offer(self, signed: Confidential) -> bool:
        """Whether `signed` is newer than what holds, and holds from now on.

        NotTrustedError or CorruptError when it does not hold, and nothing has changed; UnavailableError after too many
        such offers, since each costs the verification of a signature.
        """
        with self._lock:
            parsed = parse_trust(signed)
            if parsed.document.epoch <= self.epoch:
                return False
            self._check_rate()
            try:
                self._go_by(signed)
            except NotTrustedError:
                self._refused.append(self._clock())
                raise
        self._tell_everyone()
        return True

    def _check_rate(self) -> None:
        since = self._clock() - _MINUTE
        self._refused = [moment for moment in self._refused if moment > since]
        if len(self._refused) >= _REFUSALS_PER_MINUTE:
            raise UnavailableError(f"{len(self._refused)} trust documents of the last minute did not hold; wait one")

    def _go_by(self, signed: Confidential) -> None:
        from daskpki.pki.trust import verify_trust

        document = verify_trust(
            parse_trust(signed), now=datetime.now(UTC), cluster=self.document.cluster, previous=self.document
        )
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
