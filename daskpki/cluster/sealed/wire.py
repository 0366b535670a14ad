"""How the scheduler and a helper talk on their socket: a count of frames, their lengths, the frames."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Any, Final

COUNT: Final = struct.Struct("<I")
MOST_FRAMES: Final = 1 << 20
FORK, END = b"fork", b"end"
"""What the scheduler asks of the process from which helpers are forked."""


def header(frames: Sequence[Any]) -> bytes:
    """What goes before the frames."""
    return struct.pack(f"<I{len(frames)}Q", len(frames), *(memoryview(frame).nbytes for frame in frames))


def receive(stream: socket.socket) -> list[bytearray]:
    """The next message; EOFError once the other side is gone."""
    (count,) = COUNT.unpack(_exactly(stream, COUNT.size))
    lengths = struct.unpack(f"<{count}Q", _exactly(stream, 8 * count))
    return [_exactly(stream, length) for length in lengths]


def send(stream: socket.socket, frames: Sequence[Any]) -> None:
    """Send a message."""
    stream.sendall(header(frames))
    for frame in frames:
        stream.sendall(frame)


def _exactly(stream: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        received = stream.recv_into(rest)
        if not received:
            raise EOFError
        rest = rest[received:]
    return data
