"""What a scheduler says of itself in the first message on a connection, for whoever looks at it without Dask."""

from __future__ import annotations

import struct

from distributed.protocol.utils import unpack_frames

from daskpki.cluster import no_pickle
from daskpki.cluster.policy import WorkerClients
from daskpki.cluster.trust_updates import MODE
from daskpki.errors import NotTrustedError

_LENGTH = struct.calcsize("Q")
_MALFORMED = (struct.error, AssertionError, ValueError, OverflowError, MemoryError, NotTrustedError)


def announced_mode(received: bytes) -> WorkerClients | None:
    """What a worker's certificate may do as a client there; None when the message is no greeting of daskpki's.

    `received` is a whole message, as `TCP.write` of distributed sends it; nothing of it is unpickled.
    """
    try:
        message = no_pickle.decode(unpack_frames(memoryview(received)[_LENGTH:]))
        return WorkerClients(message[MODE])
    except (*_MALFORMED, KeyError, TypeError):
        return None
