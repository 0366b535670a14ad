"""Reads what a scheduler says about itself in its first message, for callers without Dask."""

from __future__ import annotations

import struct
from typing import Any

from distributed.protocol.utils import unpack_frames

from daskpki.cluster import no_pickle
from daskpki.cluster.policy import WorkerClients
from daskpki.cluster.trust_updates import CODE, MODE
from daskpki.errors import NotTrustedError
from daskpki.handover import SEALED, STOCK

_LENGTH = struct.calcsize("Q")
_MALFORMED = (struct.error, AssertionError, ValueError, OverflowError, MemoryError, NotTrustedError)


def announced_mode(received: bytes) -> WorkerClients | None:
    """What a worker's certificate may do as a client there; None when the message is no greeting of daskpki's.

    `received` is a whole message, as `TCP.write` of distributed sends it; nothing of it is unpickled.
    """
    try:
        return WorkerClients(_announced(received, MODE))
    except (*_MALFORMED, KeyError, TypeError):
        return None


def announced_code(received: bytes) -> str | None:
    """Whether it is sealed or stock, as `announced_mode` reads it; None when it does not say."""
    try:
        code = _announced(received, CODE)
    except (*_MALFORMED, KeyError, TypeError):
        return None
    return code if code in (STOCK, SEALED) else None


def _announced(received: bytes, field: str) -> Any:
    return no_pickle.decode(unpack_frames(memoryview(received)[_LENGTH:]))[field]
