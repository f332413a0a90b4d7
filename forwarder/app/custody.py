"""What there is once on a machine: the spool, the queue runner, pacing, the ledger, and what operators do with them.

    custody = Custody(wanted, listening, log)
    await custody.open()            raises Unready; what a crash left is cleaned up then
    … custody.ports, custody.handlers: clients can be served …
    custody.start()                 loads the queue, then delivers
    custody.adopt(wanted)           after a reload; cannot fail
    await custody.drain(grace); await custody.close()

It runs in the parent, or in the one process. Deliveries from the spool have a courier of their own. What pacing has
learnt is written down every minute and at the end.
"""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from random import Random

from forwarder.app.assembly import Assembly
from forwarder.app.settings import (
    pacing_settings,
    resolver_of,
    runner_settings,
    settlement_settings,
    spool_settings,
)
from forwarder.app.wanted import Unready, Wanted, is_handled_here, resend_refusal
from forwarder.config import Config
from forwarder.delivery.attempts import Tools
from forwarder.delivery.classify import provider_of
from forwarder.delivery.ledger import LocalLedger
from forwarder.delivery.pacer import LocalPacer
from forwarder.delivery.pacing import Pacing
from forwarder.delivery.queue_desk import Desktop, QueueDesk
from forwarder.delivery.runner import Runner
from forwarder.delivery.settlement import Settlement, SettlementSettings
from forwarder.listener.limits import Admission
from forwarder.model.address import Address
from forwarder.model.destination import Destination
from forwarder.model.letter import Letter
from forwarder.model.message import Outgoing
from forwarder.ops.clock import SystemClock
from forwarder.ops.control import Handler
from forwarder.ops.wire import Ports
from forwarder.policy.limiter import LocalLimiter, SlidingLimiter
from forwarder.ports import EventLog, SpoolError
from forwarder.rules import Forward
from forwarder.session.departure import sign_own
from forwarder.session.gateway import Gateway
from forwarder.session.recipient import resolve
from forwarder.session.rework import rework
from forwarder.spool.faults import SpoolRefused
from forwarder.spool.store import EmbeddedSpool

_WATCH = 5.0  # seconds between two looks at the disk
_WRITE = 60.0  # seconds between two records of what pacing has learnt
_SWEEP = 3600.0
_AGAIN = 60.0  # seconds until a queue that could not be read is read again
_CLOSING = 5.0  # seconds for idle connections to be closed
_PACING = b"pacing"  # the key in the spool


