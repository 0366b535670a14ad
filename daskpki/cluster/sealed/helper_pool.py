"""The pool of helpers: a confined process for each identity that submits, which opens what that one pickled.

One identity's helper never answers for another: a wrong answer, a time-out or a death costs the graph that was asked
about, and the helper with it. Whatever of an answer lies in its socket is gone with the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import pwd
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from daskpki.cluster.sealed import confinement, wire
from daskpki.cluster.sealed.graphs import ForgedAnswerError
from daskpki.errors import UsageError

_INHERITED: Final = ("PATH", "LANG", "LC_ALL", "HOME", "TZ", "TMPDIR")
_BUFFER: Final = 1 << 22
_UPLOADED: Final = 1 << 26
"""Bytes of one identity's uploaded modules, which the scheduler keeps for its helpers."""
_STARTS: Final = 120.0
"""Seconds in which the forking process has loaded Dask, numpy and pandas, on a machine that is busy."""
_LIMIT: Final = re.compile(r"([a-z]+)=([1-9][0-9]{0,9})\Z")
_UNITS: Final = {"memory": 1 << 20, "reply": 1 << 20}

Answer = TypeVar("Answer")
logger = logging.getLogger("distributed.daskpki")


class Limits(NamedTuple):
    """How many helpers there are, and what one may take: seconds, MiB, tasks of a graph."""

    helpers: int = 8
    seconds: int = 120
    wait: int = 60
    memory: int = 4096
    reply: int = 2048
    tasks: int = 5_000_000


class HelperFailedError(Exception):
    """A helper did not answer, or there was none to ask; in words for the client whose graph it was."""


def parse_limits(text: str | None) -> Limits:
    """The limits with those replaced that `text` names (`helpers=4,memory=2048`); UsageError."""
    limits = Limits()
    for word in filter(None, (text or "").split(",")):
        found = _LIMIT.match(word)
        if found is None or found.group(1) not in Limits._fields:
            names = ", ".join(f"{name}={value}" for name, value in Limits()._asdict().items())
            raise UsageError(f"--helper-limits {word[:100]!r} is no limit", hint=f"by commas, of {names}")
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
        """Whether it lives and has said nothing unasked: what lies in its socket would be taken for the next answer."""
        try:
            self.stream.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    async def ask(self, frames: Sequence[Any], most: int) -> list[bytearray]:
        """Its answer; ForgedAnswerError when it is too large, or to another question."""
        loop = asyncio.get_running_loop()
        number = next(self._requests).to_bytes(8, "little")
        await loop.sock_sendall(self.stream, wire.header([number, *frames]) + number)
        for frame in frames:
            await loop.sock_sendall(self.stream, frame)
        (count,) = wire.COUNT.unpack(await self._exactly(wire.COUNT.size))
        if count > wire.MOST_FRAMES:
            raise ForgedAnswerError(f"the helper's answer has {count} frames")
        lengths = struct.unpack(f"<{count}Q", await self._exactly(8 * count))
        if sum(lengths) > most:
            raise ForgedAnswerError(f"the helper's answer has {sum(lengths)} bytes, more than {most}")
        answered, *answer = [await self._exactly(length) for length in lengths] or [bytearray()]
        if answered != number:
            raise ForgedAnswerError("the helper's answer is to another question")
        return answer

    async def _exactly(self, size: int) -> bytearray:
        loop, data = asyncio.get_running_loop(), bytearray(size)
        rest = memoryview(data)
        while rest:
            received = await loop.sock_recv_into(self.stream, rest)
            if not received:
                raise EOFError
            rest = rest[received:]
        return data


