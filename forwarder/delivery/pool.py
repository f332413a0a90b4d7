"""Bookkeeping of connections: which idle ones can be used again, how many may be open at once. Pure.

`Pool` holds idle connections by what they are good for; `Slots` counts what is under way and keeps who waits in order.
Neither knows what a connection or a waiter is, closes or wakes one: they say which, the courier does it. The clock's
reading is a parameter, in seconds that only grow.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from forwarder.delivery.settings import Limits
from forwarder.smtp.client import TlsUse

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class PoolKey:
    """What a connection is good for: only mail with the same key may use it again."""

    address: str
    port: int
    tls: TlsUse
    source: str | None


@dataclass(frozen=True, slots=True)
class Use:
    """A connection's past: when it was made, how many messages it has carried."""

    made: float
    messages: int = 0

    def once_more(self) -> "Use":
        """Count a message."""
        return Use(self.made, self.messages + 1)


@dataclass(frozen=True, slots=True)
class _Idle(Generic[C]):
    connection: C
    use: Use
    since: float


class Pool(Generic[C]):
    """Idle connections, the one used last taken first."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._idle: dict[PoolKey, deque[_Idle[C]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._idle.values()))

    def take(self, key: PoolKey, now: float) -> tuple[C, Use] | None:
        """Give an idle connection that may be used again; those too old stay until `expired` gives them."""
        held = self._idle.get(key)
        if not held or not self._is_fresh(held[-1], now):
            return None
        idle = held.pop()
        self._tidy(key)
        return idle.connection, idle.use

    def put(self, key: PoolKey, connection: C, use: Use, now: float) -> list[C]:
        """Take a connection back; give those that have to be closed for it."""
        idle = _Idle(connection, use, now)
        if use.messages >= self._limits.messages or not self._is_fresh(idle, now):
            return [connection]
        held = self._idle.setdefault(key, deque())
        held.append(idle)
        if len(held) > self._limits.per_destination:
            return [held.popleft().connection]
        return [self._take_oldest()] if len(self) > self._limits.connections else []

    def expired(self, now: float) -> list[C]:
        """Take out what has been idle or alive for too long, to be closed."""
        closing = []
        for key, held in list(self._idle.items()):
            while held and not self._is_fresh(held[0], now):
                closing.append(held.popleft().connection)
            self._tidy(key)
        return closing

    def clear(self) -> list[C]:
        """Take everything out, to be closed."""
        closing = [idle.connection for held in self._idle.values() for idle in held]
        self._idle.clear()
        return closing

    def _take_oldest(self) -> C:
        key = min(self._idle, key=lambda key: self._idle[key][0].since)
        oldest = self._idle[key].popleft()
        self._tidy(key)
        return oldest.connection

    def _is_fresh(self, idle: _Idle[C], now: float) -> bool:
        return now - idle.since < self._limits.idle and now - idle.use.made < self._limits.age

    def _tidy(self, key: PoolKey) -> None:
        if not self._idle[key]:
            del self._idle[key]


W = TypeVar("W")


class Slots(Generic[W]):
    """At most `limit` at once for each key; who comes later waits in line."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used: dict[Hashable, int] = {}
        self._waiting: dict[Hashable, deque[W]] = {}

    def take(self, key: Hashable) -> bool:
        """Take a slot if one is free."""
        used = self._used.get(key, 0)
        if used >= self._limit:
            return False
        self._used[key] = used + 1
        return True

    def wait(self, key: Hashable, waiter: W) -> None:
        """Stand in line; `free` will give this waiter."""
        self._waiting.setdefault(key, deque()).append(waiter)

    def leave(self, key: Hashable, waiter: W) -> bool:
        """Leave the line; False when the waiter was not in it any more, because it has been given a slot."""
        line = self._waiting.get(key, deque())
        if waiter not in line:
            return False
        line.remove(waiter)
        if not line:
            del self._waiting[key]
        return True

    def free(self, key: Hashable) -> W | None:
        """Give a slot back; the waiter returned has it now."""
        if line := self._waiting.get(key):
            waiter = line.popleft()
            if not line:
                del self._waiting[key]
            return waiter
        self._used[key] -= 1
        if not self._used[key]:
            del self._used[key]
        return None
