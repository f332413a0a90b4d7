"""A delivery loop in a world without real time: a clock that is told the time, a carrier that does what it is told."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from forwarder.delivery.attempts import Tools
from forwarder.delivery.runner import Runner, RunnerSettings
from forwarder.delivery.schedule import Bounds
from forwarder.delivery.settlement import Settlement, SettlementSettings
from forwarder.model.address import parse_mailbox
from forwarder.model.message import Delivery, Outgoing
from forwarder.model.outcome import Outcome
from tests.delivery.memory_spool import MemorySpool
from tests.delivery.post import DELIVERED, settings
from tests.fakes import FakeClock, RecordingLog

_TURNS = 100_000  # of the event loop, more than anything here needs to come to rest


class Ticking(FakeClock):
    """Sleepers wake when the clock is moved over their time."""

    def __init__(self) -> None:
        super().__init__()
        self.sleepers: list[tuple[float, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sleepers.append((self.ticks + seconds, waker))
        await waker

    async def pass_time(self, seconds: float) -> None:
        end = self.ticks + seconds
        await rest()
        while due := [at for at, waker in self.sleepers if at <= end and not waker.done()]:
            self.advance(max(0.0, min(due) - self.ticks))
            self._wake()
            await rest()
        self.advance(end - self.ticks)

    def _wake(self) -> None:
        for at, waker in self.sleepers:
            if at <= self.ticks and not waker.done():
                waker.set_result(None)
        self.sleepers = [(at, waker) for at, waker in self.sleepers if not waker.done()]


async def rest() -> None:
    """Let everything happen that can happen now."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    for _ in range(_TURNS):
        await asyncio.sleep(0)
        if not ready:
            return
    raise AssertionError("it never comes to rest")


class FakeCarrier:
    """Answers by `answer`; an attempt for a domain in `gates` waits for its gate. `offered` has what it was given."""

    def __init__(self) -> None:
        self.answer: Callable[[Delivery], Outcome] = lambda delivery: DELIVERED
        self.gates: dict[str, asyncio.Event] = {}
        self.offered: list[Outgoing] = []
        self.at_once = 0
        self.most = 0

    async def carry(self, message: Outgoing) -> Sequence[Outcome]:
        self.offered.append(message)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            for delivery in message.deliveries:
                if gate := self.gates.get(delivery.destination.address.domain):
                    await gate.wait()
            return [self.answer(delivery) for delivery in message.deliveries]
        finally:
            self.at_once -= 1

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.offered]

    def to(self, domain: str) -> int:
        """Count attempts to a domain."""
        return sum(message.deliveries[0].destination.address.domain == domain for message in self.offered)


@dataclass
class Loop:
    runner: Runner
    settlement: Settlement
    spool: MemorySpool
    carrier: FakeCarrier
    clock: Ticking
    log: RecordingLog
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        await self.runner.start()
        self.tasks.append(asyncio.create_task(self.runner.run()))
        await rest()

    async def pass_time(self, seconds: float) -> None:
        await self.clock.pass_time(seconds)

    async def stop(self) -> None:
        await self.runner.drain(0)
        for task in self.tasks:
            await task


def make(
    spool: MemorySpool | None = None,
    bounds: Bounds | None = None,
    clock: Ticking | None = None,
    chosen: SettlementSettings | None = None,
) -> Loop:
    ticking, log, carrier = clock or Ticking(), RecordingLog(), FakeCarrier()
    store = spool or MemorySpool()
    numbers = count(len(store.stores) * 1000)
    settlement = Settlement(chosen or settings(), ticking, random.Random(1), lambda: f"own{next(numbers)}")
    tools = Tools(store, carrier, settlement, ticking, log, ticking.sleep)
    runner = Runner(RunnerSettings(parse_mailbox("owner@home.test"), bounds or Bounds()), tools)
    return Loop(runner, settlement, store, carrier, ticking, log)


@asynccontextmanager
async def running(
    spool: MemorySpool | None = None,
    bounds: Bounds | None = None,
    clock: Ticking | None = None,
    chosen: SettlementSettings | None = None,
) -> AsyncIterator[Loop]:
    loop = make(spool, bounds, clock, chosen)
    await loop.start()
    try:
        yield loop
    finally:
        await loop.stop()
