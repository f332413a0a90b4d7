"""Waiting in line."""

import asyncio

from forwarder.delivery.turns import Turns


async def test_who_comes_first_goes_first() -> None:
    turns, log, gates = Turns(1), list[int](), [asyncio.Event() for _ in range(3)]

    async def one(number: int) -> None:
        async with turns.turn("x"):
            log.append(number)
            await gates[number].wait()

    tasks = [asyncio.create_task(one(number)) for number in range(3)]
    for number in range(3):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert log == list(range(number + 1))
        gates[number].set()
        await tasks[number]


async def test_keys_do_not_hinder_each_other() -> None:
    turns = Turns(1)
    async with turns.turn("x"), turns.turn("y"):
        pass


async def test_who_gives_up_holds_nobody_up() -> None:
    turns = Turns(1)
    gate, log = asyncio.Event(), list[str]()

    async def one(name: str) -> None:
        async with turns.turn("x"):
            log.append(name)
            await gate.wait()

    first, second, third = (asyncio.create_task(one(name)) for name in "abc")
    await asyncio.sleep(0)
    second.cancel()
    gate.set()  # the first leaves in the same moment
    await asyncio.wait([first, second, third])
    assert log == ["a", "c"]
    async with asyncio.timeout(1), turns.turn("x"):
        pass


async def test_a_turn_that_comes_with_the_cancellation_is_passed_on() -> None:
    turns = Turns(1)
    entered = asyncio.Event()

    async def wait() -> None:
        async with turns.turn("x"):
            entered.set()

    async with turns.turn("x"):
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
    waiting.cancel()  # it has been given the turn, but has not woken up yet
    await asyncio.wait([waiting])
    async with asyncio.timeout(1), turns.turn("x"):
        pass


async def test_who_gives_up_in_the_moment_of_its_turn_is_passed_over() -> None:
    turns, gate, log = Turns(1), asyncio.Event(), list[str]()

    async def one(name: str) -> None:
        async with turns.turn("x"):
            log.append(name)
            await gate.wait()

    async with turns.turn("x"):
        second, third = asyncio.create_task(one("second")), asyncio.create_task(one("third"))
        await asyncio.sleep(0)
        second.cancel()  # and before it wakes up the block ends
    fourth = asyncio.create_task(one("fourth"))
    await asyncio.wait([second])
    for _ in range(5):
        await asyncio.sleep(0)
    assert log == ["third"]
    gate.set()
    async with asyncio.timeout(5):
        await asyncio.gather(third, fourth)
