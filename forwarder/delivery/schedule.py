"""Which parts are tried when, and in which order: every QUEUED part, by lane. Pure.

A lane is a destination domain or an explicit hop. Lanes that have something due take turns; of one lane a bounded
number of batches is under way at once, and of all lanes together. A batch is all that is due of one letter in one lane,
so that it can go in one transaction. Trusted letters go first in their lane, but of four turns one is for the others.

Nor do many lanes together: a lane has a standing, by what it is for and how long its last batch took, and of the
bound in all each standing has a quarter that lanes of a lower one cannot take. Where there is room, standing does not
matter.

A lane in trouble (its last attempt showed that no attempt can succeed now) sends one batch as a probe, and the rest
waits for what comes of it, for a bounded time. What was due can then be taken off (`take_due`) to share the probe's
fate. A lane can also be held until a time. Neither delays another lane.

Times are seconds by the monotonic clock, so nothing that happens to the time of day matters. The time of day is looked
at once, when a part comes back from the spool (`place`): what is left of its interval is between none and all of it.
What it has waited counts from then on: a restart makes mail expire up to one interval late, never early.

A part is in one place: waiting here, or popped and then the caller's. Every operation takes O(log n) for each part that
it moves. Nothing raises.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf

from forwarder.delivery.intervals import Intervals
from forwarder.model.letter import Part, Waiting, is_for_bounces

_TRUSTED_TURNS = 3  # in a row, before one of the others
_SLACK = 64  # entries taken out that a lane may keep in its heap before it is cleaned
_PROMPT = 5.0  # seconds that a batch of a prompt lane takes at most
_KNOWN = 10_000  # lanes of which it is known that they are prompt, or slow
_AT_ONCE = 1000  # parts that become due in one step, so that a hundred thousand due at once do not stop everything


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many batches are under way at once, and for how many seconds a lane waits for its probe and for the next.

    A slow lane, and one for bounces, has a quarter of `per_lane`.
    """

    per_lane: int = 20
    in_all: int = 200
    patience: float = 60.0


class Standing(IntEnum):
    """What is known of a lane, the best last. Those up to one together have that many quarters of the bound in all."""

    BOUNCES = 1  # strangers choose where our DSNs go, and how long they take there
    SLOW = 2  # in trouble, or its last batch took long: the next hop did, or there was no turn for it
    NEW = 3
    PROMPT = 4


@dataclass(frozen=True, slots=True)
class Due:
    """A part that was due. `since` is when its `progress.waited` was right, by the monotonic clock."""

    waiting: Waiting
    since: float


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes together: parts of one letter, in their order, to one lane. `probe`: the lane is in trouble.

    `begun` is when it was popped, and `standing` what the lane had then.
    """

    lane: str
    parts: tuple[Due, ...]
    probe: bool
    begun: float
    standing: Standing


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

    `wake` is the time of its one valid entry in the schedule's heap; `turn` is the number of its one valid entry in
    the rotation of its standing, 0 for none.
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
    turn: int = 0
    standing: Standing = Standing.NEW

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
        slow = self.standing <= Standing.SLOW
        if self.flying >= (max(1, bounds.per_lane // 4) if slow else bounds.per_lane):
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
        self._rotation: dict[Standing, deque[tuple[int, _Lane]]] = {standing: deque() for standing in Standing}
        self._took_long: OrderedDict[str, bool] = OrderedDict()  # by lane, also by those that are idle
        self._wakes: list[tuple[float, int, _Lane]] = []
        self._count = count(1)
        self._flying = dict.fromkeys(Standing, 0)

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
            self._rank(lane)
        entry = self._entries[waiting.part] = _Entry(waiting, since)
        heappush(lane.future, (at, next(self._count), entry))
        if not lane.turn and (lane.wake is None or at < lane.wake):
            self._plan(lane, now)

    # What goes

    def pop(self, now: float) -> Batch | None:
        """Give what is to be tried next, until `done` under way; None if nothing is due that has room."""
        self._wake_lanes(now)
        while lane := self._next_lane():
            self._rotation[lane.standing].popleft()
            lane.turn = 0
            batch = self._send(lane, now)
            self._plan(lane, now)
            if batch:
                return batch
        return None

    def done(self, batch: Batch, now: float) -> None:
        """End a batch: its parts have been put again, or have come to their end."""
        self._flying[batch.standing] -= 1
        lane = self._lanes[batch.lane]
        lane.flying -= 1
        self._took_long[batch.lane] = now - batch.begun > _PROMPT
        self._took_long.move_to_end(batch.lane)
        if len(self._took_long) > _KNOWN:
            self._took_long.popitem(last=False)
        self._rank(lane)
        self._forget_idle(lane)
        self._plan(lane, now)

    def next_at(self, now: float) -> float | None:
        """Say when `pop` may have something: `now` if at once, None if not before `done` or another part."""
        if not self._has_room(Standing.PROMPT):
            return None
        if self._next_lane():
            return now
        while self._wakes and self._wakes[0][2].wake != self._wakes[0][0]:
            heappop(self._wakes)
        return max(now, self._wakes[0][0]) if self._wakes else None

    def _next_lane(self) -> _Lane | None:
        """Give the lane whose turn it is among those that have room."""
        heads = []
        for standing, lanes in self._rotation.items():
            while lanes and lanes[0][1].turn != lanes[0][0]:
                lanes.popleft()
            if lanes and self._has_room(standing):
                heads.append(lanes[0])
        return min(heads, key=lambda head: head[0])[1] if heads else None

    def _has_room(self, standing: Standing) -> bool:
        """Say whether one more of that standing leaves the better ones their quarters, and they leave it room."""
        flying = 0
        for one in Standing:
            flying += self._flying[one]
            if one >= standing and flying >= -(-self.bounds.in_all * one // len(Standing)):
                return False
        return True

    def _rank(self, lane: _Lane) -> None:
        """Give a lane the standing that it has by now, in its rotation too."""
        took_long = self._took_long.get(lane.name)
        if is_for_bounces(lane.name):
            standing = Standing.BOUNCES
        elif lane.trouble or took_long:
            standing = Standing.SLOW
        else:
            standing = Standing.NEW if took_long is None else Standing.PROMPT
        if standing is not lane.standing:
            lane.standing = standing
            if lane.turn:
                self._queue_up(lane)

    def _queue_up(self, lane: _Lane) -> None:
        lane.turn = next(self._count)
        self._rotation[lane.standing].append((lane.turn, lane))

    def _send(self, lane: _Lane, now: float) -> Batch | None:
        lane.ripen(now)
        free = lane.free_at(now, self.bounds)
        if free is None or free > now or not (parts := lane.take()):
            return None
        for due in parts:
            del self._entries[due.waiting.part]
        lane.flying += 1
        self._flying[lane.standing] += 1
        if lane.trouble and lane.flying == 1:
            lane.patience = now + self.bounds.patience
        return Batch(lane.name, tuple(parts), lane.trouble, now, lane.standing)

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
            self._rank(lane)
            self._plan(lane, now)

    def clear(self, name: str, now: float) -> None:
        """Learn that a lane is no more in trouble; a hold that was asked for stays."""
        lane = self._lanes.get(name)
        if lane and lane.trouble:
            lane.trouble = False
            self._rank(lane)
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
        if lane.turn:
            return
        free = lane.free_at(now, self.bounds)
        at = None if free is None else _first(lane, free)
        if at is not None and at <= now:
            lane.wake = None
            self._queue_up(lane)
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
