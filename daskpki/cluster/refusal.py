"""Refusals: their reasons, in a few fixed words for metrics and alerts, and the replies to the refused peer.

A peer can recognise a refusal; it does not look like a time-out or a lost connection.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, TypeVar

from distributed.core import error_message
from distributed.protocol import pickle
from distributed.protocol.serialize import Serialized

from daskpki.errors import NotTrustedError


class Reason(StrEnum):
    """Reason of a refusal, as it is counted (`daskpki_refused_total`)."""

    UNKNOWN_CA = "unknown_ca"
    """A CA that is not, or no longer, trusted; in a TLS handshake also a certificate that is not daskpki's at all."""
    REVOKED = "revoked"
    EXPIRED = "expired"
    """A certificate that has expired or does not begin yet."""
    CRL_EXPIRED = "crl_expired"
    """Our revocation list has expired, so no new peer is accepted."""
    CERTIFICATE = "certificate"
    """The peer showed no certificate, or one of another form or trust domain."""
    TLS = "tls"
    """A handshake that failed for another cause, or took too long: scanners, plain HTTP, a full waiting list."""
    ROLE = "role"
    """A valid certificate whose role is not accepted here."""
    OPERATION = "operation"
    """An operation, or an argument of one, that the role may not use."""
    PICKLE = "pickle"
    """Bytes in a worker's message that would have to be unpickled."""
    SIZE = "size"
    """A message that announces more bytes than its sender may send."""
    TRUST_DOCUMENT = "trust_document"
    """A trust document that does not verify."""
    PAGE = "page"
    """A request for the dashboard from a foreign page or machine, or one that does more than read."""


class PeerRefusedError(NotTrustedError):
    """The other end is refused. `peer` is the SPIFFE ID in its certificate."""

    def __init__(self, message: str, reason: Reason, peer: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.peer = peer


# X509_V_ERR_* of OpenSSL's x509_vfy.h, which `ssl` does not name.
_UNKNOWN_CA: Final = frozenset({2, 7, 18, 19, 20, 21, 30, 31, 32})
_EXPIRED: Final = frozenset({9, 10})
_NO_CERTIFICATE: Final = "PEER_DID_NOT_RETURN_A_CERTIFICATE"


def reason_at_tls(error: BaseException | None) -> Reason:
    """Find the reason of a failed handshake in the error, or in the errors that caused it."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            if error.verify_code in _UNKNOWN_CA:
                return Reason.UNKNOWN_CA
            return Reason.EXPIRED if error.verify_code in _EXPIRED else Reason.CERTIFICATE
        if isinstance(error, ssl.SSLError) and getattr(error, "reason", None) == _NO_CERTIFICATE:
            return Reason.CERTIFICATE
        error = error.__cause__
    return Reason.TLS


Refusal = TypeVar("Refusal", bound=BaseException)
_REFUSAL_FIELD: Final = "daskpki-refused"


def turned_away(reason: str) -> dict[str, Any]:
    """Make the one frame that a refused peer gets instead of Dask's greeting.

    Our own connector reads the text. Stock Dask decodes the whole message, and its deserializer for failed
    serializations raises TypeError with exactly that text (`serialization_error_loads`).
    """
    return {_REFUSAL_FIELD: reason, "for-stock-dask": Serialized({"serializer": "error"}, [reason.encode()])}


def reason_of(handshake: Any) -> str | None:
    """Return the other side's reason if this frame is a refusal."""
    if isinstance(handshake, dict) and isinstance(reason := handshake.get(_REFUSAL_FIELD), str):
        return reason
    return None


def detached(error: Refusal) -> Refusal:
    """Return `error` without its traceback, so that it can be kept in a variable.

    The traceback refers to the frame with that variable, a cycle that keeps the peer's whole message until the garbage
    collector runs: 30 messages of 20 MB took a scheduler to 700 MB.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def answer_call(message: Any, reason: str) -> Any:
    """Make the reply to a refused call, in the form that its caller awaits; None if it awaits no reply."""
    call = message if isinstance(message, dict) else {}
    match call.get("op"):
        case "register-client":  # Client._ensure_connected
            return [{"op": "stream-start", "error": reason}]
        case "register-worker":  # Worker._register_with_scheduler
            return {"status": "error", "message": reason}
    return error_message(PermissionError(reason), status="uncaught-error") if call.get("reply", True) else None


def answer_stream(message: Mapping[str, Any], reason: str) -> list[dict[str, Any]]:
    """Make the replies to a refused message of a client's stream: the futures of its keys fail.

    The client unpickles the error itself, so a client in this process can read the replies as they are.
    """
    error = pickle.dumps(PermissionError(reason))
    return [{"op": "task-erred", "key": key, "exception": error, "traceback": None} for key in _awaited(message)]


def _awaited(message: Mapping[str, Any]) -> list[Any]:
    match message.get("op"):
        case "update-graph":
            keys = message.get("keys")
            return list(keys) if isinstance(keys, (list, tuple, set)) else []
        case "report-key":
            return [message.get("key")]
    return []
