"""All connections of the courier: opened, kept for a while, used again, closed in the background.

The bookkeeping is `pool`'s; here it gets its connections, its clock and its sweeper.
"""

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import suppress

from forwarder.delivery.line import Line
from forwarder.delivery.pool import Pool, PoolKey, Use
from forwarder.delivery.route import Target
from forwarder.delivery.settings import CourierSettings
from forwarder.model.address import parse_ip
from forwarder.ports import Clock, ConnectionLost, Dialer
from forwarder.smtp.client import Client, TlsUse

_MOST_SHUNNED = 10_000


class Lines:
    """Opens, lends and takes back lines. Those lent belong to the borrower until `give_back`."""

    def __init__(self, settings: CourierSettings, dialer: Dialer, clock: Clock) -> None:
        self._settings = settings
        self._dialer = dialer
        self._clock = clock
        self._pool: Pool[Line] = Pool(settings.limits)
        self._shunned: dict[Target, float] = {}
        self._lent: dict[Line, tuple[PoolKey, Use]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def tls(self) -> TlsUse:
        """How connections are encrypted by the settings."""
        return self._settings.tls

    def last_moment(self) -> float:
        """Say when an attempt that begins now has to end, by the clock's monotonic seconds."""
        return self._clock.monotonic() + self._settings.timeouts.attempt

    def source(self, address: str) -> str | None:
        """Give the address to send from, None where the system chooses."""
        version = parse_ip(address).version
        return next((source for source in self._settings.source_addresses if parse_ip(source).version == version), None)

    def in_seconds(self, seconds: float) -> float:
        """Say what the clock's monotonic seconds will be then."""
        return self._clock.monotonic() + seconds

    def is_past(self, moment: float) -> bool:
        """Whether it is that late, by the clock's monotonic seconds."""
        return self._clock.monotonic() >= moment

    def reuse(self, target: Target, tls: TlsUse) -> Line | None:
        """Lend an idle line to that target, if there is one."""
        key = self._key(target, tls)
        while found := self._pool.take(key, self._clock.monotonic()):
            line, use = found
            if not line.ended:
                self._lent[line] = key, use
                return line
            self._start(line.close())
        return None

    async def open(self, target: Target, tls: TlsUse) -> Line:
        """Lend a new line; raise `ConnectionLost`."""
        key = self._key(target, tls)
        timeouts = self._settings.timeouts
        try:
            connection = await self._dialer.connect(
                target.address, target.port, source=key.source, timeout=timeouts.connect
            )
        except ConnectionLost:
            self.shun(target)
            raise
        line = Line(target, connection, Client(self._settings.ehlo_name, tls), timeouts, self._clock)
        self._lent[line] = key, Use(self._clock.monotonic())
        return line

    def shun(self, target: Target) -> None:
        """Ask a target last for a while: it could not be connected to, or never said a word."""
        self._shunned[target] = self._clock.monotonic() + self._settings.limits.shun

    def is_shunned(self, target: Target) -> bool:
        """Whether a target could not be connected to a moment ago; to ask it first would cost each message the wait."""
        if len(self._shunned) > _MOST_SHUNNED:
            self._shunned.clear()
        return self._shunned.get(target, 0.0) > self._clock.monotonic()

    async def give_back(self, line: Line, most: int = 0) -> None:
        """Keep a line for the next message if it is in order, otherwise close it.

        `most` is how many messages it may carry by the next hop's own rules, 0: as many as our settings say.
        """
        key, use = self._lent.pop(line)
        if not line.client.idle:
            await line.close()
            return
        if line.client.outdated or 0 < most <= use.messages + 1:  # whoever comes next is to hear what is offered now
            self._hang_up([line])
            return
        self._hang_up(self._pool.put(key, line, use.once_more(), self._clock.monotonic()))
        if self._sweeper is None and len(self._pool):
            self._sweeper = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        """Close whatever is idle and end the background work."""
        if self._sweeper:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
        self._hang_up(self._pool.clear())
        await asyncio.gather(*self._background)

    def _key(self, target: Target, tls: TlsUse) -> PoolKey:
        return PoolKey(target.address, target.port, tls, self.source(target.address))

    def _hang_up(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self._start(line.hang_up())

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)  # the loop holds tasks weakly
        task.add_done_callback(self._background.discard)

    async def _sweep(self) -> None:
        while len(self._pool):
            await asyncio.sleep(self._settings.limits.idle / 2)
            self._hang_up(self._pool.expired(self._clock.monotonic()))
        self._sweeper = None
