"""The gateway's processes, one after the other on one spool: built, killed without warning, stopped, built again.

A `Gateway` here is one process: everything real, from the session's ports down. `Machine` starts the next one when one
has ended, on the same volume.
What was durable at the end of a process is looked at before the next one begins (`Left`).
"""

import asyncio
import contextlib
import contextvars
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from forwarder.delivery.attempts import Tools
from forwarder.delivery.classify import provider_of
from forwarder.delivery.courier import CutThroughCourier, Surroundings
from forwarder.delivery.ledger import LocalLedger
from forwarder.delivery.pacer import LocalPacer
from forwarder.delivery.pacing import Pacing
from forwarder.delivery.providers import PacingSettings
from forwarder.delivery.runner import Runner, RunnerSettings
from forwarder.delivery.settings import CourierSettings
from forwarder.delivery.settlement import Settlement, SettlementSettings
from forwarder.model.destination import Destination
from forwarder.model.letter import Letter, Part, Query
from forwarder.model.outcome import Outcome
from forwarder.model.reply import Reply
from forwarder.policy.limiter import LocalLimiter, SlidingLimiter
from forwarder.ports import SpoolError
from forwarder.rewrite.srs import Srs
from forwarder.session import custody
from forwarder.session import gateway as session
from forwarder.spool.hands import Hands, Inline
from forwarder.spool.room import SpoolSettings
from forwarder.spool.store import EmbeddedSpool
from tests.simulation.disk import SimDisk, SlowHands, Volume
from tests.simulation.hops import Names, Network
from tests.simulation.loop import PROCESS, Process
from tests.simulation.plan import POSTMASTER, RULES, Ending, Plan
from tests.simulation.world import World, WorldClock, WorldLog

FOLDER = Path("/spool")
SMALL = SpoolSettings(minimum_free=0, minimum_files=0, ballast=4096)
SRS = Srs("fwd.ours.test", [b"a secret for the simulation"], 21)
GRACE = 5.0  # seconds that an orderly stop leaves for what is under way


@dataclass(frozen=True)
class Left:
    """What a process left behind, and whether it had good reasons not to have written something."""

    process: Process
    at: float
    orderly: bool
    unable: bool  # its spool had given up
    faults: tuple[float, ...]
    letters: dict[str, Letter]
    keys: frozenset[bytes]


class Keeping:
    """The runner's custody; `begun` is called with the id of each message that it is to take."""

    def __init__(self, runner: Runner, begun: Callable[[str], None]) -> None:
        self._runner = runner
        self._begun = begun

    def refusal(self) -> Reply | None:
        return self._runner.refusal()

    async def keep(self, letter: Letter, outcomes: Sequence[Outcome]) -> None:
        self._begun(letter.message.id)
        await self._runner.keep(letter, outcomes)

    def settled(self, part: Part, outcome: Outcome) -> None:
        self._runner.settled(part, outcome)


