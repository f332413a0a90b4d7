"""What is being tried at this moment: the parts, and the letters that they are of. Pure.

Several attempts for one letter may be under way, one for each lane, and each settles its own parts. What one has
decided the other must see, so that a sender is told of an address once: so they share one `Letter` here, which is
brought up to date the moment something is decided, before it is recorded.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from forwarder.model.letter import Letter, Part
from forwarder.model.outcome import Outcome, Verdict


@dataclass(slots=True)
class _Open:
    letter: Letter
    users: int = 0


class Underway:
    """Parts by how many attempts are made of them, which is one unless something went wrong; and letters by id."""

    def __init__(self) -> None:
        self._parts: Counter[Part] = Counter()
        self._gone: set[Part] = set()
        self._letters: dict[str, _Open] = {}

    @property
    def parts(self) -> list[Part]:
        """All that is under way."""
        return list(self._parts)

    def begin(self, parts: Iterable[Part]) -> set[Part]:
        """Begin an attempt; give its flight, the parts of which nothing is known yet."""
        flight = set(parts)
        self._parts.update(flight)
        return flight

    def landed(self, flight: set[Part], part: Part) -> None:
        """Learn that what became of a part has been recorded."""
        if part in flight:
            flight.remove(part)
            self._parts[part] -= 1
            if not self._parts[part]:
                del self._parts[part]
                self._gone.discard(part)

    def end(self, flight: set[Part]) -> list[Part]:
        """End an attempt; give the parts that were not recorded and that are still wanted."""
        left = [part for part in flight if part not in self._gone]
        for part in list(flight):
            self.landed(flight, part)
        return left

    def stay(self, part: Part) -> bool:
        """Say whether a part is under way, and if so make it wanted (again)."""
        self._gone.discard(part)
        return part in self._parts

    def leave(self, part: Part) -> None:
        """Learn that a part is not wanted any more: if it is under way, only a delivery counts."""
        if part in self._parts:
            self._gone.add(part)

    def wants(self, part: Part) -> bool:
        """Say whether a part is still to be tried when it is due again."""
        return part not in self._gone

    def counts(self, part: Part, outcome: Outcome) -> bool:
        """Say whether an outcome is to be recorded."""
        return outcome.verdict is Verdict.DELIVERED or part not in self._gone

    @contextmanager
    def opened(self, letter: Letter, numbers: Collection[int]) -> Iterator[None]:
        """Have a letter here while the block runs; of one that is here already these parts are taken anew."""
        held = self._letters.setdefault(letter.message.id, _Open(letter))
        if held.users:
            known = enumerate(held.letter.progress)
            held.letter = replace(
                letter, progress=tuple(letter.progress[n] if n in numbers else old for n, old in known)
            )
        held.users += 1
        try:
            yield
        finally:
            held.users -= 1
            if not held.users:
                del self._letters[letter.message.id]

    def letter(self, id: str) -> Letter:
        """Give a letter that is open."""
        return self._letters[id].letter

    def update(self, letter: Letter) -> None:
        """Bring a letter that is open up to date."""
        self._letters[letter.message.id].letter = letter
