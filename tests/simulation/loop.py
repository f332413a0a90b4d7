"""An event loop without files, threads and real time: when nothing is ready, time jumps to the next timer.

The order of everything is that in which it was asked for. What runs in the context of a `Process` that was killed never
runs again: no `finally`, no callback; that is what kill -9 does.
"""

import asyncio
from collections import deque
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
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


class Handle:
    """A callback to come; what asyncio's own does, without its looks at the debug mode."""

    __slots__ = ("args", "callback", "context", "is_cancelled", "seconds")

    def __init__(self, callback: "Callable[..., object]", args: tuple[Any, ...], context: Context | None) -> None:
        self.callback = callback
        self.args = args
        self.context = copy_context() if context is None else context
        self.is_cancelled = False
        self.seconds = 0.0

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self.seconds


class VirtualLoop(asyncio.BaseEventLoop):
    """`steps` counts what was run for processes; `on_alarm` is called before the step that has the number `alarm`."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.steps = 0
        self.ran = 0
        self.alarm = -1
        self.on_alarm: Callable[[], None] = lambda: None
        self.faults: list[str] = []
        self._now: deque[Handle] = deque()
        self._later: list[tuple[float, int, Handle]] = []  # the number keeps the order of what is due together
        self._timers = 0
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """Give the virtual time in seconds."""
        return self.seconds

    def drop(self) -> None:
        """Forget everything that was to come."""
        self._now.clear()
        self._later.clear()

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        handle = Handle(callback, args, context)
        self._now.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        return self.call_at(self.seconds + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        handle = Handle(callback, args, context)
        handle.seconds = when
        self._timers += 1
        heappush(self._later, (when, self._timers, handle))
        return handle

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, work: Any, *, name: str | None = None, context: Context | None = None
    ) -> Any:
        return asyncio.Task(work, loop=self, name=name, context=context)

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.faults.append(f"{context.get('message')}: {type(error).__name__}: {error}")

    def _run_once(self) -> None:
        now, later = self._now, self._later
        while later and later[0][2].is_cancelled:
            heappop(later)
        if not now:
            if not later:
                raise Stuck("nothing is left that could happen")
            self.seconds = max(self.seconds + _TICK, later[0][0])
        while later and later[0][0] <= self.seconds:
            now.append(heappop(later)[2])
        for _ in range(len(now)):
            handle = now.popleft()
            if not handle.is_cancelled and self._may_run(handle.context.get(PROCESS)):
                try:
                    handle.context.run(handle.callback, *handle.args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # as asyncio's own handle does
                    self.call_exception_handler({"message": f"in {handle.callback}", "exception": error})
        if self.ran > MOST_STEPS:
            raise Stuck(f"{self.ran} steps and no end")

    def _may_run(self, process: Process | None) -> bool:
        """Count a step; give whether its process lives."""
        self.ran += 1
        if process is None:
            return True
        if process.dead:
            return False
        self.steps += 1
        if self.steps == self.alarm:
            self.on_alarm()
        return not process.dead
