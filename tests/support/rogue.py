"""A peer that holds to no rule: stock Dask's comm under any certificate, one frame at a time."""

from __future__ import annotations

import asyncio
from typing import Any

from distributed import Security
from distributed.comm.core import Comm, connect
from distributed.core import clean_exception
from distributed.protocol.serialize import Serialized, deserialize

REFUSED_BY_TLS = "refused by TLS"


async def dial(address: str, security: Security, role: str = "worker") -> Comm:
    comm: Comm = await connect(address, timeout=30, **security.get_connection_args(role))
    return comm


async def call(address: str, security: Security, /, **message: Any) -> Any:
    """The reply to one call; an error in it is returned as the exception that it is."""
    comm = await dial(address, security)
    try:
        await comm.write(message)
        return error_in(await asyncio.wait_for(comm.read(), 10))
    finally:
        comm.abort()


def error_in(reply: Any) -> Any:
    if not isinstance(reply, dict) or reply.get("status") not in ("error", "uncaught-error"):
        return reply
    opened = {key: _open(reply[key]) for key in ("exception", "traceback") if key in reply}
    return clean_exception(**opened)[1] if opened else reply


def _open(value: Any) -> Any:
    return deserialize(value.header, value.frames) if isinstance(value, Serialized) else value


async def admission(address: str, security: Security) -> str:
    """`admitted`, or why not: the text of the refusing frame, or that TLS did not get that far."""
    try:
        reply = await call(address, security, op="identity")
    except TypeError as refusal:  # how stock Dask reads the frame that says why
        return str(refusal)
    except OSError:
        return REFUSED_BY_TLS
    assert isinstance(reply, dict), reply
    return "admitted"
