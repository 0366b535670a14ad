"""The protocol on the socket between the scheduler and a helper: number of frames, their lengths, the frames."""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from daskpki.errors import NotTrustedError

_COUNT: Final = struct.Struct("<I")
_MOST_FRAMES: Final = 1 << 20
FORK: Final = b"fork"
"""The request to fork a helper; a helper's process number is the request to end it."""


class ForgedAnswerError(NotTrustedError):
    """An answer that no intact helper gives."""


def send(stream: socket.socket, frames: Sequence[Any], until: float | None = None) -> None:
    """Send a message; TimeoutError at `until` on the monotonic clock, if that is given."""
    lengths = [memoryview(frame).nbytes for frame in frames]
    for part in (struct.pack(f"<I{len(frames)}Q", len(frames), *lengths), *frames):
        _limit(stream, until)
        stream.sendall(part)


def receive(stream: socket.socket, most: int = sys.maxsize, until: float | None = None) -> list[bytearray]:
    """Receive a message; ForgedAnswerError beyond `most` bytes, EOFError once the other side is gone, TimeoutError."""
    (count,) = _COUNT.unpack(_exactly(stream, _COUNT.size, until))
    if count > _MOST_FRAMES:
        raise ForgedAnswerError(f"the helper's answer has {count} frames")
    lengths = struct.unpack(f"<{count}Q", _exactly(stream, 8 * count, until))
    if sum(lengths) > most:
        raise ForgedAnswerError(f"the helper's answer has {sum(lengths)} bytes, more than {most}")
    return [_exactly(stream, length, until) for length in lengths]


def _exactly(stream: socket.socket, size: int, until: float | None) -> bytearray:
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        _limit(stream, until)
        received = stream.recv_into(rest)
        if not received:
            raise EOFError
        rest = rest[received:]
    return data


def _limit(stream: socket.socket, until: float | None) -> None:
    if until is not None:  # a confined helper may not set a timeout
        if (left := until - time.monotonic()) <= 0:
            raise TimeoutError
        stream.settimeout(left)
