"""Telling the owner what is held: many failures, one mail. Pure.

The first failure starts a short wait, so that those that come with it are in the same notice; after a notice there is
none for a longer time. What is told of is what the spool holds untold when the notice is made, so nothing depends on
what was remembered here, and a restart forgets nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import inf

from forwarder.bounce.notice import MAX_ITEMS, Item, Notice, compose_notice
from forwarder.model.address import Address
from forwarder.model.letter import Change, Letter, Part, State


@dataclass(slots=True)
class Notices:
    """When to tell: `after` seconds from the first failure on, and `every` so many seconds at most."""

    after: float = 300.0
    every: float = 3600.0
    next_at: float | None = None
    last: float = -inf

    def failed(self, now: float) -> None:
        """Learn that something is held untold."""
        if self.next_at is None:
            self.next_at = max(now + self.after, self.last + self.every)

    def begin(self, now: float) -> bool:
        """Say whether it is time for a notice; if so it counts as sent."""
        if self.next_at is None or now < self.next_at:
            return False
        self.next_at = None
        self.last = now
        return True

    def postpone(self, now: float) -> None:
        """Learn that the notice could not be sent."""
        self.next_at = now + self.after


def untold(letters: Iterable[Letter]) -> list[tuple[Letter, int]]:
    """Give the parts, by letter and number, that the owner has still to be told of."""
    return [
        (letter, number)
        for letter in letters
        for number, progress in enumerate(letter.progress)
        if progress.state is State.HELD and progress.untold
    ]


def told(parts: Sequence[tuple[Letter, int]]) -> list[Change]:
    """Give what makes them told."""
    return [
        Change(Part(letter.message.id, number), replace(letter.progress[number], untold=False))
        for letter, number in parts
    ]


def write(parts: Sequence[tuple[Letter, int]], hostname: str, id: str, to: Address, now: datetime) -> bytes:
    """Give the notice as a message."""
    items = tuple(_item(letter, number) for letter, number in parts[:MAX_ITEMS])
    return compose_notice(Notice(hostname, id, to, now, items, len(parts) - len(items)))


def _item(letter: Letter, number: int) -> Item:
    delivery = letter.message.deliveries[number]
    return Item(
        letter.message.id,
        letter.received,
        letter.message.original_sender,
        delivery.recipient,
        delivery.destination.address,
        letter.progress[number].reply,
        letter.author,
        letter.message_id,
    )