class Helpers:
    """The helpers of one scheduler, by the identity (a URI) for which each works."""

    def __init__(self, limits: Limits, user: str | None = None) -> None:
        if user is None:
            confinement.verify_supported()
        self.limits = limits
        self._user = None if user is None else _account(user)
        self._helpers: dict[str, _Helper] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._free = asyncio.Condition()
        self._busy: set[str] = set()
        self._forker: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._forking = asyncio.Lock()
        self._uploads: dict[str, dict[str, list[Any]]] = {}
        self.killed = 0
        self.asked = 0
        self.seconds = 0.0

    @property
    def alive(self) -> int:
        """How many helpers there are now."""
        return len(self._helpers)

    def numbers(self) -> Mapping[str, int]:
        """The process number of each helper, by identity."""
        return {identity: helper.number for identity, helper in self._helpers.items()}

    def memory(self) -> int:
        """Bytes that the helpers hold, as far as the kernel tells of undumpable processes."""
        pages = 0
        for number in self.numbers().values():
            with contextlib.suppress(OSError, ValueError, IndexError):
                pages += int(Path(f"/proc/{number}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def begin(self) -> None:
        """Start the process from which helpers are forked; it loads Dask meanwhile."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            environ = {name: os.environ[name] for name in _INHERITED if name in os.environ}
            environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
            landlock = confinement.has_landlock()
            settings = json.dumps({"memory": self.limits.memory << 20, "landlock": landlock})
            self._forker = subprocess.Popen(
                [sys.executable, "-P", "-m", "daskpki.cluster.sealed.helper_process", str(theirs.fileno()), settings],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environ,
                user=None if self._user is None else self._user.pw_uid,
                group=None if self._user is None else self._user.pw_gid,
                extra_groups=None if self._user is None else [],
            )
        ours.settimeout(_STARTS)
        self._control = ours

    def rehearse(self, frames: Sequence[Any]) -> list[bytearray]:
        """The answer of a helper that exists for this alone; blocks, so before the event loop serves anybody."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            number = self._fork_with(theirs)
            theirs.close()
            try:
                ours.settimeout(self.limits.seconds)
                wire.send(ours, [b"", *frames])
                return wire.receive(ours)[1:]
            finally:
                self._end_process(number)

    def end(self) -> None:
        """End the helpers, and the process that forks them."""
        for identity in list(self._helpers):
            self._drop(identity)
        if self._control is not None:
            self._control.close()
        if self._forker is not None:
            self._forker.kill()
            self._forker.wait()
        self._control = self._forker = None

    async def ask(self, identity: str, frames: Sequence[Any], read: Callable[[list[bytearray]], Answer]) -> Answer:
        """What `read` makes of that identity's helper's answer; HelperFailedError, or what `read` raises.

        A ForgedAnswerError of `read` ends the helper.
        """
        async with self._turns.setdefault(identity, asyncio.Lock()):
            await self._take_a_place(identity)
            begun = time.monotonic()
            self.asked += 1
            try:
                helper = await self._helper_of(identity)
                answer = await asyncio.wait_for(helper.ask(frames, self.limits.reply << 20), self.limits.seconds)
                return await asyncio.to_thread(read, answer)
            except (OSError, EOFError, TimeoutError, ForgedAnswerError) as error:
                self._kill(identity, error)
                raise HelperFailedError(_in_words(error, self.limits)) from None
            except asyncio.CancelledError:
                self._drop(identity)
                raise
            finally:
                self.seconds += time.monotonic() - begun
                await self._leave(identity)

    async def upload(self, identity: str, filename: str, frames: list[Any]) -> None:
        """Have each helper of that identity from the next on take in a file; HelperFailedError when it is too large."""
        files = self._uploads.setdefault(identity, {}) | {filename: frames}
        if sum(sum(map(len, each)) for each in files.values()) > _UPLOADED:
            raise HelperFailedError(f"what was uploaded with {filename[:100]!r} is more than {_UPLOADED >> 20} MiB")
        self._uploads[identity] = files
        async with self._turns.setdefault(identity, asyncio.Lock()):
            self._drop(identity)

    async def _helper_of(self, identity: str) -> _Helper:
        if identity in self._helpers and not self._helpers[identity].silent:
            self._drop(identity)
        if identity not in self._helpers:
            self._helpers[identity] = await self._fork()
            for upload in self._uploads.get(identity, {}).values():
                await asyncio.wait_for(self._helpers[identity].ask(upload, _BUFFER), self.limits.seconds)
        return self._helpers[identity]

    async def _take_a_place(self, identity: str) -> None:
        """Wait until fewer helpers work than there may be, and end the longest idle where the pool is full."""
        try:
            async with asyncio.timeout(self.limits.wait), self._free:
                await self._free.wait_for(lambda: len(self._busy) < self.limits.helpers)
                self._busy.add(identity)
        except TimeoutError:
            raise HelperFailedError(
                f"all {self.limits.helpers} helpers were busy for {self.limits.wait} s; submit again, or have "
                "--helper-limits raised"
            ) from None
        if len(self._helpers.keys() | self._busy) > self.limits.helpers:
            idle = [each for each in self._helpers if each not in self._busy]
            self._drop(min(idle, key=lambda each: self._helpers[each].last_used))

    async def _leave(self, identity: str) -> None:
        if identity in self._helpers:
            self._helpers[identity].last_used = time.monotonic()
        async with self._free:
            self._busy.discard(identity)
            self._free.notify()

    async def _fork(self) -> _Helper:
        ours, theirs = socket.socketpair()
        with theirs:
            for each in (ours, theirs):
                for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    each.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
            async with self._forking:
                number = await asyncio.to_thread(self._fork_with, theirs)
        ours.setblocking(False)
        return _Helper(number, ours)

    def _fork_with(self, theirs: socket.socket) -> int:
        if self._control is None or self._forker is None or self._forker.poll() is not None:
            self.begin()
        assert self._control is not None
        socket.send_fds(self._control, [wire.FORK], [theirs.fileno()])
        if not (number := self._control.recv(64)):
            raise EOFError("the process that forks helpers has ended")
        return int(number)

    def _kill(self, identity: str, error: BaseException) -> None:
        self.killed += 1
        logger.warning("sealed: the helper of %s ended: %s", identity, _in_words(error, self.limits))
        self._drop(identity)

    def _drop(self, identity: str) -> None:
        helper = self._helpers.pop(identity, None)
        if helper is None:
            return
        helper.stream.close()
        self._end_process(helper.number)

    def _end_process(self, number: int) -> None:
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.send(wire.END + b"%d" % number)


def _account(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise UsageError(f"--helper-user {user[:100]!r} is no user of this machine") from None


def _in_words(error: BaseException, limits: Limits) -> str:
    if isinstance(error, ForgedAnswerError):
        return f"the helper that opens this client's graphs was ended: {error}"
    if isinstance(error, TimeoutError):
        return f"the helper that opens this client's graphs did not answer within {limits.seconds} s"
    return (
        f"the helper that opens this client's graphs died; it may take {limits.memory} MiB of memory, open no sockets "
        "and files but Python's modules, and start no processes"
    )
