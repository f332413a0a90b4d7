"""Spool operations that must happen: tried again, with back-off, until they do.

What a next hop has answered is true whether our disk works or not, and forgetting it makes second copies. So it is kept
in memory and recorded as soon as that is possible. While the spool fails, `free` lets hardly anything new begin, since
whatever began could not be recorded either. The operator is alerted once for each time of trouble.

A `Damaged` letter is no trouble of the spool and is passed on; everything else is tried again without end.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from forwarder.ports import Clock, Damaged, EventLog

T = TypeVar("T")

_FIRST = 1.0  # seconds before the second try; each further one takes twice as long
_LONGEST = 60.0
_CLOSED = 30.0  # shorter, so that what cannot be recorded at all does not keep everything else from its turn


class Recorder:
    """Insists."""

    def __init__(self, clock: Clock, sleep: Callable[[float], Awaitable[None]], log: EventLog) -> None:
        self._clock = clock
        self._sleep = sleep
        self._log = log
        self._failing = False
        self.waiting = 0  # operations that have failed and will be tried again
        self.closed_until = 0.0  # nothing new may begin before, by the monotonic clock

    async def surely(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Do it, however long it takes; raise `Damaged` alone."""
        pause = _FIRST
        while True:
            try:
                result = await operation()
            except Damaged:
                raise
            except Exception as error:  # noqa: BLE001,RUF100 - an outcome is not given up for a fault of ours
                self.failed(error)
            else:
                self.worked()
                return result
            self.waiting += 1
            try:
                await self._sleep(pause)
            finally:
                self.waiting -= 1
            pause = min(pause * 2, _LONGEST)

    def failed(self, error: Exception) -> None:
        """Learn that the spool failed."""
        if not self._failing:
            self._log.event("alert", component="spool", text=f"recording fails: {type(error).__name__}: {error}")
        self._failing = True
        self.closed_until = self._clock.monotonic() + _CLOSED

    def worked(self) -> None:
        """Learn that the spool can record."""
        self._failing = False
        self.closed_until = 0.0

    def free(self) -> bool:
        """Say whether something new may begin; during trouble that is one thing now and then, which may end it."""
        now = self._clock.monotonic()
        if now < self.closed_until:
            return False
        if self._failing:
            self.closed_until = now + _CLOSED
        return True
