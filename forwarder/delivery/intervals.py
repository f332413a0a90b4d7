"""When the next attempt is made, and when there is none any more. Pure.

The n-th attempt is followed by the n-th interval, the last of which repeats (RFC 5321 4.5.4.1). Jitter keeps messages
that failed together from coming back together. A part has expired when it has waited long enough *and* was tried often
enough: a gateway that was down for a week, or whose clock jumped, gives nothing up that it has not tried.
"""

from dataclasses import dataclass
from itertools import accumulate, chain, islice, repeat

from forwarder.model.letter import Progress

_ENOUGH = 6  # attempts: no more are asked for before something expires


@dataclass(frozen=True, slots=True)
class Intervals:
    """`seconds` are those between attempts, `expire` those in the queue; `jitter` is a share of the interval.

    `longest_wait` bounds, in seconds, how long a next hop can ask us to stay away.
    """

    seconds: tuple[float, ...] = (60.0, 300.0, 900.0, 1800.0, 3600.0)
    jitter: float = 0.1
    expire: float = 432_000.0
    longest_wait: float = 14_400.0

    def after(self, attempts: int) -> float:
        """Give the plain interval that follows that many attempts; after none, it is the first."""
        return self.seconds[min(max(attempts, 1), len(self.seconds)) - 1]

    def longest(self, attempts: int) -> float:
        """Give the most that jitter makes of the interval."""
        return self.after(attempts) * (1 + self.jitter)

    def drawn(self, attempts: int, chance: float) -> float:
        """Give the interval that follows that many attempts, with the jitter of a chance from 0 to 1."""
        return self.after(attempts) * (1 + self.jitter * (2 * chance - 1))

    def stretched(self, seconds: float, wait: float) -> float:
        """Give an interval made longer because a next hop wants to be left alone for `wait` seconds."""
        return max(seconds, min(wait, self.longest_wait))

    @property
    def enough(self) -> int:
        """How many attempts must have been made of what expires: `_ENOUGH`, or all that fit into `expire`."""
        endless = chain(self.seconds, repeat(self.seconds[-1]))
        ends = accumulate(seconds * (1 + self.jitter) for seconds in islice(endless, _ENOUGH - 1))
        return 1 + sum(end <= self.expire for end in ends)

    def expired(self, progress: Progress) -> bool:
        """Say whether nothing more is to be tried."""
        return progress.waited >= self.expire and progress.attempts >= self.enough
