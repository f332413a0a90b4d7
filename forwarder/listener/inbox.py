"""What a client has sent and nobody has read yet.

The protocol feeds it as octets arrive; the connection's task takes lines or pieces out of it. It holds about 64 KiB
at most (and one read of the event loop): above that the transport is paused, so that a client that sends without
reading is held back by TCP. Only one task may read.

Reading raises `Ended` when the client is gone, `TimedOut`, `LineTooLong`, or `Interrupted` when the server woke it up.
What arrived before the end of the input can still be read.
"""

import asyncio
from typing import Protocol

_HIGH_WATER = 1 << 16
_SKIPPABLE = 1 << 16
_PIECE = 1 << 15


class Ended(Exception):  # noqa: N818 - an event of the protocol
    """The client closed the connection, or it was lost."""


class TimedOut(Exception):  # noqa: N818 - an event of the protocol
    """The client sent nothing useful in time."""


class Interrupted(Exception):  # noqa: N818 - an event of the protocol
    """The server has something to say first."""


class LineTooLong(Exception):  # noqa: N818 - an event of the protocol
    """A line over the limit came. It has been passed over if `whole`; otherwise its end is not in sight."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__("a line is too long")
        self.whole = whole


class Pausable(Protocol):
    """The part of a transport that is needed here."""

    def pause_reading(self) -> None:
        """Stop reading from the client."""
        ...

    def resume_reading(self) -> None:
        """Go on reading."""
        ...

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        ...


class Inbox:
    """Octets of one client, in order."""

    __slots__ = (
        "_buffer",
        "_ended",
        "_interrupted",
        "_loop",
        "_paused",
        "_searched",
        "_transport",
        "_turns",
        "_waiter",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: Pausable, turns: asyncio.Lock | None = None) -> None:
        """`turns` is what all inboxes of a loop have in common, so that one piece is given in each of its rounds."""
        self._loop = loop
        self._turns = turns or asyncio.Lock()
        self._transport = transport
        self._buffer = bytearray()
        self._searched = 0  # octets at the front of the buffer that hold no LF
        self._paused = False
        self._ended = False
        self._interrupted = False
        self._waiter: asyncio.Future[bool] | None = None

    # Fed by the protocol.

    def feed(self, octets: bytes) -> None:
        """Take what arrived."""
        self._buffer += octets
        if len(self._buffer) > _HIGH_WATER and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def end(self) -> None:
        """Note that nothing more will come."""
        self._ended = True
        self._wake()

    def interrupt(self) -> None:
        """Make the read that waits now, or the next that would wait, raise `Interrupted`, once."""
        self._interrupted = True
        self._wake()

    # Read by the connection's task.

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._ended

    @property
    def has_line(self) -> bool:
        """Whether a whole line is here already."""
        return self._find_line() >= 0

    async def line(self, limit: int, timeout: float) -> bytes:
        """Give the next line with its LF, at most `limit` octets long; the time is for the whole line."""
        deadline = self._loop.time() + timeout
        while (end := self._find_line()) < 0 and len(self._buffer) <= limit:
            await self._wait(deadline)
        if 0 <= end < limit:
            return self._take(end + 1)
        await self._skip_line(deadline)
        raise LineTooLong(whole=True)

    async def piece(self, timeout: float) -> bytes:
        """Give some of what is here, at least one octet and at most 32 KiB; the time is for the first octet to come.

        Whoever has commands gets a turn between any two pieces, of all clients, so that many large messages at once
        keep nobody waiting.
        """
        deadline = self._loop.time() + timeout
        while not self._buffer:
            await self._wait(deadline)
        async with self._turns:
            await asyncio.sleep(0)
            return self._take(min(len(self._buffer), _PIECE))

    async def exactly(self, count: int, timeout: float) -> bytes:
        """Give `count` octets."""
        deadline = self._loop.time() + timeout
        while len(self._buffer) < count:
            await self._wait(deadline)
        return self._take(count)

    async def stays_silent(self, delay: float) -> bool:
        """Wait that long; say whether nothing came. An end of the input counts as silence."""
        deadline = self._loop.time() + delay
        try:
            while not self._buffer and delay > 0:
                await self._wait(deadline)
        except (TimedOut, Ended):
            pass
        return not self._buffer

    def push_back(self, octets: bytes) -> None:
        """Put octets back in front of what is here."""
        self._buffer[:0] = octets
        self._searched = 0

    def discard(self) -> None:
        """Throw away what is here."""
        self._take(len(self._buffer))

    def switch(self, transport: Pausable) -> None:
        """Pause and resume another transport from now on; what is here came through it already."""
        self._resume()
        self._transport = transport

    def _find_line(self) -> int:
        end = self._buffer.find(b"\n", self._searched)
        self._searched = len(self._buffer) if end < 0 else end
        return end

    def _take(self, count: int) -> bytes:
        with memoryview(self._buffer) as view:
            octets = bytes(view[:count])
        del self._buffer[:count]
        self._searched = 0
        if len(self._buffer) <= _HIGH_WATER:
            self._resume()
        return octets

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():  # uvloop raises otherwise
                self._transport.resume_reading()

    async def _skip_line(self, deadline: float) -> None:
        skipped = 0
        while (end := self._find_line()) < 0:
            skipped += len(self._take(len(self._buffer)))
            if skipped > _SKIPPABLE:
                raise LineTooLong(whole=False)
            await self._wait(deadline)
        self._take(end + 1)

    async def _wait(self, deadline: float) -> None:
        """Wait until something has changed."""
        self._obey_interrupt()
        if self._ended:
            raise Ended
        assert self._waiter is None, "two tasks read from one client"
        self._waiter = self._loop.create_future()
        timer = self._loop.call_at(deadline, self._wake, False)
        try:
            if not await self._waiter:
                raise TimedOut
        finally:
            timer.cancel()
            self._waiter = None
        self._obey_interrupt()

    def _obey_interrupt(self) -> None:
        if self._interrupted:
            self._interrupted = False
            raise Interrupted

    def _wake(self, in_time: bool = True) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(in_time)
