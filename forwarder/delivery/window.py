"""How many turns at once, and how many a second: what one provider bears from one of our addresses. Pure.

`Window` counts turns at once: +1 for each window of successes, ×0.7 when the provider throttles, back to 1 after a
pause. From one below the number at which it throttled it grows ten times slower. A provider that speaks of connections
at once, and of nothing else, has told that number: then the window is one below it, and grows the slower the more often
that was so, down to a fiftieth. If one connection alone is too many for it, or fewer are again at once, it means the
rate.

`Rate` is unlimited until the provider throttles. From then on it is a curve over `u`, the time that was spent sending
near the limit, in units of `patience`:

    u ≤ 1   top − (top − floor)·(1 − u)³      back up to just below the ceiling, where it is flat
    u > 1   top + 0.1·ceiling·(u − 1)³        beyond it: 2 % above at u = 1.8, 7 % at 2, the fourfold at 4.2

`ceiling` is the rate at which the provider throttled, `top` 0.97 of it. `floor` is 0.9 of it where the curve had held
for a while (u ≥ 0.25): then it was nearly right. Else it was too high from the start, and `floor` is a half of it: so
a first guess 500 times too high is mended in nine steps. At u = 6 the limit is given up as one of the past; so is one
whose provider has not throttled for a day.

Why a curve (TCP's CUBIC, RFC 9438, has the same): most of the time is spent at 90 to 100 % of what the provider bears,
it is met only about every second `patience`, and more room than before is still found. `patience` is 12 times the
pause that a throttle costs, so that pauses take at most some 5 % of the time; at least 30 seconds and at least 100
messages, so that at most some 1 % of attempts meet a throttle; at most 4 hours.
"""

from collections import deque
from dataclasses import dataclass, field

_SHRINK = 0.7  # of a window
_SLOWER = 0.1  # growth of a window that was too wide before
_STEADY = 5  # times
_IN_VAIN = 3  # times
_HAIR = 1e-9  # so that three thirds are one

_TOP = 0.97  # of the ceiling
_NEAR, _FAR = 0.9, 0.5  # of the ceiling, that is the floor
_HELD = 0.25  # u from which a curve counts as nearly right
_BEYOND = 0.1  # of the ceiling
_GONE = 6.0  # u from which there is no limit any more
_LEAST = 0.01  # messages a second
_PAUSES, _SECONDS, _MESSAGES, _LONGEST = 12, 30.0, 100, 14_400.0
_SLACK = 0.1  # seconds by which a late turn may be caught up
_SEEN = 32  # turns by which the rate is measured
_ENOUGH = 16  # turns without which a measurement says nothing against a known limit
_DAY = 86_400.0


@dataclass(slots=True)
class Window:
    """`width` turns at once, up to `most`; `used` is how many there are. It was too wide at `peak`."""

    width: float
    most: int
    used: int = 0
    peak: float = 0.0  # 0: never yet
    met: int = 0  # how often in a row that number of connections was found too many, up to `_STEADY`
    calm: int = 0  # successes since it was too wide
    vain: int = 0  # times in a row that fewer connections did not help

    @property
    def room(self) -> bool:
        """Whether there is room for one more."""
        return self.used < int(self.width)

    def succeeded(self) -> None:
        """Grow, by one for each window of successes; not while less than half of it is made use of."""
        self.calm += 1
        if self.width >= self.most or 2 * (self.used + 1) < int(self.width):
            return
        speed = _SLOWER / max(1, self.met) if self.peak and self.width >= self.peak - 1 else 1.0
        self.width = min(float(self.most), self.width + speed / int(self.width) + _HAIR)

    def throttled(self, beside: int) -> None:
        """Shrink; `beside` is how many there were, the one that was refused among them."""
        self.peak, self.met, self.calm = float(max(beside, 2)), 0, 0
        self.width = max(1.0, _SHRINK * min(self.width, beside))

    def crowded(self, beside: int) -> bool:
        """Shrink to below the number at which the provider found the connections too many.

        Say whether that can be: not if there was one alone, or if fewer were too many again and again.
        """
        self.vain = 1 if self.calm >= 2 * self.width else self.vain + 1
        if beside < 2 or self.vain > _IN_VAIN:
            return False
        self.met = min(self.met + 1, _STEADY) if beside >= self.peak - 1 > 0 else 1
        fewer = beside - 1.0 if self.vain == 1 else _SHRINK * beside
        self.calm, self.peak, self.width = 0, float(beside), max(1.0, min(self.width, fewer))
        return True

    def begin_again(self) -> None:
        """Go back to one at a time."""
        self.width = 1.0


@dataclass(slots=True)
class Rate:
    """A limit of turns a second; none while `ceiling` is 0. Times are monotonic seconds."""

    ceiling: float = 0.0
    floor: float = 0.0
    patience: float = 0.0
    spent: float = 0.0  # seconds sent near the limit
    cut: float = 0.0  # when it throttled last; 0: never
    due: float = 0.0  # when the next turn may begin
    _begun: deque[float] = field(default_factory=lambda: deque(maxlen=_SEEN))

    def value(self) -> float:
        """Give the turns a second that are allowed; infinity for no limit."""
        if not self.ceiling:
            return float("inf")
        top, u = _TOP * self.ceiling, self.spent / self.patience
        if u <= 1:
            return top - (top - self.floor) * (1 - u) ** 3
        return float(top + _BEYOND * self.ceiling * (u - 1) ** 3)

    def known(self, now: float) -> bool:
        """Say whether the provider has limited the rate of late."""
        return self.cut > 0 and now - self.cut <= _DAY

    def measure_anew(self) -> None:
        """Count only turns from now on: what went before was held up by something else."""
        self._begun.clear()

    def begin(self, now: float) -> None:
        """Count a turn that begins."""
        if self.ceiling:
            self._spend(now)
        self._begun.append(now)

    def throttled(self, now: float, pause: float) -> None:
        """Learn that the provider throttled, and for how many seconds it is left alone because of it."""
        reached = max(_LEAST, self._reached(now))
        held = self.ceiling and self.spent / self.patience >= _HELD
        self.ceiling = reached
        self.floor = max(_LEAST, reached * (_NEAR if held else _FAR))
        self.patience = min(max(_SECONDS, _PAUSES * pause, _MESSAGES / self.floor), _LONGEST)
        self.spent, self.cut = 0.0, now
        self.due = now + 1 / self.floor
        self._begun.clear()

    def _spend(self, now: float) -> None:
        value = self.value()
        gap = now - self._begun[-1] if self._begun else 0.0
        if gap < 2 / value:  # with fewer turns than half of the limit nothing is learnt of it
            self.spent += gap
        if self.spent > _GONE * self.patience or now - self.cut > _DAY:
            self.ceiling = self.due = 0.0
        else:
            self.due = max(self.due, now - _SLACK) + 1 / value

    def _reached(self, now: float) -> float:
        """Give the rate at which turns began of late; not above the limit that was in force."""
        count = len(self._begun)
        if self.ceiling and count < _ENOUGH:
            return self.value()
        if count < 2:
            return 1.0
        return min(self.value(), (count - 1) / max(0.01, self._begun[-1] - self._begun[0]))