class Gateway:
    """One process. `on_keep` is called with the id of each message that goes into custody."""

    def __init__(self, number: int, world: World, plan: Plan, volume: Volume, kill: Callable[[], None]) -> None:
        self.process = Process(number)
        self.world = world
        self.outside = contextvars.copy_context()
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self.process)
        random = world.random(f"gateway {number}")
        self.disk = SimDisk(volume, self.process, plan.disk, world.random(f"disk {number}"), lambda: world.now, kill)
        self.clock = WorldClock(world, plan.jumps, world.now - 1000 * random.random())
        self.log = WorldLog(world, self.process, {})
        self.up = False
        self.stopping = False
        self.closed = False
        self.gave_up = False
        self.talks: set[asyncio.Task[Any]] = set()
        self.asides: set[asyncio.Task[Any]] = set()  # questions from outside, and the looks at the disk
        self.on_keep: Callable[[str], None] = lambda _: None
        self._plan = plan
        self._random = random

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run something in this process."""
        task: asyncio.Task[Any] = self.world.loop.create_task(work, context=self.context)
        return task

    def spawn_aside(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run what an orderly stop waits for at its end, as the service does with operators' questions."""
        task = self.spawn(work)
        self.asides.add(task)
        task.add_done_callback(self.asides.discard)
        return task

    async def start(self, left: Callable[[dict[str, Letter], frozenset[bytes]], None]) -> None:
        """Build everything, and begin; raise `SpoolError`."""
        plan, random = self._plan, self._random
        hands: Hands = SlowHands(Random(random.random()), plan.slowness) if plan.slowness else Inline()
        self.spool = spool = await EmbeddedSpool.open(
            FOLDER, clock=self.clock, log=self.log, settings=SMALL, disk=self.disk, hands=hands
        )
        found = await spool.find(Query())
        left({letter.message.id: letter for letter in found}, frozenset(await spool.memories()))
        ledger = LocalLedger(self.clock, self.log, spool)
        await ledger.load()
        self.pacer = pacer = LocalPacer(Pacing(PacingSettings(), provider_of), self.clock)
        names = Names(plan.zone, plan.dns, self.world)
        network = Network(plan.hops, self.process, self.outside)
        ports = Surroundings(names, network, self.clock, random, ledger, pacer, self.log)
        self.courier = CutThroughCourier(CourierSettings("mx.ours.test"), ports)  # for sessions
        self.carrier = CutThroughCourier(CourierSettings("mx.ours.test"), ports)  # for the queue
        settings = SettlementSettings("mx.ours.test", lambda address: (Destination(address),), plan.intervals)
        settlement = Settlement(settings, self.clock, random, self._new_id)
        self.runner = Runner(
            RunnerSettings(POSTMASTER, refusal=spool.refusal),
            Tools(spool, self.carrier, settlement, self.clock, self.log),
        )
        self.gateway = session.Gateway(
            session.Settings("mx.ours.test", POSTMASTER, queue_first=plan.queue_first),
            RULES,
            SRS,
            self.courier,
            Keeping(self.runner, self.on_keep),
            names,
            LocalLimiter(SlidingLimiter(self.clock.monotonic)),
            self.clock,
            random,
            self.log,
        )
        await self.runner.start()
        self.running = self.spawn(self.runner.run())
        self.up = True

    async def stop(self) -> None:
        """End in good order and in the service's order, as on SIGTERM."""
        self.stopping = True
        await self._stop_serving()
        await custody.finish()
        await self.courier.close(GRACE)
        await self.runner.drain(GRACE)
        await self.running
        await self.carrier.close(GRACE)
        self.pacer.close()
        if self.asides:
            await asyncio.wait(self.asides)
        self.gave_up = self.unable
        self.closed = True
        await self.spool.close()

    async def _stop_serving(self) -> None:
        if self.talks:
            _, late = await asyncio.wait(self.talks, timeout=self._random.choice((0.0, GRACE)))
            for talk in late:
                talk.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _new_id(self) -> str:
        return self.gateway.new_id()

    @property
    def unable(self) -> bool:
        """Whether the spool has given up until the gateway is started again."""
        if self.closed:
            return self.gave_up
        refusal = self.spool.refusal() if self.up else None
        return refusal is not None and refusal.code == 451


