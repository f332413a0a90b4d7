"""Uses a spool as the gateway does, and says what it promises: `python -m tests.powercut.spool_program live FOLDER`.

Lines `ACK ...` before a change say what may be from now on, those after it what must be:

    storing ID SHA256 PARTS      a letter may be there
    queued ID                    it is there
    changing ID NUMBER STATE N   a part may have this state, after N attempts
    changed ID NUMBER STATE N    it has
    together NEW ID NUMBER N     the letter NEW and the N-th attempt of that part come in one step
    finishing ID / finished ID   a letter may be, is gone
    remembering KEY VALUE / remembered KEY VALUE
    damaging ID / aside ID       the message file of a letter may have changed; the letter is in quarantine

`live` does everything that a gateway does, and opens the spool again in between; `reopen` opens it and takes one
letter; `damage` has a letter whose file changed on the disk.
"""

import asyncio
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from forwarder.model.address import Address
from forwarder.model.destination import Destination
from forwarder.model.envelope import MailOptions
from forwarder.model.letter import Change, Letter, Part, Progress, State
from forwarder.model.message import Content, Delivery, MemoryContent, Outgoing
from forwarder.ports import Damaged
from forwarder.spool import database
from forwarder.spool.room import SpoolSettings
from forwarder.spool.store import EmbeddedSpool
from tests.fakes import FakeClock, RecordingLog

SETTINGS = SpoolSettings(minimum_free=0, minimum_files=0, ballast=16_384)
SPOOL = "spool"  # in the folder that is recorded, so that the spool's own name is among what can be lost
DAMAGED_SIZE = 5_000
_SIZES = (120, 0, 3_000, 4_096, 70_000, 300_000)
_ENDINGS = (State.DELIVERED, State.BOUNCED, State.DELETED)
_COMMITS_BETWEEN_CHECKPOINTS = 7


def say(*words: object) -> None:
    os.write(1, ("ACK " + " ".join(map(str, words)) + "\n").encode())


def letter_id(number: int) -> str:
    return f"{number:016d}"


