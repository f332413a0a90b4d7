"""Who waits for a turn, and who is next. Pure.

Trusted ones go first, but of four turns an untrusted one gets at least one when both wait. Among equals who came first
goes first, also when it has been away meanwhile because of a hold of its own.
"""

from dataclasses import dataclass, field
from enum import Enum
from heapq import heappop, heappush

from forwarder.ports import Load

_RUN = 3  # trusted ones in a row


class Place(Enum):
    """Where a waiter is."""

    IN_LINE = "in line"
    AWAY = "away"  # held itself for a while, while others go
    GONE = "gone"


@dataclass(slots=True, eq=False)
class Waiter:
    """Waits until `until`; `number` grows in the order in which they come."""

    load: Load
    until: float
    number: int
    place: Place = Place.IN_LINE


@dataclass(slots=True)
class Line:
    """The waiters for one window. It is false when nobody is in line."""

    _heaps: tuple[list[tuple[int, Waiter]], list[tuple[int, Waiter]]] = field(default_factory=lambda: ([], []))
    _run: int = 0  # trusted ones since the last that was not

    def __len__(self) -> int:
        return sum(map(len, self._tidied()))

    def __bool__(self) -> bool:
        return any(self._tidied())

    def put(self, waiter: Waiter) -> None:
        """Put a waiter in its place, which is by its number."""
        waiter.place = Place.IN_LINE
        heappush(self._heaps[not waiter.load.trusted], (waiter.number, waiter))

    def next(self) -> Waiter | None:
        """Give who is next, and leave it there."""
        trusted, others = self._tidied()
        heap = others if not trusted or (others and self._run >= _RUN) else trusted
        return heap[0][1] if heap else None

    def take(self, waiter: Waiter, *, served: bool) -> None:
        """Take out who is next; `served` says that it got a turn, which counts for who is next then."""
        heappop(self._heaps[not waiter.load.trusted])
        if served:
            self._run = self._run + 1 if waiter.load.trusted else 0

    def _tidied(self) -> tuple[list[tuple[int, Waiter]], list[tuple[int, Waiter]]]:
        """Give the heaps without those at their tops who have left."""
        for heap in self._heaps:
            while heap and heap[0][1].place is not Place.IN_LINE:
                heappop(heap)
        return self._heaps
