"""Calls between two processes of ours, over a socket pair.

    channel = Channel(lost)
    channel.serve(TAKE, handler)              the other side may call this one
    await channel.open(sock)
    allowed = await channel.call(TAKE, ("key", 20, 60))
    channel.tell(LEAVE, "192.0.2.1")          without an answer

A frame is ten octets (length, kind, method, number) and a body in msgpack, typed by its `Method`. Both sides call at
any time and any number of times at once; handlers begin in the order in which the other side called and told. Frames
of one turn of the loop are written together.

What can fail: `call` raises `RpcError` when the handler failed (what it raised is reported where it happened), and
`ChannelLost` when the other side has gone. A failing handler never ends the channel; octets that are no frame do, since
they mean that one side is broken. The two sides run the same version and trust each other: only the size of a frame is
bounded. Left out on purpose: reconnecting (who loses the channel has lost the process) and time-outs, which are the
caller's; a call that is cancelled is cancelled on the other side too.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Generic, TypeVar, cast

import msgspec

MAX_FRAME = 256 << 20  # octets: the rules, 64 MB at most, travel in one

_HEADER = struct.Struct("!IBBI")
_NUMBERS = 1 << 32
_GONE = "the other process has ended"

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class RpcError(Exception):
    """The other side could not do what it was asked; the text says why."""


class ChannelLost(RpcError):  # noqa: N818 - the field's word for it
    """The other side has gone."""


class BrokenFrame(Exception):  # noqa: N818 - it says what is the matter
    """What came is no frame."""


class Kind(IntEnum):
    """What a frame is."""

    CALL = 1
    TELL = 2
    ANSWER = 3
    ERROR = 4  # the answer is a text
    CANCEL = 5


_KINDS = {kind.value: kind for kind in Kind}


class Method(Generic[Question, Answer]):
    """A method by its code (1 to 255), with the types of its question and its answer, as msgspec knows them."""

    def __init__(self, code: int, question: Any, answer: Any = None) -> None:
        self.code = code
        self.question: msgspec.msgpack.Decoder[Question] = msgspec.msgpack.Decoder(question)
        self.answer: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(answer)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it came."""

    kind: Kind
    code: int
    number: int
    body: bytes


class FrameReader:
    """Puts frames together again, however their octets were cut."""

    def __init__(self, largest: int = MAX_FRAME) -> None:
        self._largest = largest
        self._octets = bytearray()
        self._needed = _HEADER.size  # before that many octets are here there is nothing to do

    def feed(self, octets: bytes) -> list[Frame]:
        """Give the frames that are complete now; raise `BrokenFrame`."""
        self._octets += octets
        if len(self._octets) < self._needed:
            return []
        frames: list[Frame] = []
        start = 0
        while len(self._octets) - start >= _HEADER.size:
            length, kind, code, number = _HEADER.unpack_from(self._octets, start)
            if length > self._largest or kind not in _KINDS:
                raise BrokenFrame(f"a frame of kind {kind} with {length} octets")
            body = start + _HEADER.size
            self._needed = _HEADER.size + length
            if body + length > len(self._octets):
                break
            frames.append(Frame(_KINDS[kind], code, number, bytes(self._octets[body : body + length])))
            start = body + length
            self._needed = _HEADER.size
        del self._octets[:start]
        return frames


@dataclass(slots=True)
class _Asked:
    """A call that waits for its answer."""

    method: Method[Any, Any]
    answer: asyncio.Future[Any]
    unclaimed: Callable[[Any], None] | None


Handler = Callable[[Any], Awaitable[Any]]
Listener = Callable[[Any], None]


def _ignore(*_: object) -> None:
    """Leave it unreported."""


