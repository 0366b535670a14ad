"""The pool of helpers: confined processes that open the pickles of clients, one for each identity that submits graphs.

A helper works for one identity only. A wrong answer, a time-out or a death fails the graph in question and ends the
helper; the rest of its answer is discarded with its socket.

A message on a helper's socket is the number of its frames, their lengths, and the frames.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import pwd
import re
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from daskpki.cluster.sealed import confinement
from daskpki.errors import NotTrustedError, UsageError

_COUNT: Final = struct.Struct("<I")
_MOST_FRAMES: Final = 1 << 20  # as in a message of Dask (`daskpki.cluster.comm`)
FORK: Final = b"fork"
"""The request to fork a helper; a helper's process number is the request to end it."""

_INHERITED: Final = ("PATH", "LANG", "LC_ALL", "HOME", "TZ", "TMPDIR")
_BUFFER: Final = 1 << 22
"""Bytes of a socket's buffers, which spare a large graph most switches between the processes."""
_UPLOADED: Final = 1 << 26
"""Most bytes of one identity's uploaded modules, which the scheduler keeps for its helpers."""
_STARTS: Final = 120.0
"""Seconds for the forking process to load Dask, numpy and pandas on a busy machine."""
_LIMIT: Final = re.compile(r"([a-z]+)=([1-9][0-9]{0,9})\Z")
_REHEARSAL: Final = "rehearsal"
"""Stands for an identity in the self-test; no identity has this URI."""

Answer = TypeVar("Answer")
logger = logging.getLogger("distributed.daskpki")


class Limits(NamedTuple):
    """Most helpers at once, and the limits of each: seconds, MiB, tasks of a graph."""

    helpers: int = 8
    seconds: int = 120
    wait: int = 60
    memory: int = 4096
    reply: int = 2048
    tasks: int = 5_000_000


class HelperFailedError(Exception):
    """A helper did not answer, or none was free; the message is for the client whose graph it was."""


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


def parse_limits(text: str | None) -> Limits:
    """Parse limits such as `helpers=4,memory=2048`; the others are the defaults. UsageError."""
    limits = Limits()
    for word in filter(None, (text or "").split(",")):
        found = _LIMIT.match(word)
        if found is None or found.group(1) not in Limits._fields:
            names = ", ".join(f"{name}={value}" for name, value in Limits()._asdict().items())
            raise UsageError(f"--helper-limits {word[:100]!r} is not a limit", hint=f"separated by commas: {names}")
        limits = limits._replace(**{found.group(1): int(found.group(2))})
    return limits


class _Helper:
    """One forked process and our end of its socket."""

    def __init__(self, number: int, stream: socket.socket) -> None:
        self.number = number
        self.stream = stream
        self.last_used = time.monotonic()
        self._requests = itertools.count()

    @property
    def silent(self) -> bool:
        """True if it lives and its socket is empty: unread bytes would be taken for the next answer."""
        looking = select.poll()
        looking.register(self.stream, select.POLLIN)
        return not looking.poll(0)

    def ask(self, frames: Sequence[Any], most: int, until: float) -> list[bytearray]:
        """Send a request, and return the answer; ForgedAnswerError if it is too large, or to another request."""
        number = next(self._requests).to_bytes(8, "little")
        send(self.stream, [number, *frames], until)
        answered, *answer = receive(self.stream, most, until) or [bytearray()]
        if answered != number:
            raise ForgedAnswerError("the helper's answer is to another request")
        return answer


