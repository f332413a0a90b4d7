"""Which parts are tried when, and in which order: every QUEUED part, by lane. Pure.

A lane is a destination domain or an explicit hop. Lanes that have something due take turns; of one lane a bounded
number of batches is under way at once, and of all lanes together. A batch is all that is due of one letter in one lane,
so that it can go in one transaction. Trusted letters go first in their lane, but of four turns one is for the others.

A lane in trouble (its last attempt showed that no attempt can succeed now) sends one batch as a probe, and the rest
waits for what comes of it, for a bounded time. What was due can then be taken off (`take_due`) to share the probe's
fate. A lane can also be held until a time. Neither delays another lane.

Times are seconds by the monotonic clock, so nothing that happens to the time of day matters. The time of day is looked
at once, when a part comes back from the spool (`place`): what is left of its interval is between none and all of it.
What it has waited counts from then on: a restart makes mail expire up to one interval late, never early.

A part is in one place: waiting here, or popped and then the caller's. Every operation takes O(log n) for each part that
it moves. Nothing raises.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf

from forwarder.delivery.intervals import Intervals
from forwarder.model.letter import Part, Waiting

_TRUSTED_TURNS = 3  # in a row, before one of the others
_SLACK = 64  # entries taken out that a lane may keep in its heap before it is cleaned
_AT_ONCE = 1000  # parts that become due in one step, so that a hundred thousand due at once do not stop everything


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many batches are under way at once, and for how many seconds a lane waits for its probe and for the next."""

    per_lane: int = 20
    in_all: int = 200
    patience: float = 60.0