class Channel(asyncio.Protocol):
    """One end of a socket pair. `lost` is called once, when it has ended, in whatever way.

    `report` is told of what a handler raised, and of the method's code.
    """

    def __init__(self, lost: Callable[[], None], report: Callable[[BaseException, int], None] = _ignore) -> None:
        self._lost = lost
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._encode = msgspec.msgpack.Encoder().encode
        self._handlers: dict[int, tuple[Method[Any, Any], Handler]] = {}
        self._listeners: dict[int, tuple[Method[Any, Any], Listener]] = {}
        self._asked: dict[int, _Asked] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._outgoing: list[bytes] = []
        self._number = 0
        self._wire: asyncio.Transport | None = None

    def serve(self, method: Method[Question, Answer], handler: Callable[[Question], Awaitable[Answer]]) -> None:
        """Let the other side call. The handler is cancelled when the caller is, and when the channel ends."""
        self._handlers[method.code] = (method, handler)

    def hear(self, method: Method[Question, Any], listener: Callable[[Question], None]) -> None:
        """Let the other side tell."""
        self._listeners[method.code] = (method, listener)

    async def open(self, wire: socket.socket) -> None:
        """Begin, on one end of a socket pair, which is the channel's from now on."""
        wire.setblocking(False)
        await self._loop.create_unix_connection(lambda: self, sock=wire)

    async def call(
        self,
        method: Method[Question, Answer],
        question: Question,
        unclaimed: Callable[[Answer], None] | None = None,
    ) -> Answer:
        """Ask and wait for the answer; raise `RpcError`.

        When this is cancelled, the handler may have answered already: `unclaimed` gets that answer, to undo it.
        """
        if self._wire is None:
            raise ChannelLost(_GONE)
        body = self._written(question)
        self._number = number = (self._number + 1) % _NUMBERS
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._asked[number] = _Asked(method, answer, unclaimed)
        self._send(Kind.CALL, method.code, number, body)
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.cancelled():
                self._send(Kind.CANCEL, method.code, number, b"")
            elif unclaimed is not None and answer.exception() is None:
                unclaimed(answer.result())
            raise

    def tell(self, method: Method[Question, Any], question: Question) -> None:
        """Say something; lost silently where the other side has gone."""
        if self._wire is not None:
            self._send(Kind.TELL, method.code, 0, self._written(question))

    def close(self) -> None:
        """End the channel, after what is waiting has been written."""
        if self._wire is not None:
            self._flush()
            self._wire.close()

    async def finish(self, timeout: float) -> None:
        """Answer what is being asked, for so many seconds, and end the channel."""
        if running := list(self._running.values()):
            await asyncio.wait(running, timeout=timeout)
        self.close()

    # Events of the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._wire = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take frames."""
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except BrokenFrame as error:
            self._report(error, 0)
            if self._wire is not None:
                self._wire.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell everybody who waits."""
        self._wire = None
        self._outgoing.clear()
        for asked in self._asked.values():
            if not asked.answer.done():
                asked.answer.set_exception(ChannelLost(_GONE))
        self._asked.clear()
        for task in list(self._running.values()):
            task.cancel()
        self._lost()

    # Frames.

    def _written(self, value: object) -> bytes:
        body = self._encode(value)
        if len(body) > MAX_FRAME:
            raise RpcError(f"a frame of {len(body)} octets")
        return body

    def _send(self, kind: Kind, code: int, number: int, body: bytes) -> None:
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(_HEADER.pack(len(body), kind, code, number) + body)

    def _flush(self) -> None:
        if self._outgoing and self._wire is not None:
            octets = b"".join(self._outgoing)
            self._outgoing.clear()
            self._wire.write(octets)

    def _take(self, frame: Frame) -> None:
        if frame.kind is Kind.CALL:
            self._begin(frame)
        elif frame.kind is Kind.TELL:
            # By way of the loop, as a call begins: so both keep their order.
            self._loop.call_soon(self._hear, frame)
        elif frame.kind is Kind.CANCEL:
            if running := self._running.get(frame.number):
                self._loop.call_soon(running.cancel)  # once it has begun, for it is what answers
        elif asked := self._asked.pop(frame.number, None):
            self._settle(asked, frame)

    def _begin(self, frame: Frame) -> None:
        self._running[frame.number] = self._loop.create_task(self._run(frame.code, frame.number, frame.body))

    async def _run(self, code: int, number: int, body: bytes) -> None:
        """Answer a call with what its handler comes to."""
        try:
            method, handler = self._handlers[code]
            answer = self._written(await handler(method.question.decode(body)))
        except asyncio.CancelledError:
            self._fail(code, number, "cancelled")
        except Exception as error:  # whatever a handler does costs its caller an answer, and nobody else anything
            self._report(error, code)
            self._fail(code, number, f"{type(error).__name__}: {error}")
        else:
            if self._wire is not None:
                self._send(Kind.ANSWER, code, number, answer)
        finally:
            del self._running[number]

    def _fail(self, code: int, number: int, text: str) -> None:
        if self._wire is not None:
            self._send(Kind.ERROR, code, number, self._encode(text.encode("utf-8", "replace")))

    def _hear(self, frame: Frame) -> None:
        try:
            method, listener = self._listeners[frame.code]
            listener(method.question.decode(frame.body))
        except Exception as error:  # as above, but nobody waits for an answer
            self._report(error, frame.code)

    def _settle(self, asked: _Asked, frame: Frame) -> None:
        gone = asked.answer.done()  # cancelled, or lost
        if frame.kind is Kind.ERROR:
            if not gone:
                text = msgspec.msgpack.decode(frame.body, type=bytes).decode()
                asked.answer.set_exception(RpcError(text))
            return
        try:
            answer = asked.method.answer.decode(frame.body)
        except msgspec.MsgspecError as error:
            self._report(error, frame.code)
            if not gone:
                asked.answer.set_exception(RpcError(f"{type(error).__name__}: {error}"))
            return
        if not gone:
            asked.answer.set_result(answer)
        elif asked.unclaimed is not None:
            asked.unclaimed(answer)