class Helpers:
    """The helpers of one scheduler, by the identity (a URI) for which each works."""

    def __init__(self, limits: Limits, user: str | None = None) -> None:
        confinement.verify_supported(landlock=user is None)
        self.limits = limits
        self._user = {} if user is None else _account(user)
        self.alive: dict[str, _Helper] = {}
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._places = asyncio.Semaphore(limits.helpers)
        self._busy: set[str] = set()
        self._threads = ThreadPoolExecutor(limits.helpers, "daskpki-helpers")  # each waits for a busy helper
        self._forker: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._forking = threading.Lock()
        self._uploads: dict[str, dict[str, list[Any]]] = defaultdict(dict)
        self.killed, self.asked, self.seconds = 0, 0, 0.0

    def memory(self) -> int:
        """Return the memory of all helpers in bytes, as far as the kernel shows it for undumpable processes."""
        pages = 0
        for helper in list(self.alive.values()):  # threads fork them
            with contextlib.suppress(OSError, ValueError, IndexError):
                pages += int(Path(f"/proc/{helper.number}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def begin(self) -> None:
        """Start the process from which helpers are forked; it begins to load Dask."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            environ = {name: os.environ[name] for name in _INHERITED if name in os.environ}
            environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
            given = (theirs.fileno(), self.limits.memory << 20, int(confinement.landlock_version() > 0))
            self._forker = subprocess.Popen(
                [sys.executable, "-P", "-m", "daskpki.cluster.sealed.helper_process", *map(str, given)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environ,
                **self._user,
            )
        ours.settimeout(_STARTS)
        self._control = ours

    def rehearse(self, frames: Sequence[Any], read: Callable[[list[bytearray]], Answer]) -> Answer:
        """Ask like `ask`, with a helper only for this request. Blocks, so call it before the event loop serves."""
        try:
            return self._ask(_REHEARSAL, frames, read)
        finally:
            self._drop(_REHEARSAL)

    def end(self) -> None:
        """End the helpers, and the process that forks them."""
        for identity in list(self.alive):
            self._drop(identity)
        if self._control is not None:
            self._control.close()
        if self._forker is not None:
            self._forker.kill()
            self._forker.wait()
        self._control = self._forker = None
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def ask(self, identity: str, frames: Sequence[Any], read: Callable[[list[bytearray]], Answer]) -> Answer:
        """Ask an identity's helper, and return the result of `read` for its answer; HelperFailedError.

        Errors of `read` are passed on; a ForgedAnswerError ends the helper.
        """
        async with self._turns[identity]:
            await self._take_a_place(identity)
            begun = time.monotonic()
            self.asked += 1
            try:
                return await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._ask, identity, frames, read
                )
            except (OSError, EOFError, ForgedAnswerError) as error:
                self.killed += 1
                told = _in_words(error, self.limits)
                logger.warning("sealed: the helper of %s ended: %s", identity, told)
                self._drop(identity)
                raise HelperFailedError(told) from None
            except asyncio.CancelledError:
                self._drop(identity)  # its thread is waiting for it
                raise
            finally:
                self.seconds += time.monotonic() - begun
                self._leave(identity)

    async def upload(self, identity: str, filename: str, frames: list[Any]) -> None:
        """Give a file to each later helper of an identity; HelperFailedError if its files are too large."""
        files = self._uploads[identity] | {filename: frames}
        if sum(sum(map(len, each)) for each in files.values()) > _UPLOADED:
            raise HelperFailedError(f"the uploaded files, {filename[:100]!r} included, exceed {_UPLOADED >> 20} MiB")
        self._uploads[identity] = files
        async with self._turns[identity]:
            self._drop(identity)

    def _ask(self, identity: str, frames: Sequence[Any], read: Callable[[list[bytearray]], Answer]) -> Answer:
        helper = self.alive.get(identity)
        if helper is None or not helper.silent:
            self._drop(identity)
            helper = self.alive[identity] = self._fork()
            for upload in self._uploads[identity].values():
                helper.ask(upload, _BUFFER, time.monotonic() + self.limits.seconds)
        return read(helper.ask(frames, self.limits.reply << 20, time.monotonic() + self.limits.seconds))

    async def _take_a_place(self, identity: str) -> None:
        """Wait until a helper may work, and end the longest idle one if the pool is full."""
        try:
            await asyncio.wait_for(self._places.acquire(), self.limits.wait)
        except TimeoutError:
            raise HelperFailedError(
                f"all {self.limits.helpers} helpers were busy for {self.limits.wait} s; submit again, or raise "
                "--helper-limits"
            ) from None
        self._busy.add(identity)
        if len(self.alive.keys() | self._busy) > self.limits.helpers:
            self._drop(min(self.alive.keys() - self._busy, key=lambda each: self.alive[each].last_used))

    def _leave(self, identity: str) -> None:
        self._busy.discard(identity)
        self._places.release()
        if identity in self.alive:
            self.alive[identity].last_used = time.monotonic()

    def _fork(self) -> _Helper:
        ours, theirs = socket.socketpair()
        with theirs, self._forking:
            for end, option in itertools.product((ours, theirs), (socket.SO_SNDBUF, socket.SO_RCVBUF)):
                end.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
            if self._control is None or self._forker is None or self._forker.poll() is not None:
                self.begin()
            assert self._control is not None
            socket.send_fds(self._control, [FORK], [theirs.fileno()])
            if not (number := self._control.recv(64)):
                raise EOFError("the process that forks helpers has ended")
        return _Helper(int(number), ours)

    def _drop(self, identity: str) -> None:
        if (helper := self.alive.pop(identity, None)) is None:
            return
        with contextlib.suppress(OSError):
            helper.stream.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for it, as closing would not
        helper.stream.close()
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.send(b"%d" % helper.number)


def _account(user: str) -> dict[str, Any]:
    """Return the arguments that start a subprocess as that user."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise UsageError(f"--helper-user {user[:100]!r} is not a user of this machine") from None
    if os.geteuid() or not account.pw_uid:
        raise UsageError(f"--helper-user {user} needs a scheduler that runs as root, and another user than root")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _in_words(error: BaseException, limits: Limits) -> str:
    if isinstance(error, ForgedAnswerError):
        return f"the helper that opens this client's graphs was ended: {error}"
    if isinstance(error, TimeoutError):
        return f"the helper that opens this client's graphs did not answer within {limits.seconds} s"
    return (
        f"the helper that opens this client's graphs died; its limits: {limits.memory} MiB of memory, no sockets, "
        "no new processes, no files but Python's modules"
    )