class Machine:
    """Runs gateways, ends them, and tells what each left. `now` is None while none is up."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.world = world
        self.plan = plan
        self.gateway: Gateway | None = None
        self.lefts: list[Left] = []
        self.on_end: Callable[[Gateway], None] = lambda _: None
        self.on_left: Callable[[Left], None] = lambda _: None
        self.on_keep: Callable[[str], None] = lambda _: None
        self.replies = 0
        self.over = False
        self.volume = Volume(lambda: world.now)
        self._number = 0
        self._random = world.random("machine")
        self._pending: set[asyncio.Task[Any]] = set()  # of dead processes: held, so that nothing tidies up for them
        self._dead: list[Gateway] = []
        self._ended: tuple[Gateway, bool, bool] | None = None
        self._free = asyncio.Event()
        world.on_alert = self._heed

    @property
    def up(self) -> Gateway | None:
        """Give the process that serves now."""
        gateway = self.gateway
        return gateway if gateway and gateway.up and not gateway.stopping and not gateway.process.dead else None

    def begin(self) -> None:
        """Start the first process."""
        self._make()

    def _make(self) -> None:
        if self.over:
            return
        self._number += 1
        self.gateway = gateway = Gateway(self._number, self.world, self.plan, self.volume, self.kill)
        self.world.tell(f"process {self._number} begins")
        loop = self.world.loop
        ending = self.plan.ending(self._number, self._random)
        loop.alarm, loop.on_alarm = -1, lambda: self._end_by_plan(gateway, ending.orderly)
        if ending.step:
            loop.alarm = loop.steps + ending.step
        gateway.disk.kill_at = ending.operation
        self._kill_after = self.replies + ending.reply if ending.reply else -1
        self._custodies = ending.custody
        gateway.on_keep = lambda id: self._keeps(gateway, ending, id)
        if ending.after and not ending.custody:
            loop.call_later(ending.after, self._end_by_plan, gateway, ending.orderly)
        gateway.spawn(self._run(gateway))

    async def _run(self, gateway: Gateway) -> None:
        try:
            await gateway.start(self._learn)
        except SpoolError as error:
            self.world.tell(f"process {gateway.process.number} cannot start: {error}")
            if not gateway.disk.injected:
                self.world.breaks(f"the spool cannot be opened: {error}")
            gateway.spawn(self._give_up(gateway))
        except Exception as error:
            if not gateway.process.dead:
                self.world.breaks(f"the gateway cannot start: {type(error).__name__}: {error}")
            raise

    async def _give_up(self, gateway: Gateway) -> None:
        self._finish(gateway, orderly=False)

    def _learn(self, letters: dict[str, Letter], keys: frozenset[bytes]) -> None:
        """Take note of what the last process left."""
        ended, self._ended = self._ended, None
        if ended is None:
            return
        gateway, orderly, unable = ended
        faults = tuple(at for at, _ in gateway.disk.injected)
        left = Left(gateway.process, self._ended_at, orderly, unable, faults, letters, keys)
        self.lefts.append(left)
        self.on_left(left)

    # Ends

    def replied(self) -> None:
        """Note that a sender has heard a reply to its dot: a process may end right then."""
        self.replies += 1
        if self.replies == self._kill_after:
            self.kill()

    def _keeps(self, gateway: Gateway, ending: Ending, id: str) -> None:
        """Note that a message goes into custody: a sender may vanish then, and a process may end."""
        self.on_keep(id)
        self._custodies -= 1
        if ending.custody and self._custodies == 0:
            loop, outside = self.world.loop, gateway.outside
            loop.call_later(ending.after, self._end_by_plan, gateway, ending.orderly, context=outside)

    def kill(self) -> None:
        """Kill the process where it stands."""
        gateway = self.gateway
        if gateway is None or gateway.process.dead or (gateway.stopping and not gateway.up):
            return
        self.world.count("kills")
        self.world.tell(f"process {gateway.process.number} is killed")
        self._finish(gateway, orderly=False)

    def _end_by_plan(self, gateway: Gateway, orderly: bool) -> None:
        if gateway is not self.gateway or gateway.process.dead or gateway.stopping:
            return
        if orderly and gateway.up:
            self.stop_now()
        else:
            self.kill()

    def safe(self) -> None:
        """Let the process that is up live on."""
        self.world.loop.alarm = -1
        self.over = True
        if self.gateway:
            self.gateway.disk.kill_at = -1

    def stop_now(self) -> None:
        """Stop the process in good order."""
        gateway = self.gateway
        assert gateway is not None
        self.world.count("orderly stops")
        self.world.tell(f"process {gateway.process.number} stops")
        gateway.stopping = True
        gateway.spawn(self._stop(gateway))

    async def _stop(self, gateway: Gateway) -> None:
        await gateway.stop()
        left = [task for task in asyncio.all_tasks() if task not in self._pending and _is_ours(task)]
        if left:
            self.world.breaks(f"tasks are left after an orderly stop: {[str(task.get_coro()) for task in left]}")
        self._finish(gateway, orderly=True)

    def _finish(self, gateway: Gateway, *, orderly: bool) -> None:
        unable = gateway.unable or not gateway.up
        self._pending |= asyncio.all_tasks(self.world.loop)
        gateway.process.dead = True
        self.world.loop.alarm = -1
        if self._ended is None:  # one that never came up has left what its predecessor left
            self._ended, self._ended_at = (gateway, orderly, unable), self.world.now
        self.on_end(gateway)
        self.world.loop.call_soon(self._bury, gateway, context=gateway.outside)
        down = self.plan.downtime(self._random)
        self.world.loop.call_later(down, self._make, context=gateway.outside)

    def _bury(self, gateway: Gateway) -> None:
        gateway.disk.drop()
        custody._UNDER_WAY.clear()  # a process's own
        self._pending |= asyncio.all_tasks(self.world.loop)  # also what its last step began
        self._dead.append(gateway)

    def _heed(self, text: str) -> None:
        """Restart a gateway that takes no mail any more, as its operator does."""
        if "until the gateway is started again" not in text:
            return
        gateway = self.gateway
        if gateway is not None:
            self.world.loop.call_later(
                60 + 3600 * self._random.random(), self._end_by_plan, gateway, True, context=gateway.outside
            )

    def dispose(self) -> None:
        """Let go of everything when nothing can be told any more: the `finally` blocks of the dead run now."""
        for task in self._pending | asyncio.all_tasks(self.world.loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with contextlib.suppress(BaseException):
                task.get_coro().close()
        self._pending.clear()
        if self.volume.database is not None:
            self.volume.database.end()


def _is_ours(task: "asyncio.Task[Any]") -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and f"{os.sep}forwarder{os.sep}" in code.co_filename
