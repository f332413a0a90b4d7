"""Waiting for turns on asyncio, by the rules of `pacing`: the `ports.Pacer` of one process.

A caller that is cancelled leaves the line, or gives back the turn that it had got in the same moment. Turns taken for
another process are given back by `abandon` when that dies.
"""

import asyncio
from collections.abc import Iterable, Sequence

from forwarder.delivery.pacing import Pacing
from forwarder.delivery.waiting import Waiter
from forwarder.model.outcome import Outcome
from forwarder.ports import Clock, Load, Turn


class LocalPacer:
    """Implements `Pacer`. `close` it at the end: it may have set a timer."""

    def __init__(self, core: Pacing, clock: Clock) -> None:
        self._core = core
        self._clock = clock
        self._futures: dict[Waiter, asyncio.Future[Turn]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = float("inf")

    async def turn(self, load: Load, until: float) -> Turn:
        """Wait for a turn, until `until` at most; what has none by then is held."""
        got = self._core.ask(load, until, self._clock.monotonic())
        if isinstance(got, Turn):
            return got
        future: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        self._futures[got] = future
        self._deliver()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.abandon([future.result().number])
            raise
        finally:
            self._futures.pop(got, None)
            self._core.leave(got)

    def done(self, turn: Turn, outcomes: Sequence[Outcome]) -> None:
        """End a turn with what was heard; none if the provider was not reached. Never raises."""
        self._core.done(turn, outcomes, self._clock.monotonic())
        self._deliver()

    def abandon(self, numbers: Iterable[int]) -> None:
        """Give turns back of which nobody knows what came of them; those that have ended do not matter."""
        self._core.abandon(numbers, self._clock.monotonic())
        self._deliver()

    def close(self) -> None:
        """Set no more timers. Who still waits is not answered: its caller cancels it."""
        if self._timer:
            self._timer.cancel()
        self._timer = None

    def _deliver(self) -> None:
        while answers := self._core.ready(self._clock.monotonic()):
            refused = [turn.number for waiter, turn in answers if not self._tell(waiter, turn)]
            self._core.abandon(refused, self._clock.monotonic())
        self._set_timer()

    def _tell(self, waiter: Waiter, turn: Turn) -> bool:
        """Give a waiter its answer; False if its caller has been cancelled and does not want it any more."""
        future = self._futures.pop(waiter)
        if future.done():
            return False
        future.set_result(turn)
        return True

    def _set_timer(self) -> None:
        due = self._core.due
        if self._timer and due == self._timer_due:
            return
        if self._timer:
            self._timer.cancel()
        self._timer, self._timer_due = None, due
        if due < float("inf"):
            delay = max(0.0, due - self._clock.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._deliver()
