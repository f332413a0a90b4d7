"""The queue is loaded while clients are served: each part is tried once, whatever becomes of it meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from forwarder.delivery.lanes import waiting_of
from forwarder.model.letter import Change, Letter, Part, Progress, State, Waiting
from forwarder.ports import SpoolError
from tests.delivery.loop import Loop, make, rest
from tests.delivery.memory_spool import MemorySpool
from tests.delivery.post import DEFERRED, DELIVERED, RUNNING, UNTRIED, letter

PART = Part("id1", 0)


class Slow(MemorySpool):
    """Reads the queue when `read` is set, and gives it when `give` is."""

    def __init__(self) -> None:
        super().__init__()
        self.read = asyncio.Event()
        self.give = asyncio.Event()

    async def waiting(self) -> Sequence[Waiting]:
        await self.read.wait()
        found = await super().waiting()
        await self.give.wait()
        return found


@asynccontextmanager
async def loading(*letters: Letter) -> AsyncIterator[tuple[Loop, Slow]]:
    """A loop that loads a queue; at the end the queue is there and the loop runs."""
    spool = Slow()
    await spool.store(letters)
    loop = make(spool)
    start = asyncio.create_task(loop.start())
    await rest()
    yield loop, spool
    spool.read.set()
    spool.give.set()
    await start
    await rest()


async def end(loop: Loop) -> None:
    await loop.stop()
    assert [fields for name, fields in loop.log.events if name == "alert"] == []


def due_now(loop: Loop, one: Letter, progress: Progress) -> Waiting:
    return replace(waiting_of(one, 0), progress=replace(progress, due=loop.clock.now()))


@pytest.mark.parametrize("kept_first", [True, False], ids=["kept and read", "read and kept"])
async def test_what_is_kept_meanwhile_is_tried_once(kept_first: bool) -> None:
    async with loading() as (loop, spool):
        if not kept_first:
            spool.read.set()
            await rest()
        await loop.runner.keep(letter(), [UNTRIED])
    assert loop.carrier.ids == ["id1"]
    await loop.pass_time(10_000)
    assert loop.carrier.ids == ["id1"]
    await end(loop)


async def test_what_is_running_since_it_was_kept_meanwhile_is_not_tried_beside() -> None:
    """The letter is on the disk and read, and `keep` has not gone on yet: nothing has a lease on the part."""
    async with loading() as (loop, spool):
        stored = asyncio.Event()
        store = spool.store

        async def slowly(letters: Sequence[Letter], changes: Sequence[Change] = ()) -> None:
            await store(letters, changes)
            await stored.wait()

        spool.store = slowly  # type: ignore[method-assign]
        keeping = asyncio.create_task(loop.runner.keep(letter(), [RUNNING]))
        await rest()
    await loop.pass_time(10_000)
    assert loop.carrier.ids == []
    stored.set()
    await keeping
    await loop.pass_time(10_000)
    assert loop.carrier.ids == []
    loop.runner.settled(PART, DELIVERED)
    await rest()
    assert loop.spool.state("id1") is State.DELIVERED
    await end(loop)


async def test_what_was_deleted_after_it_was_read_is_not_tried() -> None:
    async with loading(letter(progress=[Progress(State.QUEUED)])) as (loop, spool):
        spool.read.set()
        await rest()
        await spool.store([], [Change(PART, Progress(State.DELETED))])
        loop.runner.gone([PART])
    await loop.pass_time(10_000)
    assert loop.carrier.ids == []
    await end(loop)


async def test_what_was_held_after_it_was_read_is_not_tried_and_stays() -> None:
    async with loading(letter(progress=[Progress(State.QUEUED)])) as (loop, spool):
        spool.read.set()
        await rest()
        await spool.store([], [Change(PART, Progress(State.HELD))])
        loop.runner.gone([PART])
    await loop.pass_time(10_000)
    assert (loop.carrier.ids, loop.spool.state("id1")) == ([], State.HELD)
    await end(loop)


async def test_what_is_retried_after_it_was_read_is_due_at_once() -> None:
    one = letter(progress=[Progress(State.QUEUED, attempts=1)])
    async with loading(one) as (loop, spool):
        later = replace(one.progress[0], due=loop.clock.now() + timedelta(seconds=60))
        await spool.store([], [Change(PART, later)])
        spool.read.set()
        await rest()
        loop.runner.changed([due_now(loop, one, later)])
    assert loop.carrier.ids == ["id1"]
    await end(loop)


async def test_nothing_is_tried_before_all_is_loaded() -> None:
    async with loading() as (loop, _):
        await loop.runner.keep(letter(), [UNTRIED])
        await loop.clock.pass_time(10_000)
        assert loop.carrier.ids == []
    assert loop.carrier.ids == ["id1"]
    await end(loop)


async def test_a_queue_that_cannot_be_read_says_so_and_leaves_what_is_kept() -> None:
    spool = MemorySpool()
    loop = make(spool)
    spool.fail("waiting", times=1)
    with pytest.raises(SpoolError):
        await loop.runner.start()
    await loop.runner.keep(letter(), [DEFERRED])
    await loop.start()
    await loop.pass_time(70)
    assert loop.carrier.ids == ["id1"]
    await end(loop)
