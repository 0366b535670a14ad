"""Dask's `tls` comm with daskpki's rules: checks each message from the peer, and each message to it.

All calls, streams, replies and greetings pass here, in both directions. `conversation` and `policy` decide; this module
applies their decisions to a live connection, and answers refused messages in a form that the peer recognises as a
refusal. Replies that this process makes itself are read as if the peer had sent them (`LocalReplies`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from distributed.comm import tcp
from distributed.comm.core import CommClosedError, FatalCommClosedError
from distributed.comm.tcp import read_bytes_rw
from distributed.comm.utils import OFFLOAD_THRESHOLD, from_frames
from distributed.protocol.utils import unpack_frames
from distributed.utils import offload
from tornado.iostream import StreamClosedError

from daskpki.cluster import address_claims, no_pickle, trust_updates
from daskpki.cluster.audit import REFUSED
from daskpki.cluster.conversation import Conversation
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.no_pickle import REPORTS, UNPICKLED, failed_task, from_text, sendable, travels, try_sendable
from daskpki.cluster.operations import WORKER_CLIENT_STREAM
from daskpki.cluster.pending import is_crowded
from daskpki.cluster.policy import STREAM_AFTER, Channel, ContestedAddressError, OperationRefusedError, WorkerClients
from daskpki.cluster.refusal import Reason, answer_call, answer_stream, detached, reason_of
from daskpki.cluster.trust_updates import CODE, EPOCH, MODE
from daskpki.cluster.values import arguments, fitted, misfit
from daskpki.errors import NotTrustedError
from daskpki.handover import SEALED, STOCK
from daskpki.identity import Role
from daskpki.quoting import shown

_LENGTH: Final = struct.Struct("Q")
_MOST_FRAMES: Final = 1 << 20
"""Most frames of one message, however long it is: the views of so many take some 600 MB."""
_MALFORMED: Final = (struct.error, AssertionError, ValueError, OverflowError, MemoryError)
"""Errors that invalid lengths cause; the peer then counts as gone, which Dask handles."""


class TooLongError(ValueError):
    """A message that announces more bytes or frames than its sender may send."""


async def read_frames(stream: Any, most: int | None = None) -> list[memoryview]:
    """Read the next message's frames from a tornado IOStream, undecoded; raises the errors of the stream.

    TooLongError if it announces more than `most` bytes, before any of those is read, or too many frames.
    """
    (together,) = _LENGTH.unpack(await stream.read_bytes(_LENGTH.size))
    _verify_size("bytes", together, most)
    first = await read_bytes_rw(stream, together)
    if most is not None:  # an empty frame costs 8 bytes on the wire, some 600 here, and 5 µs of the event loop
        _verify_size("frames", _LENGTH.unpack_from(first)[0], min(most >> 10, _MOST_FRAMES))
    frames, lengths = unpack_frames(first, partial=True)
    _verify_size("bytes", together + sum(lengths), most)
    for length in lengths:
        frames.append(await read_bytes_rw(stream, length))
    return frames


def _verify_size(units: str, size: int, most: int | None) -> None:
    if most is not None and size > most:
        raise TooLongError(f"a message of {size} {units}, where at most {most} are read")


class LocalReplies(asyncio.Queue[list[Any]]):
    """Batches of replies of this process to itself; they overtake a read that waits for the network."""

    _reading: asyncio.Future[Any] | None = None

    async def race(self, read: Callable[[], Awaitable[Any]]) -> Any:
        """Return the local replies or the result of `read`, whichever comes first."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(read())
        local = asyncio.ensure_future(self.get())
        try:
            await asyncio.wait({self._reading, local}, return_when=asyncio.FIRST_COMPLETED)
            if local.done():
                return local.result()
        finally:
            local.cancel()
        reading, self._reading = self._reading, None
        return reading.result()


_NOTHING: Final = object()  # stands for a message of which nothing is left
_OUTCOMES: Final = frozenset({"task-erred", "task-finished"})
_OF_AN_OUTCOME: Final = arguments("key:key run_id:integer stimulus_id:text")
_WAITS_FOR_KEY: Final = frozenset({"queue_put", "variable_set"})
_LONGEST_GREETING: Final = 1 << 16
"""Most bytes of a greeting: Dask keeps it as long as the connection lives, and its own has a few hundred."""
LONGEST_OF_A_WORKER: Final = 1 << 27
"""Bytes of a worker's call or batch of messages: twice the limit of one message's values (`values`)."""
LONGEST: Final = int(tcp.MAX_BUFFER_SIZE)
"""Bytes of a client's message, which may contain a graph or data, or of a reply: half of the memory, as in Dask."""
_NANNY_STARTS: Final = 600.0
"""Seconds for a nanny to install its plugins and start its worker; until it has, no nanny plugin is added."""