@dataclass(frozen=True, slots=True)
class Due:
    """A part that was due. `since` is when its `progress.waited` was right, by the monotonic clock."""

    waiting: Waiting
    since: float


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes together: parts of one letter, in their order, to one lane. `probe`: the lane is in trouble."""

    lane: str
    parts: tuple[Due, ...]
    probe: bool = False


@dataclass(eq=False, slots=True)
class _Entry:
    waiting: Waiting
    since: float
    live: bool = True

    @property
    def due(self) -> Due:
        return Due(self.waiting, self.since)


@dataclass(eq=False, slots=True)
class _Lane:
    """`future` is a heap by time. `ready` has what is due by letter, and `queues` the letters' order: trusted, others.

    `wake` is the time of its one valid entry in the schedule's heap; `turning` says that it is in the rotation.
    """

    name: str
    future: list[tuple[float, int, _Entry]] = field(default_factory=list)
    dead: int = 0
    ready: dict[str, dict[int, _Entry]] = field(default_factory=dict)
    queues: tuple[deque[str], deque[str]] = field(default_factory=lambda: (deque(), deque()))
    streak: int = 0
    flying: int = 0
    until: float = -inf
    trouble: bool = False
    patience: float = -inf  # until then a lane in trouble waits for what is under way
    wake: float | None = None
    turning: bool = False

    @property
    def idle(self) -> bool:
        """Whether nothing is known of it that must be kept."""
        return not (self.future or self.ready or self.flying)

    def ripen(self, now: float) -> None:
        """Move what is due by now from `future` to `ready`, or a good part of it."""
        for _ in range(_AT_ONCE):
            self._clean()
            if not self.future or self.future[0][0] > now:
                break
            self._make_ready(heappop(self.future)[2])

    def _clean(self) -> None:
        while self.future and not self.future[0][2].live:
            heappop(self.future)
            self.dead -= 1

    def _make_ready(self, entry: _Entry) -> None:
        part = entry.waiting.part
        if part.id not in self.ready:
            self.queues[0 if entry.waiting.trusted else 1].append(part.id)
        self.ready.setdefault(part.id, {})[part.number] = entry

    def drop(self, entry: _Entry) -> None:
        """Take an entry out, wherever it is."""
        entry.live = False
        part = entry.waiting.part
        letter = self.ready.get(part.id, {})
        if letter.get(part.number) is entry:
            del letter[part.number]
            if not letter:
                del self.ready[part.id]  # its place in the queue is passed over
            return
        self.dead += 1
        if self.dead > _SLACK and self.dead * 2 > len(self.future):
            self.future = [one for one in self.future if one[2].live]
            heapify(self.future)
            self.dead = 0
        self._clean()

    def free_at(self, now: float, bounds: Bounds) -> float | None:
        """Say from when on the lane may send something; None: not before something else happens."""
        if self.flying >= bounds.per_lane:
            return None
        at = max(now, self.until)
        return max(at, self.patience) if self.trouble and self.flying else at

    def take(self) -> list[Due]:
        """Take all that is due of the letter whose turn it is; nothing if nothing is due."""
        trusted, others = self.queues
        while letter := self._next(trusted, others):
            if entries := self.ready.pop(letter, None):
                return [entries[number].due for number in sorted(entries)]
        return []

    def _next(self, trusted: deque[str], others: deque[str]) -> str:
        if trusted and (self.streak < _TRUSTED_TURNS or not others):
            self.streak += 1
            return trusted.popleft()
        self.streak = 0
        return others.popleft() if others else ""


class Schedule:
    """The parts that wait. `bounds` may be replaced at any time."""

    def __init__(self, intervals: Intervals, bounds: Bounds) -> None:
        self.intervals = intervals
        self.bounds = bounds
        self._entries: dict[Part, _Entry] = {}
        self._lanes: dict[str, _Lane] = {}
        self._rotation: deque[_Lane] = deque()
        self._wakes: list[tuple[float, int, _Lane]] = []
        self._count = count()
        self._flying = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, part: Part) -> bool:
        return part in self._entries

    # What waits

    def place(self, waiting: Waiting, now: float, wall: datetime) -> None:
        """Take a part from the spool, or one whose due time was changed there; in place of what is known of it already.

        What a part has waited since its progress was noted is known only of one that is here. Of another one nothing
        is counted: what only the time of day could tell would let mail expire early.
        """
        progress = waiting.progress
        left = 0.0
        if progress.due is not None and progress.due > wall:
            left = min((progress.due - wall).total_seconds(), self.intervals.longest(progress.attempts))
        known = self._entries.get(waiting.part)
        self._put(waiting, now, now + left, now if known is None else known.since)

    def put(self, waiting: Waiting, now: float, at: float) -> None:
        """Take a part whose progress has just been noted; in place of what is known of it already."""
        self._put(waiting, now, at, now)

    def put_back(self, due: Due, now: float, at: float) -> None:
        """Take a part again with which nothing could be done."""
        self._put(due.waiting, now, at, due.since)

    def remove(self, part: Part) -> Due | None:
        """Forget a part; give it if it was waiting."""
        entry = self._entries.pop(part, None)
        if entry is None:
            return None
        lane = self._lanes[entry.waiting.lane]
        lane.drop(entry)
        self._forget_idle(lane)
        return entry.due

    def _put(self, waiting: Waiting, now: float, at: float, since: float) -> None:
        if waiting.part in self._entries:
            self.remove(waiting.part)
        lane = self._lanes.get(waiting.lane)
        if lane is None:
            lane = self._lanes[waiting.lane] = _Lane(waiting.lane)
        entry = self._entries[waiting.part] = _Entry(waiting, since)
        heappush(lane.future, (at, next(self._count), entry))
        if not lane.turning and (lane.wake is None or at < lane.wake):
            self._plan(lane, now)

    # What goes

    def pop(self, now: float) -> Batch | None:
        """Give what is to be tried next, until `done` under way; None if nothing is due that has room."""
        self._wake_lanes(now)
        while self._rotation and self._flying < self.bounds.in_all:
            lane = self._rotation.popleft()
            lane.turning = False
            batch = self._send(lane, now)
            self._plan(lane, now)
            if batch:
                return batch
        return None

    def done(self, batch: Batch, now: float) -> None:
        """End a batch: its parts have been put again, or have come to their end."""
        self._flying -= 1
        lane = self._lanes[batch.lane]
        lane.flying -= 1
        self._forget_idle(lane)
        self._plan(lane, now)

    def next_at(self, now: float) -> float | None:
        """Say when `pop` may have something: `now` if at once, None if not before `done` or another part."""
        if self._flying >= self.bounds.in_all:
            return None
        if self._rotation:
            return now
        while self._wakes and self._wakes[0][2].wake != self._wakes[0][0]:
            heappop(self._wakes)
        return max(now, self._wakes[0][0]) if self._wakes else None

    def _send(self, lane: _Lane, now: float) -> Batch | None:
        lane.ripen(now)
        free = lane.free_at(now, self.bounds)
        if free is None or free > now or not (parts := lane.take()):
            return None
        for due in parts:
            del self._entries[due.waiting.part]
        lane.flying += 1
        self._flying += 1
        if lane.trouble and lane.flying == 1:
            lane.patience = now + self.bounds.patience
        return Batch(lane.name, tuple(parts), lane.trouble)

    # Lanes

    def hold_lane(self, name: str, now: float, until: float) -> None:
        """Send nothing to a lane until a time."""
        if lane := self._lanes.get(name):
            lane.until = until
            self._plan(lane, now)

    def trouble(self, name: str, now: float) -> None:
        """Learn that what was tried last failed in a way in which everything to this lane would."""
        lane = self._lanes.get(name)
        if lane and not lane.trouble:
            lane.trouble = True
            lane.patience = now + self.bounds.patience
            self._plan(lane, now)

    def clear(self, name: str, now: float) -> None:
        """Learn that a lane is no more in trouble; a hold that was asked for stays."""
        lane = self._lanes.get(name)
        if lane and lane.trouble:
            lane.trouble = False
            self._plan(lane, now)

    def take_due(self, name: str, now: float) -> list[Due]:
        """Take all off a lane that is due by now, letter by letter; the parts are the caller's to put again."""
        lane = self._lanes.get(name)
        if lane is None:
            return []
        taken = list(_all_due(lane, now))
        for due in taken:
            del self._entries[due.waiting.part]
        self._forget_idle(lane)
        return taken

    def _plan(self, lane: _Lane, now: float) -> None:
        """Bring a lane into the rotation, or have it woken when it may have something to send."""
        lane.ripen(now)
        if lane.turning:
            return
        free = lane.free_at(now, self.bounds)
        at = None if free is None else _first(lane, free)
        if at is not None and at <= now:
            lane.wake = None
            lane.turning = True
            self._rotation.append(lane)
        elif at != lane.wake:
            lane.wake = at
            if at is not None:
                heappush(self._wakes, (at, next(self._count), lane))

    def _wake_lanes(self, now: float) -> None:
        while self._wakes and self._wakes[0][0] <= now:
            at, _, lane = heappop(self._wakes)
            if lane.wake == at:
                lane.wake = None
                self._plan(lane, now)

    def _forget_idle(self, lane: _Lane) -> None:
        if lane.idle and self._lanes.get(lane.name) is lane:
            del self._lanes[lane.name]


def _first(lane: _Lane, free: float) -> float | None:
    if lane.ready:
        return free
    return max(free, lane.future[0][0]) if lane.future else None


def _all_due(lane: _Lane, now: float) -> Iterator[Due]:
    lane.ripen(now)
    while parts := lane.take():
        yield from parts
        lane.ripen(now)
