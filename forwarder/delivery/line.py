"""One connection to a next hop: the shell that performs what the state machine of `smtp.client` commands.

`Line.carry` never raises for what the peer or the network does: everything ends in `Decided` values. It does raise
what reading the content raises; the connection is then in the middle of a message and has to be closed.

A time-out begins when a reply is waited for, or a block of content is sent, and is over when that is complete: octets
that trickle do not make it longer. `Load.until` bounds everything together.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from forwarder.delivery.route import Target
from forwarder.delivery.settings import Timeouts
from forwarder.ports import Clock, Connection, ConnectionLost, TimedOut
from forwarder.smtp.client import Client, Command, Decided, Send, SendContent, Stage, StartTls, Transaction
from forwarder.smtp.outbound import stuffed

_BLOCK = 65_536  # octets that a next hop has to take within one time-out (RFC 5321 4.5.3.2.5)


@dataclass(frozen=True, slots=True)
class Load:
    """A message for one connection: its envelope, its octets (asked for once), and who is told of each recipient.

    `until` is when it has to be done, by the clock's monotonic seconds.
    """

    transaction: Transaction
    pieces: Callable[[], Iterable[bytes]]
    decided: Callable[[Decided], None]
    until: float = math.inf


class Line:
    """A connection with its client. `handshake_failed` says that TLS was what ended it."""

    def __init__(
        self, target: Target, connection: Connection, client: Client, timeouts: Timeouts, clock: Clock
    ) -> None:
        self.target = target
        self.client = client
        self.handshake_failed = False
        self._connection = connection
        self._timeouts = timeouts
        self._clock = clock
        self._until = math.inf  # for all that is under way
        self._awaited: tuple[int, Stage | None] = (-1, None)
        self._answer_due = math.inf

    @property
    def tls(self) -> str:
        """The TLS version, "" in clear text."""
        return self._connection.tls.version if self._connection.tls else ""

    @property
    def ended(self) -> bool:
        """Whether it cannot be used again, although it was in order when it was laid down."""
        return self._connection.ended

    async def carry(self, load: Load) -> None:
        """Offer a message and wait until every recipient is decided."""
        await self._run(self.client.begin(load.transaction), load)

    async def hang_up(self) -> None:
        """Say QUIT where that makes sense, then close; never raises."""
        try:
            if self.client.idle:
                await self._run(self.client.leave(), None)
        finally:
            await self._connection.close()

    async def close(self) -> None:
        """Close at once."""
        await self._connection.close()

    async def _run(self, commands: list[Command], load: Load | None) -> None:
        self._until = load.until if load else math.inf
        try:
            while commands or self.client.stage:
                commands = await self._perform(commands, load) if commands else await self._hear()
        except ConnectionLost as lost:
            self.handshake_failed = self.client.stage is Stage.HANDSHAKE
            await self._perform(await self._give_up(str(lost)), load)

    async def _perform(self, commands: list[Command], load: Load | None) -> list[Command]:
        """Carry commands out; one that ends in an event of its own comes last and gives what follows."""
        for command in commands:
            match command:
                case Decided():
                    assert load is not None
                    load.decided(command)
                case Send(octets):
                    await self._connection.write([octets], self._timeouts.content)
                case StartTls():
                    await self._connection.start_tls(self.target.host, self._timeouts.handshake)
                    return self.client.secured()
                case SendContent():
                    assert load is not None
                    pieces = self._until_dot(self._in_time(load.pieces()))
                    await self._connection.write(pieces, self._timeouts.content)
                    return self.client.receive(b"")
        return []

    def _until_dot(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Give the content on the wire, and note the moment before its last piece."""
        held = b""
        for piece in stuffed(pieces):
            if held:
                yield held
            held = piece
        self.client.dot_sent()
        yield held

    async def _hear(self) -> list[Command]:
        stage = self.client.stage
        assert stage is not None
        self._set_due(stage)
        octets = await self._read(stage)
        if not octets:
            raise ConnectionLost("connection closed by the next hop")
        return self.client.receive(octets)

    def _set_due(self, stage: Stage) -> None:
        awaited = (self.client.answered, stage)
        if awaited != self._awaited:
            self._awaited = awaited
            self._answer_due = self._clock.monotonic() + self._timeouts.of(stage)

    async def _read(self, stage: Stage) -> bytes:
        left = min(self._answer_due, self._until) - self._clock.monotonic()
        try:
            if left <= 0:
                raise TimedOut
            return await self._connection.read(left)
        except TimedOut:
            if self._until < self._answer_due:
                raise self._too_long() from None
            raise TimedOut(f"timed out after {self._timeouts.of(stage):g} s") from None

    def _in_time(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Give blocks as long as there is time: a next hop that takes each in time may still take too long."""
        for piece in pieces:
            for start in range(0, len(piece), _BLOCK):
                if self._clock.monotonic() >= self._until:
                    raise self._too_long()
                yield piece[start : start + _BLOCK]

    def _too_long(self) -> TimedOut:
        return TimedOut(f"the attempt took longer than {self._timeouts.attempt:g} s")

    async def _give_up(self, reason: str) -> list[Command]:
        stage = self.client.stage
        commands: list[Command] = []
        if stage in (Stage.CONTENT, Stage.DOT):  # it may have said why before it hung up
            with suppress(ConnectionLost):
                commands = self.client.receive(await self._connection.read(0))
        waiting = f" while waiting for {stage.value}" if stage else ""
        return commands + self.client.lost(f"{self.target}: {reason}{waiting}")
