"""One run: a seed's world from its first second until everything has come to its end."""

import asyncio
import gc
import sys
import traceback
import warnings
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from forwarder.delivery import runner
from forwarder.model.letter import Kind, Query
from forwarder.ports import SpoolError
from tests.simulation.check import Checker
from tests.simulation.disk import Killed
from tests.simulation.loop import Stuck, VirtualLoop
from tests.simulation.machine import FOLDER, Gateway, Machine
from tests.simulation.plan import POSTMASTER, draw
from tests.simulation.senders import Sender
from tests.simulation.world import DAY, HOUR, MINUTE, World

T = TypeVar("T")

_LOOKS_EVERY = 6 * HOUR


@dataclass
class Result:
    """What came of a seed. `digest` is the same whenever the same things happened in the same order."""

    seed: int
    broken: list[str]
    digest: str
    seconds: float
    steps: int
    counts: dict[str, int]
    trace: list[tuple[float, str]] = field(default_factory=list)


def simulate(seed: int, *, tracing: bool = False) -> Result:
    """Run one seed."""
    runner._LONGEST_SLEEP = DAY  # nothing is suspended unnoticed here, and days pass quickly
    loop = VirtualLoop()
    world = World(seed, loop, tracing)
    machine = Machine(world, draw(world))
    try:
        loop.run_until_complete(_run(world, machine))
    except Stuck as stuck:
        world.breaks(f"STUCK: {stuck}")
    except Exception as error:  # of the simulation itself: its seed is wanted too
        world.breaks(f"the simulation failed: {type(error).__name__}: {error}")
        world.tell(traceback.format_exc())
    finally:
        _dispose(loop, machine)
    return Result(seed, world.broken, world.digest.hexdigest(), loop.seconds, loop.ran, world.counts, world.trace)


async def _run(world: World, machine: Machine) -> None:
    plan = machine.plan
    senders = {mail.token: Sender(mail, world, machine, world.random(mail.token)) for mail in plan.mails}
    checker = Checker(world, machine, senders)
    machine.on_left = checker.left

    def lost(gateway: Gateway) -> None:
        for sender in senders.values():
            sender.lose(gateway)

    def keeps(id: str) -> None:
        for sender in senders.values():
            sender.kept(id)

    machine.on_end, machine.on_keep = lost, keeps
    tasks = [asyncio.ensure_future(sender.run()) for sender in senders.values()]
    watching = asyncio.ensure_future(_watch(world, machine))
    machine.begin()
    await asyncio.gather(*tasks)
    await asyncio.sleep(max(0.0, plan.ends - world.now))
    await _settle(world, machine)
    watching.cancel()
    await _finish(world, machine, checker)


async def _watch(world: World, machine: Machine) -> None:
    """Have the spool look at its room, as the service does every few seconds, when that may have changed."""
    for at in sorted({time + 5 for spell in machine.plan.disk for time in (spell.begin, spell.end)}):
        await asyncio.sleep(max(0.0, at - world.now))
        if gateway := machine.up:
            gateway.spawn_aside(_look(world, gateway.spool))


async def _look(world: World, spool: object) -> None:
    try:
        await spool.watch()  # type: ignore[attr-defined]
        await spool.sweep()  # type: ignore[attr-defined]
    except SpoolError as error:
        world.tell(f"the spool could not be swept: {error}")


async def _settle(world: World, machine: Machine) -> None:
    """Wait until nothing is queued any more, for as long as that may take."""
    most = world.now + 4 * machine.plan.intervals.expire + 6 * DAY
    quiet = 0
    while world.now < most and quiet < 2:
        await asyncio.sleep(_LOOKS_EVERY)
        gateway = machine.up
        if gateway is None:
            quiet = 0
            continue
        if gateway.unable:
            machine.stop_now()
            continue
        waiting = await _asked(gateway, gateway.spool.waiting())
        quiet = quiet + 1 if waiting is not None and not waiting else 0


async def _asked(gateway: Gateway, question: Coroutine[Any, Any, T]) -> T | None:
    """Ask a process something; None if it ended meanwhile."""
    answer = gateway.spawn_aside(question)
    while not answer.done():
        if gateway.process.dead:
            return None
        await asyncio.wait([answer], timeout=1.0)
    return None if isinstance(answer.exception(), Killed) else answer.result()


async def _finish(world: World, machine: Machine, checker: Checker) -> None:
    most = world.now + DAY
    while machine.up is None and world.now < most:  # it may have ended just now
        await asyncio.sleep(MINUTE)
    gateway = machine.up
    if gateway is None:
        world.breaks("no gateway could be started any more")
        return
    machine.safe()
    found = await gateway.spawn(gateway.spool.find(Query()))
    letters = {letter.message.id: letter for letter in found}
    notices = [b"".join(one.message.content.chunks()) for one in found if one.kind is Kind.NOTICE]
    notices += [copy.octets for copy in world.copies if copy.to == str(POSTMASTER)]
    checker.finish(letters, b"".join(notices))
    if quarantine := machine.volume.at(FOLDER / "quarantine").names:
        world.breaks(f"put aside without damage: {sorted(quarantine)}")
    machine.over = True
    gateway.stopping = True
    stopping = gateway.spawn(machine._stop(gateway))
    await asyncio.wait([stopping], timeout=HOUR)
    if not gateway.process.dead:
        world.breaks("the gateway does not stop")


def _dispose(loop: VirtualLoop, machine: Machine) -> None:
    """Let go of what was killed. Its `finally` blocks run now, when nobody is there to see it."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    loop.set_exception_handler(lambda *_: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        machine.dispose()
        loop.drop()
        loop.close()
        gc.collect(1)
    sys.unraisablehook = hook
