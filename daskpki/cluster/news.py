"""Trust documents that travel over live connections: an operation of our own, taken out before Dask sees it.

The signature is the authority, so it does not matter who brings a document, only whether the rules of
`daskpki.pki.trust` accept it after the one that holds. Who may bring one at all is in the tables: schedulers to their
workers and clients, clients to a scheduler (`daskpki revoke` does), workers to their nanny.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from distributed.comm.core import connect
from distributed.core import error_message, send_recv

from daskpki.confidential import Confidential
from daskpki.errors import DaskpkiError, UnavailableError

if TYPE_CHECKING:
    from daskpki.cluster.enforcement import Enforcement


TRUST: Final = "daskpki-trust"
EPOCH: Final = "daskpki"
"""The field of the greeting that says that daskpki is at this end, and at which epoch."""
MODE: Final = "daskpki-worker-clients"
"""The field in which a scheduler says what a worker's certificate may do as a client."""


def message(signed: Confidential) -> dict[str, Any]:
    """A document on its way."""
    return {"op": TRUST, "signed": signed.reveal()}


def take(enforcement: Enforcement, received: Any) -> bool:
    """Whether a message of a stream was one of ours; a document that does not hold is noted and changes nothing."""
    if not isinstance(received, dict) or received.get("op") != TRUST:
        return False
    try:
        offer(enforcement, received)
    except DaskpkiError as error:
        enforcement.audit.record("refused", detail=f"a trust document: {error}")
    return True


def answer(enforcement: Enforcement, received: Mapping[str, Any]) -> Any:
    """The reply to one that came as a call: the epoch that holds now, or why it was not accepted."""
    try:
        offer(enforcement, received)
    except DaskpkiError as error:
        enforcement.audit.record("refused", detail=f"a trust document: {error}")
        return error_message(PermissionError(str(error)), status="uncaught-error")
    return {"status": "OK", "epoch": enforcement.trust.epoch}


def offer(enforcement: Enforcement, received: Mapping[str, Any]) -> bool:
    """Whether the document is newer than ours and holds, and so is ours now; DaskpkiError when it does not hold."""
    if enforcement.keeper is None:
        raise UnavailableError("this process takes no trust documents")
    signed = received.get("signed")
    if not isinstance(signed, bytes):
        raise DaskpkiError("a message about a trust document, without it")
    return enforcement.keeper.offer(Confidential(signed))


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