class PkiTLS(tcp.TLS):
    """A TLS comm that enforces the rules of its conversation; `bind` is called before the first message.

    It reads and decodes in two steps, so that the decoder can be chosen.
    """

    conversation: Conversation
    owner: Any = None
    """The server whose listener accepted the connection; None if we dialled."""
    dialled_under: ssl.SSLContext | None = None
    """The TLS context, with the credential and the CAs, that we dialled with; None if a listener accepted."""
    _greeting_read = False
    _greeting_written = False
    _sent_newer_trust = False
    _registered = False
    _registered_locally = False
    _late_nanny: asyncio.TimerHandle | None = None

    def bind(self, conversation: Conversation, enforcement: Enforcement) -> None:
        """Put the connection under a conversation and an Enforcement."""
        self.conversation = conversation
        self._enforcement = enforcement
        self._local_replies = LocalReplies()
        self.over = asyncio.Event()  # set once Dask's server has seen that the connection has ended
        if conversation.no_pickle:
            # Otherwise Dask unpickles the exception in a refused reply (distributed.core.send_recv).
            self.deserialize = False

    def handshake_info(self) -> dict[str, Any]:
        """Extend Dask's greeting by our trust epoch and, on a scheduler, its mode and code."""
        info = {**super().handshake_info(), EPOCH: self._enforcement.trust.epoch}
        if self.conversation.ours.role is Role.SCHEDULER:
            info[MODE] = self._enforcement.mode.value
            info[CODE] = SEALED if self._enforcement.sealed else STOCK
        return info

    def abort_soon(self) -> None:
        """Abort in the event loop, from any thread."""
        if (stream := self.stream) is not None:  # the event loop may set it to None meanwhile
            stream.io_loop.add_callback(self.abort)

    def send_soon(self, message: Mapping[str, Any]) -> None:
        """Send a message in the stream, from any thread, if the other side runs daskpki."""
        if (stream := self.stream) is not None and self.conversation.streaming and EPOCH in self.remote_info:
            stream.io_loop.add_callback(self._send, message)

    async def _send(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(CommClosedError):
            await super().write([message])

    # --- reading ---------------------------------------------------------------------------------------------------

    async def read_frames(self, most: int | None = None) -> list[memoryview]:
        """Read the next message, undecoded; CommClosedError, also if it has more than `most` bytes."""
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
            self.abort()  # part of a message may have been read, so the connection is useless
            raise

    async def decode_by(self, decode: Any, frames: list[memoryview]) -> Any:
        """Decode by another decoder, in a thread if Dask would use one."""
        if self.allow_offload and OFFLOAD_THRESHOLD and sum(map(len, frames)) > OFFLOAD_THRESHOLD:
            return await offload(decode, frames)
        return decode(frames)

    async def read(self, deserializers: Any = None) -> Any:
        """Read the next allowed message; refused ones are answered, and never returned."""
        try:
            if not self._greeting_read:
                return await self._read_greeting()
            conversation = self.conversation
            if conversation.worker is not None and not self._registered:
                self.abort()  # Dask would keep half of the registration, and go on
                raise CommClosedError("the worker's registration failed")  # noqa: TRY301 - as the peer's own end
            while True:
                if conversation.guarded and conversation.channel is Channel.CLIENT_STREAM:
                    message = await self._local_replies.race(lambda: self._next(deserializers))
                else:
                    message = await self._next(deserializers)
                if (passed := await self._check_inbound(message)) is not _NOTHING:
                    return passed
                # Buffered messages are read without a pause: a peer that sends only refused messages, faster than they
                # are checked, would block all other connections.
                await asyncio.sleep(0)
        except CommClosedError:
            self._leave()
            raise

    def _leave(self) -> None:
        """Release the registrations of a closed connection, after Dask has handled its end."""
        if self._late_nanny is not None:
            self._late_nanny.cancel()
        self._enforcement.registrations.release(self.conversation)
        asyncio.get_running_loop().call_soon(self.over.set)
        if self.owner is not None and self.conversation.worker is not None:
            # In the next turn of the event loop: after Dask's own end of a worker's stream.
            self.owner.loop.add_callback(address_claims.clear, self._enforcement, self.owner, self.conversation.worker)

    async def _read_greeting(self) -> Any:
        try:
            message = await self.decode_by(no_pickle.decode, await self.read_frames(_LONGEST_GREETING))
        except no_pickle.UnsafeMessageError as error:
            self.abort()
            raise CommClosedError(f"the greeting contains {error}") from error
        self._greeting_read = True
        if isinstance(message, dict):
            self.conversation.use_mode(message.get(MODE))
        if (reason := reason_of(message)) is None:
            return message
        self.abort()
        if self.dialled_under and self.dialled_under is not self._enforcement.client_context():
            # A newer credential may be accepted.
            raise CommClosedError(f"{reason}; credential or trust have changed since, so Dask may try again")
        if self.conversation.ours.role is Role.WORKER and self.conversation.peer.identity.role is Role.SCHEDULER:
            raise NotTrustedError(reason)  # a worker retries any OSError for ever
        raise FatalCommClosedError(reason)

    async def _next(self, deserializers: Any) -> Any:
        conversation = self.conversation
        most = None  # no limit, except on a scheduler, and on a nanny that its worker calls
        if conversation.bounded:
            most = LONGEST_OF_A_WORKER
        elif conversation.ours.role is Role.SCHEDULER:
            most = LONGEST
        try:
            frames = await self.read_frames(most)
        except CommClosedError as error:
            if isinstance(error.__cause__, TooLongError):
                self._log(str(error.__cause__), Reason.SIZE)
            raise
        if not conversation.no_pickle:
            try:  # as Dask does, which may unpickle
                return await from_frames(
                    frames, deserialize=self.deserialize, deserializers=deserializers, allow_offload=self.allow_offload
                )
            except EOFError:
                self.abort()
                raise CommClosedError("aborted stream on truncated data") from None
        try:
            decode = partial(no_pickle.decode, keeps_pickles=conversation.keeps_pickles)
            return await self.decode_by(decode, frames)
        except no_pickle.UnsafeMessageError as error:
            return detached(error)

    # --- judging what was read -------------------------------------------------------------------------------------

    async def _check_inbound(self, message: Any) -> Any:
        conversation = self.conversation
        if isinstance(message, no_pickle.UnsafeMessageError):
            return await self._refuse_pickle(message)
        if conversation.streaming and (conversation.server or conversation.channel is Channel.WORKER_STREAM):
            return await self._check_inbound_stream(message)
        if conversation.server and not conversation.streaming:
            return await self._check_inbound_call(message)
        if conversation.channel is Channel.CLIENT_STREAM and isinstance(message, (list, tuple)):
            return self._without_trust(message)
        if conversation.no_pickle and conversation.asked in UNPICKLED:
            return from_text(message)
        return message

    async def _refuse_pickle(self, error: no_pickle.UnsafeMessageError) -> Any:
        reason = f"the message contains {error}, and nothing that a worker's certificate sends is unpickled here"
        if self.conversation.keeps_pickles:
            reason = f"the message contains {error}"
        self._log(reason, Reason.PICKLE)
        if self.conversation.server and not self.conversation.streaming:
            await self._answer(answer_call(None, reason))
            return _NOTHING
        self.abort()
        raise CommClosedError(reason)

    async def _check_inbound_call(self, message: Any) -> Any:
        if (refusal := await self._refusal_of_call(message)) is not None:
            self._log(str(refusal))
            await self._answer(answer_call(message, self._with_names(refusal)))
            return _NOTHING
        if trust_updates.is_trust_message(message):
            error = trust_updates.consume_trust(self._enforcement, message, self.conversation.peer)
            if isinstance(error, trust_updates.TooManyRefusedError):
                await asyncio.sleep(error.wait)  # this connection's next message is not read meanwhile
            await self._answer(trust_updates.reply_trust(self._enforcement, error))
            return _NOTHING
        return message

    async def _refusal_of_call(self, message: Any) -> OperationRefusedError | None:
        """Judge a call; a contested address is settled first."""
        socket = None if self.stream is None else self.stream.socket  # None, too, once the peer has closed
        registers = isinstance(message, dict) and message.get("op") in tuple(STREAM_AFTER)
        if registers and socket is not None and is_crowded(socket.fileno()):
            reason = "this scheduler has few descriptors left; raise its limit (ulimit -n), or revoke their users"
            return OperationRefusedError(message["op"], reason)
        refusal = _refusal(self.conversation.check_inbound_call, message)
        for _claim in ("address", "nanny"):  # either may be contested
            if not isinstance(refusal, ContestedAddressError):
                break
            claimant = self.conversation.peer.identity
            if not await address_claims.settle(self._enforcement, self.owner, refusal.address, claimant):
                break
            refusal = _refusal(self.conversation.check_inbound_call, message)
        if refusal is None and not self.conversation.may_submit and isinstance(message, dict):
            refusal = self._refusal_of_key(message)
        if refusal is None and self.conversation.starts_nanny:
            self._late_nanny = asyncio.get_running_loop().call_later(_NANNY_STARTS, self._end_late_nanny)
        return refusal

    def _refusal_of_key(self, message: Mapping[str, Any]) -> OperationRefusedError | None:
        """Refuse a future in a queue or variable if this scheduler does not know its task: its reader would wait.

        An unknown task was submitted by a worker's client, which may not submit, and was refused. The sender cannot
        check this: the submission may still be in Dask's batch when the future is already sent.
        """
        operation, key = message.get("op"), message.get("key")
        if operation not in _WAITS_FOR_KEY or key is None or key in self.owner.tasks:
            return None
        reason = f"{operation!r} of the future {shown(key)}, whose submission was refused"
        return OperationRefusedError(operation, reason)

    def _end_late_nanny(self) -> None:
        if self.conversation.starts_nanny and not self.closed():
            self._log(f"its nanny has not started within {_NANNY_STARTS:.0f} s, and nanny plugins wait for it")
            self.abort()

    def _without_trust(self, messages: Sequence[Any]) -> Any:
        """Return a stream's messages except trust documents, which are consumed."""
        kept = [each for each in messages if not trust_updates.is_trust_message(each)]
        for message in filter(trust_updates.is_trust_message, messages if len(kept) < len(messages) else ()):
            trust_updates.consume_trust(self._enforcement, message, self.conversation.peer)
        return kept if kept or not messages else _NOTHING

    async def _check_inbound_stream(self, message: Any) -> Any:
        if self.conversation.server is None and isinstance(message, dict) and "status" in message:
            return message  # the reply to register-worker
        if not isinstance(message, (list, tuple)):
            self._log(reason := "a message of a stream is a list")
            self.abort()
            raise CommClosedError(reason)
        answers: list[Any] = []
        passed = [self._check_inbound_streamed(each, answers) for each in message]
        kept = [each for each in passed if each is not _NOTHING]
        await self._answer(answers)
        return self._without_trust(kept) if kept or not message else _NOTHING

    def _check_inbound_streamed(self, message: Any, answers: list[Any]) -> Any:
        """Return the message, a replacement for Dask, or _NOTHING."""
        if (refusal := _refusal(self.conversation.check_inbound_stream, message)) is None:
            return message
        self._log(str(refusal))
        if isinstance(message, dict) and self.conversation.channel is Channel.CLIENT_STREAM:
            answers.extend(answer_stream(message, self._with_names(refusal)))
        if self.conversation.channel is Channel.WORKER_STREAM and _is_outcome(message):  # or its client waits for ever
            return failed_task(message, self._with_names(refusal))
        return _NOTHING

    async def _answer(self, answer: Any) -> None:
        if answer:
            await super().write(answer)

    def _with_names(self, refusal: OperationRefusedError) -> str:
        return f"{self.conversation.ours.uri} refused {self.conversation.peer.identity.uri}: {refusal}"

    def _log(self, detail: str, reason: Reason = Reason.OPERATION) -> None:
        uri = self.conversation.peer.identity.uri
        self._enforcement.audit.record(REFUSED, peer=uri, address=self.peer_address, detail=detail, reason=reason)

    # --- writing ---------------------------------------------------------------------------------------------------

    async def write(self, msg: Any, serializers: Any = None, on_error: str = "message") -> Any:
        """Send a message if the rules allow it; PermissionError for a refused call, before a byte is sent."""
        if not self._greeting_written:
            self._greeting_written = True
        elif (msg := self._check_outbound(msg)) is _NOTHING:
            return 0
        written = await super().write(msg, serializers=serializers, on_error=on_error)
        if self.conversation.worker is not None and isinstance(msg, dict) and msg.get("status") == "OK":
            self._registered = True
        if not self._sent_newer_trust and self.conversation.server and self.conversation.streaming:
            self._sent_newer_trust = True
            self._send_newer_trust()
        return written

    def _send_newer_trust(self) -> None:
        """After the reply to a registration, send our trust document to a peer with an older one."""
        manager = self._enforcement.manager
        signed = manager.signed if manager is not None else None
        theirs = self.remote_info.get(EPOCH)
        if manager is not None and signed is not None and isinstance(theirs, int) and theirs < manager.document.epoch:
            self.send_soon(trust_updates.message(signed))

    def _check_outbound(self, message: Any) -> Any:
        if self.conversation.server:
            return self._check_outbound_reply(message)
        if self.conversation.streaming:
            return self._check_outbound_stream(message)
        return self._check_outbound_call(message)

    def _check_outbound_call(self, message: Any) -> Any:
        if isinstance(message, dict) and "op" in message:
            refusal = _refusal(self.conversation.check_outbound_call, message)
            if refusal is not None and self.conversation.guarded:
                message = self._convert_call(message)
                refusal = _refusal(self.conversation.check_outbound_call, message)
            if refusal is not None and message["op"] == "register-client" and self.conversation.guarded:
                return self._register_locally(refusal)
            if refusal is not None:
                # A worker retries any OSError, such as PermissionError, of its registration for ever.
                raise refusal if message["op"] == "register-worker" else PermissionError(str(refusal))
        return sendable(message) if self.conversation.guarded else message

    def _register_locally(self, refusal: OperationRefusedError) -> Any:
        """Let a task's client begin its stream without a scheduler at the other end; its requests there fail.

        Dask opens a coroutine's client in the background. An error there would be lost, and the coroutine, like each
        later task of this worker that takes a client, would wait for ever.
        """
        self._log(str(refusal))
        self._registered_locally = True
        self.conversation.begin_local_stream()
        self._local_replies.put_nowait([{"op": "stream-start"}])
        return _NOTHING

    def _convert_call(self, message: Any) -> Any:
        """Convert a worker's call: numpy's numbers to Python's, and its user's metrics to the allowed size."""
        sent, refused = try_sendable(message)
        if refused:
            return message
        return fitted(sent) if sent["op"] in REPORTS else sent

    def _check_outbound_reply(self, message: Any) -> Any:
        if not self.conversation.guarded:
            return message
        sent, refused = try_sendable(message)
        return answer_call({}, refused) if refused else sent

    def _check_outbound_stream(self, messages: Any) -> Any:
        conversation = self.conversation
        if not conversation.guarded and conversation.may_send_all(messages):
            return messages
        as_they_are = not conversation.guarded or travels(messages)
        checked = [self._check_outbound_streamed(each, as_it_is=as_they_are) for each in messages]
        kept = [each for each in checked if each is not _NOTHING]
        return kept if kept or not messages else _NOTHING

    def _check_outbound_streamed(self, message: Any, *, as_it_is: bool) -> Any:
        """Return the message to send, or _NOTHING; `as_it_is` if nothing in it would be unpickled at the other end."""
        refusal, unsendable = _refusal(self.conversation.check_outbound, message), ""
        if self.conversation.guarded and (refusal is not None or not as_it_is):
            sent, unsendable = try_sendable(message)
            if not unsendable:
                message, refusal = sent, _refusal(self.conversation.check_outbound, sent)
        if self._registered_locally and (refusal is None or message["op"] in WORKER_CLIENT_STREAM):
            return _NOTHING  # without a line in the log for each heartbeat
        if refusal is None and not unsendable:
            return message
        reason = unsendable if unsendable and (refusal is None or _is_outcome(message)) else str(refusal)
        self._log(reason)
        if refusal is not None and (replies := answer_stream(message, reason)):
            self._local_replies.put_nowait(replies)
        return failed_task(message, reason) if _is_outcome(message) else _NOTHING


def _is_outcome(message: Any) -> bool:
    """True for the report of a task's end, in a form that can be replaced by another end."""
    if not isinstance(message, dict) or message.get("op") not in _OUTCOMES:
        return False
    return _OF_AN_OUTCOME.keys() <= message.keys() and misfit(_OF_AN_OUTCOME, message) is None


def _refusal(judge: Callable[[Any], None], message: Any) -> OperationRefusedError | None:
    """Return the refusal of `judge`, or None.

    The caller replies outside of `except`: Dask would add the traceback in flight, and pickling one searches the files
    of all modules, which blocks the event loop for a tenth of a second the first time.
    """
    try:
        judge(message)
    except OperationRefusedError as refusal:
        return detached(refusal)
    return None


def announced_modes(received: bytes) -> tuple[WorkerClients | None, str | None]:
    """Read a scheduler's mode for worker certificates and its code (sealed, stock) from its greeting; None if missing.

    `received` is a whole message as `TCP.write` of distributed sends it; nothing of it is unpickled.
    """
    try:
        greeting = no_pickle.decode(unpack_frames(memoryview(received)[_LENGTH.size :]))
    except (*_MALFORMED, NotTrustedError):
        return None, None
    said = (greeting.get(MODE), greeting.get(CODE)) if isinstance(greeting, dict) else (None, None)
    mode, code = (each if isinstance(each, str) else None for each in said)
    return WorkerClients(mode) if mode in set(WorkerClients) else None, code if code in (STOCK, SEALED) else None
