"""How often something may happen: a sliding window per key, in bounded memory.

Promise: of the events of one key that `take` let through, no window of `seconds` (its end not included) holds more
than `limit`. Up to 256 events are remembered exactly; with a higher limit, neighbours within 1/256 of the window are
remembered together at the time of the latest, so the limiter may be that much stricter, never laxer.

At most `max_keys` keys are remembered; beyond that the key that was asked for longest ago is forgotten, and with it
its count. Left out on purpose: persistence (a restart starts afresh) and counts shared between machines.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

_EXACT = 256  # events, or groups of events, that are remembered per key


@dataclass(slots=True)
class _Group:
    """Events near each other; they count until the latest of them has left the window."""

    first: float
    latest: float
    count: int


@dataclass(slots=True)
class _Window:
    groups: deque[_Group] = field(default_factory=deque)
    total: int = 0

    def forget(self, until: float) -> None:
        while self.groups and self.groups[0].latest <= until:
            self.total -= self.groups.popleft().count

    def take_back(self) -> None:
        if self.groups:
            self.total -= 1
            self.groups[-1].count -= 1
            if not self.groups[-1].count:
                self.groups.pop()

    def add(self, now: float, grain: float) -> None:
        self.total += 1
        if self.groups and now - self.groups[-1].first < grain:
            self.groups[-1].latest = now
            self.groups[-1].count += 1
        else:
            self.groups.append(_Group(now, now, 1))


class SlidingLimiter:
    """Counts. `monotonic` gives seconds that never go back (`Clock.monotonic`)."""

    def __init__(self, monotonic: Callable[[], float], max_keys: int = 100_000) -> None:
        self._monotonic = monotonic
        self._max_keys = max_keys
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def room(self, key: str, limit: int, seconds: int) -> bool:
        """Say whether `take` would succeed now, without counting."""
        window = self._windows.get(key)
        if window is None:
            return limit > 0
        window.forget(self._monotonic() - seconds)
        return window.total < limit

    def take(self, key: str, limit: int, seconds: int) -> bool:
        """Count one event; say whether it is within `limit` per `seconds` (if not, it is not counted)."""
        now = self._monotonic()
        window = self._window(key)
        window.forget(now - seconds)
        if window.total >= limit:
            return False
        window.add(now, seconds / _EXACT if limit > _EXACT else 0)
        return True

    def give_back(self, key: str) -> None:
        """Take back the latest event that was counted."""
        if window := self._windows.get(key):
            window.take_back()

    def _window(self, key: str) -> _Window:
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window()
            if len(self._windows) > self._max_keys:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end(key)
        return window


class LocalLimiter:
    """Implements `ports.Limiter` by a `SlidingLimiter` of this process."""

    def __init__(self, windows: SlidingLimiter) -> None:
        self._windows = windows

    async def room(self, key: str, limit: int, seconds: int) -> bool:
        """Say whether `take` would succeed now, without counting."""
        return self._windows.room(key, limit, seconds)

    async def take(self, key: str, limit: int, seconds: int) -> bool:
        """Count one event; say whether it is within `limit` per `seconds`."""
        return self._windows.take(key, limit, seconds)

    def give_back(self, key: str) -> None:
        """Take back the latest event that was counted."""
        self._windows.give_back(key)
