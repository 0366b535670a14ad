"""Messages of Dask's TLS comm before they are decoded: length-prefixed frames, in the layout that `TCP.write` sends."""

from __future__ import annotations

import ssl
import struct
from typing import Any, Final

from distributed.comm import tcp
from distributed.comm.core import CommClosedError
from distributed.comm.tcp import read_bytes_rw
from distributed.comm.utils import OFFLOAD_THRESHOLD, from_frames
from distributed.protocol.utils import unpack_frames
from distributed.utils import offload
from tornado.iostream import StreamClosedError

_LENGTH: Final = struct.Struct("Q")
_MALFORMED: Final = (struct.error, AssertionError, ValueError, OverflowError, MemoryError)
"""What lengths that are none raise; a peer that sends them is gone, which Dask knows how to bear."""


async def read_frames(stream: Any, most: int | None = None) -> list[memoryview]:
    """Read the next message's frames from a tornado IOStream, undecoded; raises what the stream raises.

    ValueError when there are more than `most` bytes.
    """
    (together,) = _LENGTH.unpack(await stream.read_bytes(_LENGTH.size))
    _verify_size(together, most)
    frames, lengths = unpack_frames(await read_bytes_rw(stream, together), partial=True)
    _verify_size(together + sum(lengths), most)
    for length in lengths:
        frames.append(await read_bytes_rw(stream, length))
    return frames


def _verify_size(size: int, most: int | None) -> None:
    if most is not None and size > most:
        raise ValueError(f"a message of {size} bytes, where at most {most} are read")


class FramedTLS(tcp.TLS):
    """A TLS comm whose reading and decoding are two steps, so that the decoder can be chosen."""

    async def read_frames(self, most: int | None = None) -> list[memoryview]:
        """The next message, undecoded; CommClosedError, also when it has more than `most` bytes."""
        if self.stream is None:
            raise CommClosedError
        try:
            return await read_frames(self.stream, most)
        except (StreamClosedError, ssl.SSLError) as error:
            self.stream = None
            self._closed = True
            tcp.convert_stream_closed_error(self, error)
            raise  # never reached: the line above raises CommClosedError
        except _MALFORMED as error:
            self.abort()
            raise CommClosedError(f"a malformed message ({type(error).__name__})") from error
        except BaseException:
            self.abort()  # part of a message may have been consumed: the connection is of no more use
            raise

    async def decode_stock(self, frames: list[memoryview], deserializers: Any) -> Any:
        """As Dask itself decodes, which may unpickle."""
        try:
            return await from_frames(
                frames, deserialize=self.deserialize, deserializers=deserializers, allow_offload=self.allow_offload
            )
        except EOFError:
            self.abort()
            raise CommClosedError("aborted stream on truncated data") from None

    async def decode_by(self, decode: Any, frames: list[memoryview]) -> Any:
        """By another decoder, in a thread where Dask would use one."""
        if self.allow_offload and OFFLOAD_THRESHOLD and sum(map(len, frames)) > OFFLOAD_THRESHOLD:
            return await offload(decode, frames)
        return decode(frames)
