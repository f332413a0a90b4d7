"""What `spool_program` promised, and whether a spool that was opened after a cut keeps it.

Demanded: the spool opens; nothing but what was damaged on purpose is in quarantine; every letter that was queued and
not being finished is there, whole, with the states that were promised or later ones whose change had begun; what is
there besides is whole and had been begun; what was finished is gone; letter and change of one step are both there or
neither; remembered values are there; what was damaged is in the spool or in quarantine, with its rows.
The spool then takes one more letter.
"""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from forwarder.model.letter import Letter, Part, Query, State
from forwarder.model.message import MemoryContent
from forwarder.ports import Damaged
from forwarder.spool.store import EmbeddedSpool
from tests.fakes import FakeClock, RecordingLog
from tests.powercut.spool_program import DAMAGED_SIZE, SETTINGS, SPOOL, letter_id, make_letter, octets

_Status = tuple[str, int]  # state and attempts


@dataclass(slots=True)
class _Expected:
    """One letter as promised; `statuses` has what each part may be, what it was promised to be first."""

    digest: str
    statuses: list[list[_Status]]
    must: bool = False  # be there
    may: bool = True


@dataclass(slots=True)
class Promises:
    """What may and must be after some lines."""

    letters: dict[str, _Expected] = field(default_factory=dict)
    together: list[tuple[str, str, int, int]] = field(default_factory=list)
    memory: dict[str, list[str]] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)

    def hear(self, line: str) -> None:
        """Take one line into account."""
        match line.split(" "):
            case ["storing", id, digest, parts]:
                self.letters[id] = _Expected(digest, [[("queued", 0)] for _ in range(int(parts))])
            case ["queued", id]:
                self.letters[id].must = True
            case ["changing", id, number, state, attempts]:
                self.letters[id].statuses[int(number)].append((state, int(attempts)))
            case ["changed", id, number, state, attempts]:
                self.letters[id].statuses[int(number)] = [(state, int(attempts))]
            case ["together", new, id, number, attempts]:
                self.together.append((new, id, int(number), int(attempts)))
            case ["finishing", id]:
                self.letters[id].must = False
            case ["finished", id]:
                self.letters[id].may = False
            case ["remembering", key, value]:
                self.memory.setdefault(key, [""]).append(value)
            case ["remembered", key, value]:
                self.memory[key] = [value]
            case ["damaging", id]:
                self.letters[id].must = False
                self.damaged.add(id)
            case ["aside", id]:
                self.letters[id].may = False
            case _:
                raise ValueError(line)


def check(folder: Path, lines: Sequence[str]) -> None:
    """Raise what is wrong with a spool. A `Checker` of `campaign`."""
    promises = Promises()
    for line in lines:
        promises.hear(line)
    asyncio.run(_check(folder / SPOOL, promises))


async def _check(folder: Path, promises: Promises) -> None:
    spool = await EmbeddedSpool.open(folder, clock=FakeClock(), log=RecordingLog(), settings=SETTINGS)
    try:
        await _check_quarantine(spool, folder, promises)
        found = {letter.message.id: letter for letter in await spool.find(Query())}
        for id, expected in promises.letters.items():
            _check_presence(id, expected, found)
        assert found.keys() <= promises.letters.keys(), "a letter appeared that nobody sent"
        for id in found:
            await _check_letter(spool, id, promises.letters[id])
        _check_steps(promises, found)
        queued = {part for letter in found.values() for part in _queued(letter)}
        assert {waiting.part for waiting in await spool.waiting()} == queued
        files = {place.name for place in (folder / "messages").iterdir()}
        assert files == found.keys(), f"message files and letters differ by {files ^ found.keys()}"
        await _check_memory(spool, promises)
        extra = make_letter(99, MemoryContent(octets(99, 1_000)), 1)
        await spool.store([extra])
        assert await spool.fetch(letter_id(99)) is not None
    finally:
        await spool.close()


async def _check_quarantine(spool: EmbeddedSpool, folder: Path, promises: Promises) -> None:
    """Only what was damaged is in quarantine, and what was damaged is there whole, or still in the spool as it was."""
    for id in promises.damaged:
        try:
            kept = await spool.fetch(id) is not None  # the damage itself may have been lost
        except Damaged:
            kept = False
        assert kept or _is_aside(folder / "quarantine", id), f"the damaged letter {id} is lost"
    names = {place.name.partition(".")[0] for place in (folder / "quarantine").iterdir()}
    assert names <= promises.damaged, f"{names - promises.damaged} came into quarantine"


def _is_aside(quarantine: Path, id: str) -> bool:
    """Say whether rows and content are there; a record that a cut tore has a whole one beside it."""
    records = [place.read_bytes() for place in quarantine.glob(f"{id}.json*")]
    return any(_is_whole(record) for record in records) and any(
        place.stat().st_size == DAMAGED_SIZE for place in quarantine.glob(id)
    )


def _is_whole(record: bytes) -> bool:
    try:
        return {"reason", "letters", "parts", "heads"} <= set(json.loads(record))
    except ValueError:
        return False


def _check_presence(id: str, expected: _Expected, found: dict[str, Letter]) -> None:
    assert id in found or not expected.must, f"letter {id} was promised and is lost"
    assert id not in found or expected.may, f"letter {id} was finished and is back"


async def _check_letter(spool: EmbeddedSpool, id: str, expected: _Expected) -> None:
    letter = await spool.fetch(id)
    assert letter is not None
    digest = hashlib.sha256(b"".join(letter.message.content.chunks())).hexdigest()
    assert digest == expected.digest, f"the content of {id} has changed"
    for number, (progress, allowed) in enumerate(zip(letter.progress, expected.statuses, strict=True)):
        status = (progress.state.value, progress.attempts)
        assert status in allowed, f"part {id}/{number} is {status} and not one of {allowed}"


def _check_steps(promises: Promises, found: dict[str, Letter]) -> None:
    for new, id, number, attempts in promises.together:
        if id in found:
            changed = found[id].progress[number].attempts >= attempts
            assert changed == (new in found), f"letter {new} and the change of {id}/{number} have come apart"


async def _check_memory(spool: EmbeddedSpool, promises: Promises) -> None:
    kept = {key.decode(): value.decode() for key, value in (await spool.memories()).items()}
    for key, allowed in promises.memory.items():
        assert kept.get(key, "") in allowed, f"under {key} there is {kept.get(key)!r} and not one of {allowed}"


def _queued(letter: Letter) -> list[Part]:
    return [
        Part(letter.message.id, number)
        for number, progress in enumerate(letter.progress)
        if progress.state is State.QUEUED
    ]
