"""The bytes of one message from a stream: length-prefixed frames, in the layout that Dask's `TCP.write` sends."""

from __future__ import annotations

import struct
from typing import Any, Final

from distributed.comm.tcp import read_bytes_rw
from distributed.protocol.utils import unpack_frames

_LENGTH: Final = struct.Struct("Q")


async def read_frames(stream: Any) -> list[memoryview]:
    """Read the next message's frames from a tornado IOStream, undecoded; raises what the stream raises."""
    (together,) = _LENGTH.unpack(await stream.read_bytes(_LENGTH.size))
    frames, lengths = unpack_frames(await read_bytes_rw(stream, together), partial=True)
    for length in lengths:
        frames.append(await read_bytes_rw(stream, length))
    return frames
