"""A spool in memory that keeps the contract of `ports.Spool`, and fails when told to."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from forwarder.delivery.lanes import waiting_of
from forwarder.model.letter import Change, Letter, Part, Query, State, Waiting
from forwarder.ports import Damaged, SpoolError


class MemorySpool:
    """`letters` by id; `past` has those that are done with. `calls` names what was asked for, in order.

    `faults` gives an error for each method that is to fail; `times` says how often, -1 for ever. A letter whose id is
    in `damaged` cannot be read and goes to `quarantine`.
    """

    def __init__(self) -> None:
        self.letters: dict[str, Letter] = {}
        self.past: dict[str, Letter] = {}
        self.leased: set[Part] = set()
        self.memory: dict[bytes, bytes] = {}
        self.damaged: set[str] = set()
        self.quarantine: dict[str, Letter] = {}
        self.faults: dict[str, Exception] = {}
        self.times: dict[str, int] = {}
        self.calls: list[str] = []
        self.stores: list[tuple[tuple[Letter, ...], tuple[Change, ...]]] = []

    def fail(self, method: str, error: Exception | None = None, times: int = -1) -> None:
        """Let a method fail from now on."""
        self.faults[method] = error or SpoolError("the disk is on fire")
        self.times[method] = times

    def heal(self) -> None:
        """Let nothing fail any more."""
        self.faults.clear()

    def _call(self, method: str) -> None:
        self.calls.append(method)
        if method in self.faults and self.times[method]:
            self.times[method] -= 1
            raise self.faults[method]

    async def store(self, letters: Sequence[Letter], changes: Sequence[Change] = ()) -> None:
        self._call("store")
        self.stores.append((tuple(letters), tuple(changes)))
        for letter in letters:
            assert letter.message.id not in self.letters, "an id is used once"
            self.letters[letter.message.id] = letter
        for change in changes:
            self._change(change)
        for id in {letter.message.id for letter in letters} | {change.part.id for change in changes}:
            if id in self.letters and all(progress.state.final for progress in self.letters[id].progress):
                self.past[id] = self.letters.pop(id)

    def _change(self, change: Change) -> None:
        part = change.part
        self.leased.discard(part)
        if part.id in self.quarantine:
            raise Damaged(f"{part.id} is not there any more")
        if letter := self.letters.get(part.id):
            progress = list(letter.progress)
            progress[part.number] = change.progress
            self.letters[part.id] = replace(letter, progress=tuple(progress))

    async def waiting(self) -> Sequence[Waiting]:
        self._call("waiting")
        return [
            waiting_of(letter, number)
            for letter in self.letters.values()
            for number, progress in enumerate(letter.progress)
            if progress.state is State.QUEUED
        ]

    async def lease(self, parts: Sequence[Part]) -> Sequence[Part]:
        self._call("lease")
        free = [part for part in parts if part not in self.leased and self._is_queued(part)]
        self.leased.update(free)
        return free

    def _is_queued(self, part: Part) -> bool:
        letter = self.letters.get(part.id)
        return letter is not None and letter.progress[part.number].state is State.QUEUED

    async def give_back(self, parts: Sequence[Part]) -> None:
        self._call("give_back")
        self.leased.difference_update(parts)

    def recent(self, id: str) -> Letter | None:
        return None

    async def fetch(self, id: str) -> Letter | None:
        self._call("fetch")
        if id in self.damaged and id in self.letters:
            self.quarantine[id] = self.letters.pop(id)
            raise Damaged(f"{id} is damaged")
        return self.letters.get(id)

    async def find(self, query: Query) -> Sequence[Letter]:
        self._call("find")
        found = [letter for letter in self.letters.values() if _matches(letter, query)]
        found.sort(key=lambda letter: letter.received)
        return found[: query.limit] if query.limit else found

    async def ids(self, query: Query) -> Sequence[str]:
        return [letter.message.id for letter in await self.find(query)]

    async def remember(self, entries: Mapping[bytes, bytes]) -> None:
        self._call("remember")
        self.memory.update(entries)
        self.memory = {key: value for key, value in self.memory.items() if value}

    async def memories(self) -> Mapping[bytes, bytes]:
        self._call("memories")
        return dict(self.memory)

    def state(self, id: str, number: int = 0) -> State:
        """Give where a part stands, or stood last."""
        return (self.letters.get(id) or self.past[id]).progress[number].state


def _matches(letter: Letter, query: Query) -> bool:
    message = letter.message
    sender = str(message.original_sender or "").casefold()
    places = [one for d in message.deliveries for one in (d.recipient, d.destination.address)]
    return (
        (not query.ids or any(message.id.casefold().startswith(id.casefold()) for id in query.ids))
        and (not query.to or any(str(place).casefold() == query.to.casefold() for place in places))
        and (not query.domain or any(place.domain == query.domain.casefold() for place in places))
        and (not query.sender or sender == query.sender.casefold())
        and (not query.states or any(progress.state in query.states for progress in letter.progress))
    )
