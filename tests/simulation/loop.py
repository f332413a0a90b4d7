"""An event loop without files, threads and real time: when nothing is ready, time jumps to the next timer.

The order of everything is that in which it was asked for. What runs in the context of a `Process` that was killed never
runs again: no `finally`, no callback; that is what kill -9 does.
"""

import asyncio
from contextvars import ContextVar
from heapq import heappop
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_TICK = 1e-6  # seconds that pass at least: no two things that waited happen at the same time
MOST_STEPS = 3_000_000  # of one run: more is a loop without an end


class Process:
    """What lives and dies as a whole."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.dead = False


PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)


class Stuck(Exception):  # noqa: N818 - it says what is the matter
    """Nothing can ever happen again, or something happens without end."""


class VirtualLoop(asyncio.BaseEventLoop):
    """`steps` counts what was run for processes; `on_step` is called before the step that has the number `alarm`."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.steps = 0
        self.ran = 0
        self.alarm = -1
        self.on_alarm: Callable[[], None] = lambda: None
        self.faults: list[str] = []
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """Give the virtual time in seconds."""
        return self.seconds

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.faults.append(f"{context.get('message')}: {type(error).__name__}: {error}")

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]
        timers: Any = self._scheduled  # type: ignore[attr-defined]
        while timers and timers[0]._cancelled:
            heappop(timers)._scheduled = False
        if not ready:
            if not timers:
                raise Stuck("nothing is left that could happen")
            self.seconds = max(self.seconds + _TICK, timers[0]._when)
        while timers and timers[0]._when <= self.seconds:
            timer = heappop(timers)
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            self._step(ready.popleft())
        if self.ran > MOST_STEPS:
            raise Stuck(f"{self.ran} steps and no end")

    def _step(self, handle: Any) -> None:
        if handle._cancelled:
            return
        process = handle._context.get(PROCESS)
        self.ran += 1
        if process is not None:
            if process.dead:
                return
            self.steps += 1
            if self.steps == self.alarm:
                self.on_alarm()
                if process.dead:
                    return
        handle._run()
