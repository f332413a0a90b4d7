"""What was delivered of messages that as a whole were not: so that a sender's retry does not make second copies.

A sender who was told 451 sends the whole message again, also to those who have got it. An entry is what recognises the
same message for the same destination: who sent it, to which address of ours, where that leads, and the digest of its
octets. Bounded in number and time; `ledger` makes it durable. Pure.

The age of an entry is the time since it was last put or asked for, since a sender asks with every retry: one that
tries for days must not find the entry gone halfway. Those of the greatest age go first.
"""

import hashlib
from typing import NewType

from forwarder.model.message import Delivery, Outgoing
from forwarder.model.outcome import Outcome
from forwarder.ports import Clock

Key = NewType("Key", bytes)  # a digest, since a hundred thousand are kept

MAX_ENTRIES = 100_000
MAX_AGE = 432_000.0  # seconds: senders give up after four to five days (RFC 5321 4.5.4.1)


def key_of(message: Outgoing, delivery: Delivery, digest: bytes) -> Key:
    """Give what recognises one destination of one message, however often it is sent; `digest` is the content's."""
    sender = message.original_sender.key if message.original_sender else ()
    destination = delivery.destination
    words = (*sender, *delivery.recipient.key, *destination.address.key, str(destination.via or ""))
    return Key(hashlib.sha256("\0".join(words).encode() + b"\0" + digest).digest())


class Memory:
    """Outcomes of deliveries by key."""

    def __init__(self, clock: Clock, entries: int = MAX_ENTRIES, seconds: float = MAX_AGE) -> None:
        self._clock = clock
        self._entries = entries
        self.seconds = seconds
        self._known: dict[Key, tuple[float, Outcome]] = {}  # in the order in which they were last used

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: Key) -> Outcome | None:
        """Give what is remembered, and make its age anew."""
        self._expire()
        found = self._known.pop(key, None)
        if found is None:
            return None
        self._known[key] = (self._clock.monotonic(), found[1])
        return found[1]

    def put(self, key: Key, outcome: Outcome) -> None:
        """Remember; an entry that is there already is made anew."""
        self._expire()
        self._known.pop(key, None)
        self._known[key] = (self._clock.monotonic(), outcome)
        if len(self._known) > self._entries:
            del self._known[next(iter(self._known))]

    def forget(self, key: Key) -> bool:
        """Remove an entry; say whether there was one."""
        return self._known.pop(key, None) is not None

    def keep_for(self, seconds: float) -> None:
        """Let entries, also those that are there, reach this age."""
        self.seconds = seconds

    def _expire(self) -> None:
        oldest = self._clock.monotonic() - self.seconds
        while self._known and (first := next(iter(self._known))) and self._known[first][0] <= oldest:
            del self._known[first]
