"""Trust documents that travel over live connections: an operation of our own, taken out before Dask sees it.

The signature is the authority, so it does not matter who brings a document, only whether the rules of
`daskpki.pki.trust` accept it after the one that holds. Who may bring one at all is in the tables: schedulers to their
workers and clients, clients to a scheduler (`daskpki revoke` does), workers to their nanny.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from distributed.comm.core import connect
from distributed.core import error_message, send_recv

from daskpki.cluster.audit import REFUSED
from daskpki.confidential import Confidential
from daskpki.errors import DaskpkiError, NotTrustedError, UnavailableError
from daskpki.identity import Role

if TYPE_CHECKING:
    from daskpki.cluster.enforcement import Enforcement
    from daskpki.cluster.peers import Peer


class ForgedError(NotTrustedError):
    """A trust document with a false signature in the name of a CA that this process holds."""


class TooManyRefusedError(UnavailableError):
    """The sender's documents of the last minute did not hold, so that this one was not even looked at."""


class SignedTrust(NamedTuple):
    """A trust document as a source found it, nothing of it verified."""

    signed: Confidential
    place: str = "the source"
    """Where it was found, for reports."""


TRUST: Final = "daskpki-trust"
EPOCH: Final = "daskpki"
"""The field of the greeting that says that daskpki is at this end, and at which epoch."""
MODE: Final = "daskpki-worker-clients"
"""The field in which a scheduler says what a worker's certificate may do as a client."""


def message(signed: Confidential) -> dict[str, Any]:
    """A document on its way."""
    return {"op": TRUST, "signed": signed.reveal()}


def is_news(received: Any) -> bool:
    """Whether a message is one of ours."""
    return isinstance(received, dict) and received.get("op") == TRUST


def take(enforcement: Enforcement, received: Mapping[str, Any], sender: Peer) -> DaskpkiError | None:
    """Go by the document that `sender` brought, if it is newer and holds; else the reason, which is recorded."""
    try:
        _offer(enforcement, received, sender)
    except DaskpkiError as error:
        enforcement.audit.record(
            REFUSED,
            peer=sender.identity.uri,
            detail=f"a trust document: {error}",
            again=isinstance(error, TooManyRefusedError),  # one line for each that was judged, and none for a flood
        )
        return error
    return None


def answer(enforcement: Enforcement, error: DaskpkiError | None) -> Any:
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


async def bring(address: str, arguments: Mapping[str, Any], signed: Confidential) -> int:
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
