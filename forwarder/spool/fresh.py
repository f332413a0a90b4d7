"""Letters that were stored a moment ago, kept so that their first attempt need not read back what was just written.

Who changes a letter, or finds it damaged, must `forget` it before that is begun: what is here is then what the database
holds. Bounded by letters, of which only those with few parts are kept, and by the octets of contents in memory.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace

from forwarder.model.letter import Letter, Part, State
from forwarder.model.message import MemoryContent
from forwarder.spool.files import FiledContent

_LETTERS = 1000
_PARTS = 4  # each with header lines of ours, some kilobytes
_OCTETS = 32_000_000


class Fresh:
    """See the module."""

    def __init__(self) -> None:
        self._letters: OrderedDict[str, Letter] = OrderedDict()
        self._octets = 0

    def note(self, letter: Letter, filed: FiledContent) -> None:
        """Keep a letter that is durable now, with the content that it was given with, or else its file."""
        if len(letter.progress) > _PARTS:
            return
        if not isinstance(letter.message.content, MemoryContent):
            letter = replace(letter, message=replace(letter.message, content=filed))
        self._letters[letter.message.id] = letter
        self._octets += _held(letter)
        while len(self._letters) > _LETTERS or self._octets > _OCTETS:
            self._octets -= _held(self._letters.popitem(last=False)[1])

    def forget(self, ids: Iterable[str]) -> None:
        """Keep letters no longer."""
        for id in ids:
            self.take(id)

    def take(self, id: str) -> Letter | None:
        """Give a letter and keep it no longer; None: ask the database."""
        letter = self._letters.pop(id, None)
        if letter is not None:
            self._octets -= _held(letter)
        return letter

    def queued(self, part: Part) -> bool | None:
        """Say whether a part is QUEUED; None: ask the database."""
        letter = self._letters.get(part.id)
        if letter is None:
            return None
        return 0 <= part.number < len(letter.progress) and letter.progress[part.number].state is State.QUEUED


def _held(letter: Letter) -> int:
    """Give the octets of the content that are in memory."""
    return letter.message.content.size if isinstance(letter.message.content, MemoryContent) else 0