class Custody:
    """See the module. `listening` are the addresses and ports of our sockets: mail must not be sent there."""

    def __init__(
        self, wanted: Wanted, admission: Admission, listening: Sequence[tuple[str, int]], log: EventLog
    ) -> None:
        self._wanted = wanted
        self._log = log
        self._clock = SystemClock()
        self._resolver = resolver_of(wanted.config, self._clock)
        self._assembly = Assembly(self._clock, self._resolver, listening, log)
        self._admission = admission
        self._tasks: list[asyncio.Task[None]] = []
        self.spool: EmbeddedSpool
        self.runner: Runner
        self.ports: Ports
        self._changed: list[Callable[[], None]] = []

    async def open(self) -> None:
        """Open the spool, clean up what a crash left, and make what clients need; raise `Unready`."""
        config = self._wanted.config
        try:
            self.spool = await EmbeddedSpool.open(
                config.state_dir / "spool", clock=self._clock, log=self._log, settings=spool_settings(config)
            )
        except SpoolRefused as error:
            raise Unready(error.problems) from None
        try:
            await self._build()
        except SpoolError as error:
            await self.spool.close()
            raise Unready([f"{config.state_dir / 'spool'}: {error}"]) from None

    async def _build(self) -> None:
        config, log = self._wanted.config, self._log
        self._ledger = LocalLedger(self._clock, log, self.spool, config.delivery.expire)
        await self._ledger.load()
        self._pacing = Pacing(pacing_settings(config), provider_of)
        self._pacing.load((await self.spool.memories()).get(_PACING, b""), self._clock.monotonic())
        self._pacer = LocalPacer(self._pacing, self._clock)
        self._courier = self._assembly.courier(config, self._ledger, self._pacer)
        self._settlement = Settlement(
            self._settlement_settings(config),
            self._clock,
            Random(),  # noqa: S311 - spreads load
            self._new_id,
        )
        tools = Tools(self.spool, self._courier, self._settlement, self._clock, log)
        self.runner = Runner(runner_settings(config, self.spool.refusal), tools)
        self.ports = Ports(
            limiter=LocalLimiter(SlidingLimiter(self._clock.monotonic)),
            doorkeeper=self._admission,
            ledger=self._ledger,
            pacer=self._pacer,
            keeper=self.runner,
        )
        self._gateway = self._gateway_of(self._wanted)

    def start(self) -> None:
        """Begin to deliver: the queue is loaded first, while clients are served already."""
        for work in (self._deliver(), self._watch(), self._write_now_and_then(), self._sweep()):
            self._start(work)

    async def _deliver(self) -> None:
        if not await self._load():
            self._start(self._load_again())  # meanwhile what comes in is delivered
        await self.runner.run()

    async def _load_again(self) -> None:
        loaded = False
        while not loaded:
            await asyncio.sleep(_AGAIN)
            loaded = await self._load()

    async def _load(self) -> bool:
        """Take up the queue, without the garbage collector: it would look through all of it again and again.

        What has been loaded stays, and has no cycles: no later collection looks at it, which with 100,000 parts would
        stop everybody for 0.1 s each time.
        """
        collecting = gc.isenabled()
        gc.disable()
        try:
            await self.runner.start()
            gc.freeze()
        except SpoolError as error:
            text = f"the queue could not be loaded, and is tried again in {_AGAIN:g} s: {error}"
            self._log.event("alert", component="spool", text=text)
            return False
        finally:
            if collecting:
                gc.enable()
        return True

    def on_watch(self, told: Callable[[], None]) -> None:
        """Have somebody called whenever it may have changed whether there is room."""
        self._changed.append(told)

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """What the control socket answers about the queue."""
        desktop = Desktop(self._clock, self._gateway.new_id, self._log, self._refuses, self.runner.deciding)
        return {"queue": QueueDesk(self.spool, self._settlement, self.runner, desktop).handle}

    def adopt(self, wanted: Wanted) -> None:
        """Put another state in force."""
        config = wanted.config
        self._wanted = wanted
        self._gateway = self._gateway_of(wanted)
        self._courier.reconfigure(self._assembly.courier_settings(config))
        self._settlement.settings = self._settlement_settings(config)
        self.runner.reconfigure(runner_settings(config, self.spool.refusal))
        self._pacing.reconfigure(pacing_settings(config), self._clock.monotonic())
        self._ledger.keep_for(config.delivery.expire)

    async def drain(self, grace: float) -> None:
        """Deliver nothing more; what is under way may end for `grace` seconds."""
        self._courier.begin_no_more()
        await self.runner.drain(grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """End everything; after this nobody may use the ports."""
        await self._courier.close(_CLOSING)
        self._pacer.close()
        await self._resolver.close()
        await self._write()
        await self.spool.close()

    def _settlement_settings(self, config: Config) -> SettlementSettings:
        return replace(settlement_settings(config, self._where, self._signed), rework=self._reworked)

    def _new_id(self) -> str:
        return self._gateway.new_id()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _gateway_of(self, wanted: Wanted) -> Gateway:
        """Give what finds out where an address leads, as sessions do."""
        return self._assembly.gateway(wanted, self._courier, self.runner, self.ports.limiter)

    def _signed(self, message: Outgoing) -> Outgoing:
        return sign_own(self._gateway, message)

    def _reworked(self, letter: Letter, numbers: Sequence[int]) -> Outgoing | None:
        return rework(self._gateway, letter, numbers)

    def _where(self, address: Address) -> tuple[Destination, ...]:
        """Say where a letter of ours goes: by our rules if the address is ours, else to its own domain."""
        if not self._gateway.srs.is_ours(address) and not self._is_served(address):
            return (Destination(address),)
        decision = resolve(self._gateway, address, None)
        return decision.destinations if isinstance(decision, Forward) else ()

    def _is_served(self, address: Address) -> bool:
        return is_handled_here(address.domain, self._wanted.config, self._wanted.rules)

    def _refuses(self, address: Address) -> str:
        """Say why nothing may be resent to an address."""
        return resend_refusal(address.domain, self._wanted.config, self._wanted.rules)

    # Now and then

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH)
            await self.spool.watch()
            for told in self._changed:
                told()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            try:
                await self.spool.sweep()
            except SpoolError as error:
                self._log.event("alert", component="spool", text=str(error))

    async def _write_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_WRITE)
            await self._write()

    async def _write(self) -> None:
        try:
            await self.spool.remember({_PACING: self._pacing.dump(self._clock.monotonic())})
        except SpoolError as error:
            self._log.event("alert", component="spool", text=f"what pacing has learnt is not on disk: {error}")
