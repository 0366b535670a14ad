"""Dask's `tls` comm with daskpki's decisions in it: who is at the other end, what it may say, and what may be told.

One choke point for calls, streams, replies and the greeting, in both directions. The decisions themselves are in
`conversation` and `policy`; here they are applied to a live connection, and a refusal is answered so that it reads as
one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from distributed.comm.core import CommClosedError, FatalCommClosedError

from daskpki.cluster import gate, news
from daskpki.cluster.audit import REFUSED
from daskpki.cluster.conversation import Conversation
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.frames import FramedTLS
from daskpki.cluster.inbox import Inbox
from daskpki.cluster.news import EPOCH, MODE
from daskpki.cluster.policy import Channel, OperationRefusedError
from daskpki.cluster.refusal import answer_call, answer_locally, answer_stream, reason_of
from daskpki.cluster.replies import UNPICKLED, from_text
from daskpki.cluster.sender import failed_task, sendable, travels
from daskpki.errors import NotTrustedError
from daskpki.identity import Role

_PENALTY: Final = 0.1
"""Seconds that a peer waits for the answer to a trust document beyond its limit, so that it cannot fill the loop."""
_NOTHING: Final = object()  # in place of a message of which nothing is left


class PkiTLS(FramedTLS):
    """A TLS comm that holds its conversation to the rules. `bind` comes before the first message."""

    conversation: Conversation
    _greeting_read = False
    _greeting_written = False
    _up_to_date = False

    def bind(self, conversation: Conversation, enforcement: Enforcement) -> None:
        """Say between whom this connection is, and under which credential."""
        self.conversation = conversation
        self._enforcement = enforcement
        self._inbox = Inbox()
        if conversation.gated:
            # Otherwise Dask unpickles the exception in a refused reply (distributed.core.send_recv).
            self.deserialize = False

    def handshake_info(self) -> dict[str, Any]:
        """Dask's greeting, and in it that daskpki speaks here, and by which trust it goes."""
        info = {**super().handshake_info(), EPOCH: self._enforcement.trust.epoch}
        if self.conversation.ours.role is Role.SCHEDULER:
            info[MODE] = self._enforcement.mode.value
        return info

    def abort_soon(self) -> None:
        """See enforcement.Connection."""
        if self.stream is not None:
            self.stream.io_loop.add_callback(self.abort)

    def tell_soon(self, message: Mapping[str, Any]) -> None:
        """See enforcement.Connection."""
        if self.stream is not None and self.conversation.streaming and EPOCH in self.remote_info:
            self.stream.io_loop.add_callback(self._tell, message)

    async def _tell(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(CommClosedError):
            await super().write([message])

    # --- reading ---------------------------------------------------------------------------------------------------

    async def read(self, deserializers: Any = None) -> Any:
        """The next message that the rules let through; what they refuse is answered, and never returned."""
        if not self._greeting_read:
            return await self._read_greeting()
        while True:
            message = await self._incoming(deserializers)
            if (heard := await self._hear(message)) is not _NOTHING:
                return heard
            # What is buffered is read without a pause: a peer that sends nothing but what is kept from Dask would
            # hold up everybody else's messages for as long as it sends faster than it is judged.
            await asyncio.sleep(0)

    async def _incoming(self, deserializers: Any) -> Any:
        conversation = self.conversation
        if conversation.guarded and conversation.channel is Channel.CLIENT_STREAM:
            return await self._inbox.race(lambda: self._next(deserializers))
        return await self._next(deserializers)

    async def _read_greeting(self) -> Any:
        try:
            message = await self.decode_by(gate.decode, await self.read_frames())
        except gate.GateError as error:
            self.abort()
            raise CommClosedError(f"the greeting holds {error}") from error
        self._greeting_read = True
        if isinstance(message, dict):
            self.conversation.go_by(message.get(MODE))
        if (reason := reason_of(message)) is None:
            return message
        self.abort()
        if self.conversation.ours.role is Role.WORKER and self.conversation.peer.identity.role is Role.SCHEDULER:
            raise NotTrustedError(reason)  # a worker retries any OSError for ever
        raise FatalCommClosedError(reason)

    async def _next(self, deserializers: Any) -> Any:
        frames = await self.read_frames()
        if not self.conversation.gated:
            return await self.decode_stock(frames, deserializers)
        try:
            return await self.decode_by(gate.decode, frames)
        except gate.GateError as error:
            return error

    # --- judging what was read -------------------------------------------------------------------------------------

    async def _hear(self, message: Any) -> Any:
        conversation = self.conversation
        if isinstance(message, gate.GateError):
            return await self._refuse_pickle(message)
        if conversation.streaming and (conversation.server or conversation.channel is Channel.WORKER_STREAM):
            return await self._hear_stream(message)
        if conversation.server and not conversation.streaming:
            return await self._hear_call(message)
        if conversation.channel is Channel.CLIENT_STREAM and isinstance(message, (list, tuple)):
            return self._without_news(message)
        if conversation.gated and conversation.asked in UNPICKLED:
            return from_text(message)
        return message

    async def _refuse_pickle(self, error: gate.GateError) -> Any:
        reason = f"the message holds {error}, and nothing that a worker's certificate sends is unpickled here"
        self._log(reason)
        if self.conversation.server and not self.conversation.streaming:
            await self._answer(answer_call(None, reason))
            return _NOTHING
        self.abort()
        raise CommClosedError(reason)

    async def _hear_call(self, message: Any) -> Any:
        if (refusal := _refusal(self.conversation.hear_call, message)) is not None:
            self._log(str(refusal))
            await self._answer(answer_call(message, self._signed(refusal)))
            return _NOTHING
        if news.is_news(message):
            error = news.take(self._enforcement, message, self.conversation.peer)
            if isinstance(error, news.TooManyRefusedError):
                await asyncio.sleep(_PENALTY)  # this connection's next message is not read meanwhile
            await self._answer(news.answer(self._enforcement, error))
            news.cut_off(self._enforcement, self.conversation.peer, error)
            return _NOTHING
        return message

    def _without_news(self, messages: Sequence[Any]) -> Any:
        """What is left of a stream once we have taken what is meant for us."""
        kept = [each for each in messages if not news.is_news(each)]
        if len(kept) < len(messages):
            self._take_news(each for each in messages if news.is_news(each))
        return kept if kept or not messages else _NOTHING

    def _take_news(self, messages: Iterable[Any]) -> None:
        peer = self.conversation.peer
        for message in messages:
            news.cut_off(self._enforcement, peer, news.take(self._enforcement, message, peer))

    async def _hear_stream(self, message: Any) -> Any:
        if self.conversation.server is None and isinstance(message, dict) and "status" in message:
            return message  # the reply to register-worker
        if not isinstance(message, (list, tuple)):
            self._log(reason := "a message of a stream is a list")
            self.abort()
            raise CommClosedError(reason)
        answers: list[Any] = []
        kept = [each for each in message if self._hear_streamed(each, answers)]
        await self._answer(answers)
        return self._without_news(kept) if kept or not message else _NOTHING

    def _hear_streamed(self, message: Any, answers: list[Any]) -> bool:
        if (refusal := _refusal(self.conversation.hear_streamed, message)) is None:
            return True
        self._log(str(refusal))
        if isinstance(message, dict) and self.conversation.channel is Channel.CLIENT_STREAM:
            answers.extend(answer_stream(message, self._signed(refusal)))
        return False

    async def _answer(self, answer: Any) -> None:
        if answer:
            await super().write(answer)

    def _signed(self, refusal: OperationRefusedError) -> str:
        return f"{self.conversation.ours.uri} refused {self.conversation.peer.identity.uri}: {refusal}"

    def _log(self, reason: str) -> None:
        uri = self.conversation.peer.identity.uri
        self._enforcement.audit.record(REFUSED, peer=uri, address=self.peer_address, detail=reason)

    # --- writing ---------------------------------------------------------------------------------------------------

    async def write(self, msg: Any, serializers: Any = None, on_error: str = "message") -> Any:
        """Send what the rules let us send; PermissionError, before a byte of it leaves, for a call that they do not."""
        if not self._greeting_written:
            self._greeting_written = True
        elif (msg := self._say(msg)) is _NOTHING:
            return 0
        written = await super().write(msg, serializers=serializers, on_error=on_error)
        if not self._up_to_date and self.conversation.server and self.conversation.streaming:
            self._up_to_date = True
            self._bring_up_to_date()
        return written

    def _bring_up_to_date(self) -> None:
        """After the answer to a registration: a peer that goes by an older trust document gets ours."""
        keeper = self._enforcement.keeper
        message = keeper.message() if keeper is not None else None
        theirs = self.remote_info.get(EPOCH)
        if keeper is not None and message is not None and isinstance(theirs, int) and theirs < keeper.epoch:
            self.tell_soon(message)

    def _say(self, message: Any) -> Any:
        if self.conversation.server:
            return self._say_reply(message)
        if self.conversation.streaming:
            return self._say_stream(message)
        return self._say_call(message)

    def _say_call(self, message: Any) -> Any:
        if isinstance(message, dict) and "op" in message:
            try:
                self.conversation.say_call(message)
            except OperationRefusedError as refusal:
                raise self._raisable(refusal) from refusal
        return sendable(message) if self.conversation.guarded else message

    def _raisable(self, refusal: OperationRefusedError) -> Exception:
        """PermissionError; but a worker retries any OSError of its registration for ever."""
        if refusal.operation == "register-worker":
            return refusal
        return PermissionError(str(refusal))

    def _say_reply(self, message: Any) -> Any:
        if not self.conversation.guarded:
            return message
        sent, refused = _sendable(message)
        return answer_call({}, refused) if refused else sent

    def _say_stream(self, messages: Any) -> Any:
        conversation = self.conversation
        if conversation.may_say_all(messages) and (not conversation.guarded or travels(messages)):
            return messages
        kept = [each for each in map(self._say_streamed, messages) if each is not _NOTHING]
        return kept if kept or not messages else _NOTHING

    def _say_streamed(self, message: Any) -> Any:
        try:
            self.conversation.say_streamed(message)
        except OperationRefusedError as refusal:
            self._log(str(refusal))
            self._inbox.put(answer_locally(message, str(refusal)))
            return _NOTHING
        return self._without_pickles(message) if self.conversation.guarded else message

    def _without_pickles(self, message: Any) -> Any:
        sent, refused = _sendable(message)
        if not refused:
            return sent
        self._log(refused)
        return failed_task(message, refused) if message.get("op") == "task-finished" else _NOTHING


def _refusal(judge: Callable[[Any], None], message: Any) -> OperationRefusedError | None:
    """What `judge` has against the message.

    It is answered outside of `except`: Dask would add the traceback in flight, and to pickle one looks through the
    files of all modules, a tenth of a second the first time, in the event loop.
    """
    try:
        judge(message)
    except OperationRefusedError as refusal:
        return refusal
    return None


def _sendable(message: Any) -> tuple[Any, str]:
    """What can be sent of it, or why nothing can: answered outside of `except`, as above."""
    try:
        return sendable(message), ""
    except PermissionError as error:
        return None, str(error)
