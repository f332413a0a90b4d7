"""How many messages one mailbox gets in a minute: a sliding window, exact. Pure; times are monotonic seconds.

No 60 seconds (their end not included) hold more turns for one mailbox than its limit, counted when the turn begins. A
mailbox takes memory for as many numbers as its limit; of the mailboxes beyond `most` the one that was used longest ago
is forgotten, and its count with it.
"""

from collections import OrderedDict, deque

SECONDS = 60.0


class Quotas:
    """Counts by mailbox."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._begun: OrderedDict[str, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._begun)

    def free(self, mailbox: str, limit: int) -> float:
        """Give when the next message may go; 0 when one could ever since."""
        begun = self._begun.get(mailbox)
        return begun[-limit] + SECONDS if begun and len(begun) >= limit else 0.0

    def count(self, mailbox: str, limit: int, now: float) -> None:
        """Count a message that is about to go."""
        begun = self._begun.get(mailbox)
        if begun is None or begun.maxlen != limit:
            begun = self._begun[mailbox] = deque(begun or (), maxlen=limit)
        begun.append(now)
        self._begun.move_to_end(mailbox)
        if len(self._begun) > self._most:
            self._begun.popitem(last=False)
