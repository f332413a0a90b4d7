"""Waiting for turns on asyncio, in a loop whose time goes by itself."""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest

from forwarder.delivery.pacer import LocalPacer
from forwarder.delivery.pacing import Pacing
from forwarder.delivery.providers import PacingSettings
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.model.ruling import Fate, Ruling, Scope
from forwarder.ports import Load, Turn

FINE = Outcome(Verdict.DELIVERED, Reply(250, "2.0.0", "OK"), remote=True)
LOAD = Load("mx.example", "", "d", "s", ("a@b",))


class Selector(selectors.SelectSelector):
    """Waits for no file: it lets the time that it is asked to wait for pass at once."""

    ticks = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.ticks += timeout or 0.0
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    """Its time is that of its selector."""

    def __init__(self) -> None:
        self.selector = Selector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.ticks


class LoopClock:
    """The loop's time."""

    def now(self) -> datetime:
        return datetime(2026, 11, 22, tzinfo=UTC)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def play(scene: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(scene)


def make(per_destination: int = 1) -> LocalPacer:
    return LocalPacer(Pacing(PacingSettings(per_destination), lambda host: host), LoopClock())


def now() -> float:
    return asyncio.get_running_loop().time()


def refused(pause: float) -> Outcome:
    ruling = Ruling("throttled", Scope.ADDRESS, Fate.RETRY, "", pause, 8 * pause)
    return Outcome(Verdict.DEFERRED, Reply(421, "4.7.28", "unusual rate"), remote=True, ruling=ruling)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_who_waits_gets_the_turn_that_is_given_back() -> None:
    async def scene() -> None:
        pacer = make()
        first = await pacer.turn(LOAD, 100)
        waiting = asyncio.create_task(pacer.turn(LOAD, 100))
        await settle()
        assert not waiting.done()
        pacer.done(first, [FINE])
        second = await waiting
        assert second.number and second.number != first.number
        assert now() == 0

    play(scene())


def test_who_gets_none_in_time_is_held() -> None:
    async def scene() -> None:
        pacer = make()
        await pacer.turn(LOAD, 100)
        turn = await pacer.turn(LOAD, 7)
        assert (turn.number, list(turn.held)) == (0, [0])
        assert now() == pytest.approx(7)
        assert turn.held[0].reply.code == 451

    play(scene())


def test_a_pause_that_ends_in_time_is_waited_for_and_a_longer_one_is_not() -> None:
    async def scene() -> None:
        pacer = make()
        pacer.done(await pacer.turn(LOAD, 1), [refused(60)])
        turn = await pacer.turn(LOAD, 59)
        assert (turn.number, turn.held[0].seconds, now()) == (0, 60, 0)
        turn = await pacer.turn(LOAD, 61)
        assert turn.number
        assert now() == pytest.approx(60)

    play(scene())


def test_a_pause_answers_those_who_wait_already() -> None:
    async def scene() -> None:
        pacer = make()
        first = await pacer.turn(LOAD, 1)
        waiting = [asyncio.create_task(pacer.turn(LOAD, until)) for until in (50, 70, 59)]
        await settle()
        pacer.done(first, [refused(60)])
        await settle()
        assert [task.done() for task in waiting] == [True, False, True]
        assert (await waiting[1]).number

    play(scene())


def test_turns_of_a_process_that_died_are_given_back() -> None:
    async def scene() -> None:
        pacer = make(2)
        first, second = await pacer.turn(LOAD, 1), await pacer.turn(LOAD, 1)
        waiting = asyncio.create_task(pacer.turn(LOAD, 100))
        await settle()
        pacer.abandon([first.number, first.number, 999])
        assert (await waiting).number
        assert not (await pacer.turn(LOAD, now())).number  # not given back twice
        pacer.done(first, [FINE])  # it has ended already
        assert not (await pacer.turn(LOAD, now())).number
        pacer.done(second, [FINE])
        assert (await pacer.turn(LOAD, now())).number

    play(scene())


@pytest.mark.parametrize("order", ["cancel, done", "done, cancel"])
def test_a_cancelled_caller_loses_no_turn_and_keeps_none(order: str) -> None:
    async def scene() -> None:
        pacer = make()
        first = await pacer.turn(LOAD, 100)
        waiting = [asyncio.create_task(pacer.turn(LOAD, 100)) for _ in range(2)]
        await settle()
        if order == "cancel, done":
            waiting[0].cancel()
        pacer.done(first, [FINE])
        if order == "done, cancel":  # it has got the turn and does not know it yet
            waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        second = await waiting[1]
        assert second.number
        assert not (await pacer.turn(LOAD, now())).number  # there is but one
        pacer.done(second, [FINE])
        assert (await pacer.turn(LOAD, now())).number

    play(scene())


def test_a_cancelled_caller_gets_nothing_later() -> None:
    async def scene() -> None:
        pacer = make()
        first = await pacer.turn(LOAD, 100)
        waiting = asyncio.create_task(pacer.turn(LOAD, 100))
        await settle()
        waiting.cancel()
        await settle()
        pacer.done(first, [FINE])
        assert (await pacer.turn(LOAD, now())).number

    play(scene())


def test_many_with_a_slow_provider_are_all_served_in_order() -> None:
    async def scene() -> None:
        pacer, order = make(3), list[int]()

        async def one(number: int) -> None:
            turn: Turn = await pacer.turn(LOAD, 1000)
            order.append(number)
            await asyncio.sleep(1)
            pacer.done(turn, [FINE])

        await asyncio.gather(*map(one, range(30)))
        assert order == list(range(30))
        assert now() == pytest.approx(10)

    play(scene())


def test_close_leaves_no_timer() -> None:
    async def scene() -> None:
        pacer = make()
        await pacer.turn(LOAD, 100)
        waiting = asyncio.create_task(pacer.turn(LOAD, 100))
        await settle()
        pacer.close()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.sleep(500)
        pacer.close()

    play(scene())
