"""What stands where the queue and pacing will be: no custody, no pace."""

from collections.abc import Sequence
from itertools import count

from forwarder.model.letter import Letter, Part
from forwarder.model.message import Content, MemoryContent
from forwarder.model.outcome import Outcome
from forwarder.model.reply import Reply
from forwarder.ports import Load, NotKept, Turn

_NO_QUEUE = Reply(451, "4.4.1", "The next hop cannot be reached now: try again later")


class NoCustody:
    """A `Keeper` that takes nothing."""

    def refusal(self) -> Reply | None:
        """Let messages come: they may be handed on at once."""
        return None

    async def keep(self, letter: Letter, outcomes: Sequence[Outcome]) -> None:
        """Raise `NotKept`."""
        words = (str(outcome.reply) for outcome in outcomes if not outcome.reply.positive)
        raise NotKept(Reply(451, "4.4.1", next(words, _NO_QUEUE.text)), "there is no queue")

    def settled(self, part: Part, outcome: Outcome) -> None:
        """Nothing was kept."""


class NoPace:
    """A `Pacer` that lets everything go."""

    def __init__(self) -> None:
        self._numbers = count(1)

    async def turn(self, load: Load, until: float) -> Turn:
        """Give a turn."""
        return Turn(next(self._numbers), {})

    def done(self, turn: Turn, outcomes: Sequence[Outcome]) -> None:
        """Learn nothing."""


async def write(id: str, content: Content) -> Content:
    """Store nothing: what is given to `NoCustody` is not looked at."""
    return content


def adopt(id: str, size: int, digest: bytes, eight_bit: bool) -> Content:
    """Give something in the place of what was not stored."""
    return MemoryContent(b"")
