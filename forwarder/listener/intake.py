"""The content of one DATA command, from the 354 to the dot.

`receive` gives the `Content`, or the `Reply` that refuses it once the dot has come (a defect, too large, no room):
until then the rest is read and thrown away, so that nothing of a message is ever taken for a command. Memory is
bounded whatever is sent. It raises `Cut` when the client must not go on (too slow, silent, or far beyond the largest
size) and `Ended` when the client went away without a dot, in which case there is no message.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from forwarder.listener.content import NoRoom, Receiver
from forwarder.listener.inbox import Inbox, TimedOut
from forwarder.listener.limits import ListenerLimits
from forwarder.model.message import Content
from forwarder.model.reply import Reply
from forwarder.smtp.inbound import DataScanner

_SILENT = Reply(421, "4.4.2", "Nothing came for too long while the message was being sent", close=True)
_TOO_SLOW = Reply(421, "4.4.2", "The message is being sent too slowly", close=True)


class Cut(Exception):  # noqa: N818 - an event of the protocol
    """The connection ends here, with `reply`."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Intake:
    """Receives messages. `spill` is the directory for large ones, `size` the largest message in octets."""

    limits: ListenerLimits
    spill: Path
    size: int

    async def receive(self, inbox: Inbox, until: float, watch: Callable[[bytes], None]) -> Content | Reply:
        """Read one message; `until` is when the session must end, by the loop's clock.

        `watch` is called with the content as it becomes certain, for as long as it may still be accepted.
        """
        scanner = DataScanner()
        keeper = _Keeper(Receiver(self.spill), self.size)
        pace = _Pace(self.limits, asyncio.get_running_loop().time())
        while not scanner.done:
            octets = await self._piece(inbox, until)
            content = scanner.feed(octets)
            if keeper.keep(content):
                watch(content)
            if not scanner.done:
                self._check(scanner, keeper, pace)
        inbox.push_back(scanner.rest)
        return scanner.refusal() or self._too_long(scanner) or keeper.finish(eight_bit=scanner.eight_bit)

    def _too_long(self, scanner: DataScanner) -> Reply | None:
        most = self.limits.line_length
        if most and scanner.long_line > most:
            return Reply(554, "5.6.0", f"The message has a line of more than {most} octets")
        return None

    async def _piece(self, inbox: Inbox, until: float) -> bytes:
        left = until - asyncio.get_running_loop().time()
        try:
            return await inbox.piece(min(self.limits.data_timeout, left))
        except TimedOut:
            raise Cut(_SILENT) from None

    def _check(self, scanner: DataScanner, keeper: "_Keeper", pace: "_Pace") -> None:
        if scanner.size > self.size * (1 + self.limits.overrun):
            raise Cut(keeper.too_large(close=True))
        if pace.too_slow(asyncio.get_running_loop().time(), scanner.size):
            raise Cut(_TOO_SLOW)


class _Keeper:
    """Keeps the content as long as it may be kept; after that it only knows why not."""

    def __init__(self, receiver: Receiver, size: int) -> None:
        self._receiver: Receiver | None = receiver
        self._left = size
        self._size = size
        self._reply: Reply | None = None

    def keep(self, octets: bytes) -> bool:
        """Keep the next octets; say whether all so far are kept."""
        if self._receiver is None:
            return False
        self._left -= len(octets)
        if self._left < 0:
            return self._give_up(self.too_large())
        try:
            self._receiver.add(octets)
        except NoRoom as error:
            return self._give_up(error.reply)
        return True

    def too_large(self, *, close: bool = False) -> Reply:
        return Reply(552, "5.3.4", f"The message is larger than {self._size} octets", close)  # RFC 1870 6.3

    def finish(self, *, eight_bit: bool) -> Content | Reply:
        if self._receiver is None:
            assert self._reply is not None
            return self._reply
        return self._receiver.finish(eight_bit=eight_bit)

    def _give_up(self, reply: Reply) -> bool:
        self._receiver = None  # frees memory and file now, not at the dot
        self._reply = reply
        return False


class _Pace:
    """Whether enough has come since the last look, which is `data_grace` ago or longer."""

    def __init__(self, limits: ListenerLimits, now: float) -> None:
        self._limits = limits
        self._since = now
        self._size = 0

    def too_slow(self, now: float, size: int) -> bool:
        elapsed = now - self._since
        if elapsed < self._limits.data_grace:
            return False
        enough = size - self._size >= self._limits.data_rate * elapsed
        self._since, self._size = now, size
        return not enough
