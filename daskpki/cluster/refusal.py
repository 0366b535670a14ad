"""Builds the reply to a refused message, so that the peer sees a refusal and not a time-out or a lost connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from distributed.core import error_message
from distributed.protocol.serialize import Serialized

Refusal = TypeVar("Refusal", bound=BaseException)
TURNED_AWAY: Final = "daskpki-refused"


def turned_away(reason: str) -> dict[str, Any]:
    """The one frame that a refused peer gets instead of a handshake.

    A dialler of ours reads the text. Stock Dask decodes the whole message, and its deserializer for failed
    serializations raises TypeError with exactly that text (`serialization_error_loads`).
    """
    return {TURNED_AWAY: reason, "for-stock-dask": Serialized({"serializer": "error"}, [reason.encode()])}


def reason_of(handshake: Any) -> str | None:
    """Why the other side turned us away, if this is such a frame."""
    if isinstance(handshake, dict) and isinstance(reason := handshake.get(TURNED_AWAY), str):
        return reason
    return None


def detached(error: Refusal) -> Refusal:
    """`error` without the frames that it was raised in, for one that is kept in a variable.

    They lead back to the frame with that variable, a cycle in which the peer's whole message waits for the garbage
    collector: 30 of 20 MB took a scheduler to 700 MB.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def answer_call(message: Any, reason: str) -> Any:
    """What the caller of a refused procedure is told, in the form that it waits for; None when it waits for nothing."""
    call = message if isinstance(message, dict) else {}
    match call.get("op"):
        case "register-client":  # Client._ensure_connected
            return [{"op": "stream-start", "error": reason}]
        case "register-worker":  # Worker._register_with_scheduler
            return {"status": "error", "message": reason}
    return error_message(PermissionError(reason), status="uncaught-error") if call.get("reply", True) else None


def answer_stream(message: Mapping[str, Any], reason: str) -> list[dict[str, Any]]:
    """What a client is told in its stream when a message in it is refused: futures of its keys fail."""
    error = error_message(PermissionError(reason))
    failed = {"op": "task-erred", "exception": error["exception"], "traceback": error["traceback"]}
    return [failed | {"key": key} for key in _awaited(message)]


def answer_locally(message: Mapping[str, Any], reason: str) -> list[dict[str, Any]]:
    """The same, as this process would read it from its stream: for what is refused before it is sent."""
    error = PermissionError(reason)
    return [{"op": "task-erred", "key": key, "exception": error, "traceback": None} for key in _awaited(message)]


def _awaited(message: Mapping[str, Any]) -> list[Any]:
    match message.get("op"):
        case "update-graph":
            keys = message.get("keys")
            return list(keys) if isinstance(keys, (list, tuple, set)) else []
        case "report-key":
            return [message.get("key")]
    return []