def octets(number: int, size: int) -> bytes:
    pattern = b"".join(hashlib.sha256(b"%d %d" % (number, at)).digest() for at in range(97))
    return (pattern * (size // len(pattern) + 1))[:size]


def make_letter(number: int, content: Content, parts: int) -> Letter:
    deliveries = tuple(
        Delivery(
            Address("alias", "example.org"), Destination(Address(f"box{each}", "example.net")), b"Received: here\r\n"
        )
        for each in range(parts)
    )
    sender = Address("sender", "example.com")
    message = Outgoing(letter_id(number), sender, sender, MailOptions(), content, deliveries)
    return Letter(message, FakeClock().now(), tuple(Progress(State.QUEUED) for _ in range(parts)))


class Owner:
    """Has the spool open, and makes changes that it announces and confirms."""

    def __init__(self, spool: EmbeddedSpool) -> None:
        self._spool = spool
        self._attempts: dict[Part, int] = {}

    @classmethod
    async def begin(cls, folder: Path) -> "Owner":
        """Open the spool."""
        return cls(await EmbeddedSpool.open(folder, clock=FakeClock(), log=RecordingLog(), settings=SETTINGS))

    async def end(self) -> None:
        """Close the spool."""
        await self._spool.close()

    async def store(self, number: int, size: int, parts: int, *, filed: bool = False) -> None:
        """Take one letter; with `filed` its content is written beforehand, as another process would."""
        content: Content = MemoryContent(octets(number, size))
        say("storing", letter_id(number), content.digest.hex(), parts)
        if filed:
            content = await self._spool.files.write(letter_id(number), content)
        await self._spool.store([make_letter(number, content, parts)])
        say("queued", letter_id(number))

    async def change(self, number: int, part: int, state: State) -> None:
        """Record what became of a part."""
        change = self._changed(number, part, state)
        words = (letter_id(number), part, state.value, change.progress.attempts)
        say("changing", *words)
        await self._spool.store([], [change])
        say("changed", *words)

    async def finish(self, number: int, states: Sequence[State]) -> None:
        """Make all parts final, in one step."""
        say("finishing", letter_id(number))
        changes = [self._changed(number, part, state) for part, state in enumerate(states)]
        await self._spool.store([], changes)
        say("finished", letter_id(number))

    async def bounce(self, number: int, of: int) -> None:
        """Answer part 0 of a letter with a bounce, in one step."""
        content = MemoryContent(octets(number, 900))
        change = self._changed(of, 0, State.BOUNCED)
        attempts = change.progress.attempts
        say("storing", letter_id(number), content.digest.hex(), 1)
        say("together", letter_id(number), letter_id(of), 0, attempts)
        say("changing", letter_id(of), 0, State.BOUNCED.value, attempts)
        await self._spool.store([make_letter(number, content, 1)], [change])
        say("queued", letter_id(number))
        say("changed", letter_id(of), 0, State.BOUNCED.value, attempts)

    async def damage(self, number: int, folder: Path) -> None:
        """Change the message file of a letter behind the spool's back, and ask for the letter."""
        say("damaging", letter_id(number))
        descriptor = os.open(folder / "messages" / letter_id(number), os.O_WRONLY)
        os.pwrite(descriptor, b"!", 7)
        os.fsync(descriptor)
        os.close(descriptor)
        try:
            await self._spool.fetch(letter_id(number))
        except Damaged:
            say("aside", letter_id(number))
        else:
            raise AssertionError("the damage was not seen")

    async def remember(self, key: str, value: str) -> None:
        """Keep a small value; "" removes it."""
        say("remembering", key, value)
        await self._spool.remember({key.encode(): value.encode()})
        say("remembered", key, value)

    def _changed(self, number: int, part: int, state: State) -> Change:
        named = Part(letter_id(number), part)
        attempts = self._attempts[named] = self._attempts.get(named, 0) + 1
        due = FakeClock().now() + timedelta(minutes=attempts) if state is State.QUEUED else None
        return Change(named, replace(Progress(state), due=due, attempts=attempts, reply="451 4.3.0 come again"))


def _parts(each: int) -> int:
    return 1 + each % 3


async def _life(owner: Owner, base: int) -> None:
    """Do each thing once, some of it at the same time. Letters have the numbers from `base` on."""
    sizes = enumerate(_SIZES)
    stores = (owner.store(base + each, size, _parts(each), filed=each in (2, 5)) for each, size in sizes)
    await asyncio.gather(*stores, owner.remember("always", f"since-{base}"), owner.remember("once", "x"))
    await asyncio.gather(
        *(owner.change(base + each, 0, State.QUEUED) for each in range(4)),
        owner.store(base + 6, 2_000, 2),
        owner.remember("once", ""),
    )
    await owner.change(base + 2, 0, State.DELIVERED)
    await owner.bounce(base + 8, of=base + 6)
    await asyncio.gather(
        owner.change(base + 3, 0, State.HELD),
        *(owner.finish(base + each, [_ENDINGS[each % 3]] * _parts(each)) for each in (0, 4, 5)),
        owner.store(base + 7, 50_000, 1),
    )


async def live(folder: Path) -> None:
    """Use a spool, open it again, use it on."""
    for base in (10, 30):
        owner = await Owner.begin(folder)
        await _life(owner, base)
        await owner.end()


async def reopen(folder: Path) -> None:
    """Open a spool, as after a cut, and take a letter."""
    owner = await Owner.begin(folder)
    await owner.store(90, 5_000, 1)
    await owner.end()


async def damage(folder: Path) -> None:
    """Store letters, one of which is damaged."""
    owner = await Owner.begin(folder)
    await owner.store(50, DAMAGED_SIZE, 2)
    await asyncio.gather(owner.damage(50, folder), owner.store(51, 100, 1))
    await owner.end()


def main(what: str, folder: Path) -> None:
    """Run one of the three. Checkpoints come often, so that they are among what is cut."""
    assert database._COMMITS
    database._COMMITS = _COMMITS_BETWEEN_CHECKPOINTS
    asyncio.run({"live": live, "reopen": reopen, "damage": damage}[what](folder / SPOOL))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
