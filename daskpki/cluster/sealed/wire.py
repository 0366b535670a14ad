"""How the scheduler and a helper talk on their socket: a count of frames, their lengths, the frames."""

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
"""What the scheduler asks of the process from which helpers are forked; a helper's number ends that one."""


class ForgedAnswerError(NotTrustedError):
    """A helper answered what no helper of ours does."""


def send(stream: socket.socket, frames: Sequence[Any], until: float | None = None) -> None:
    """Send a message; TimeoutError at `until` on the monotonic clock, if that is given."""
    lengths = [memoryview(frame).nbytes for frame in frames]
    for part in (struct.pack(f"<I{len(frames)}Q", len(frames), *lengths), *frames):
        _limit(stream, until)
        stream.sendall(part)


def receive(stream: socket.socket, most: int = sys.maxsize, until: float | None = None) -> list[bytearray]:
    """The next message; ForgedAnswerError beyond `most` bytes, EOFError once the other side is gone, TimeoutError."""
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
    if until is not None:  # a helper may not even ask for a timeout
        if (left := until - time.monotonic()) <= 0:
            raise TimeoutError
        stream.settimeout(left)
