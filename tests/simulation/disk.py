"""A disk that fails by seed and stops with its process, and hands that take their time.

`SimDisk` is the real disk below a folder in memory. While a spell of faults lasts, an operation fails with some
probability. A process can be killed in any operation: before it takes effect, or after.
"""

import asyncio
import errno
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from forwarder.spool.disk import RealDisk, Space
from tests.simulation.loop import Process

T = TypeVar("T")

WRITING = frozenset(("create", "write", "allocate"))
SYNCING = frozenset(("sync",))


class Killed(BaseException):
    """The process ends here."""


@dataclass(frozen=True, slots=True)
class Spell:
    """From `begin` to `end`, by the world's seconds, operations of a kind fail with a probability."""

    begin: float
    end: float
    kind: str  # "full", "io", "sync", "short", "commit", "committed"
    chance: float


class SimDisk(RealDisk):
    """`now` gives the world's seconds; `injected` notes when faults were."""

    def __init__(
        self,
        process: Process,
        spells: list[Spell],
        randomness: Random,
        now: Callable[[], float],
        kill: Callable[[], None],
    ) -> None:
        self._process = process
        self._spells = spells
        self._random = randomness
        self._now = now
        self._kill = kill
        self.kill_at = -1
        self.operations = 0
        self.injected: list[tuple[float, str]] = []
        self.descriptors: set[int] = set()
        self.connection: SimConnection | None = None

    def spell(self, *kinds: str) -> Spell | None:
        """Give the spell of one of the kinds that strikes now."""
        now = self._now()
        for spell in self._spells:
            if spell.begin <= now < spell.end and spell.kind in kinds and self._random.random() < spell.chance:
                return spell
        return None

    def note(self, what: str) -> None:
        """Note an injected fault."""
        self.injected.append((self._now(), what))

    def step(self, name: str) -> None:
        """Begin an operation: it may be the last of its process, or fail."""
        self.may_end()
        if not self._spells:
            return
        kinds = ("io", "full") if name in WRITING else ("io", "sync") if name in SYNCING else ("io",)
        if spell := self.spell(*kinds):
            self.note(f"{spell.kind} in {name}")
            number = errno.ENOSPC if spell.kind == "full" else errno.EIO
            raise OSError(number, f"injected: {os.strerror(number)}")

    def may_end(self) -> None:
        """Pass a point at which the process may be killed."""
        if self._process.dead:
            raise Killed
        self.operations += 1
        if self.operations == self.kill_at:
            self._kill()
            raise Killed

    def create(self, path: Path) -> int:
        self.step("create")
        return self._opened(super().create(path))

    def open(self, path: Path) -> int:
        self.step("open")
        return self._opened(super().open(path))

    def open_folder(self, path: Path) -> int:
        self.step("open_folder")
        return self._opened(super().open_folder(path))

    def lock(self, path: Path) -> int:
        self.step("lock")
        return self._opened(super().lock(path))

    def _opened(self, descriptor: int) -> int:
        self.descriptors.add(descriptor)
        return descriptor

    def close(self, descriptor: int) -> None:
        if descriptor in self.descriptors:
            self.descriptors.discard(descriptor)
            os.close(descriptor)

    def write(self, descriptor: int, octets: memoryview) -> int:
        self.step("write")
        if self._spells and self.spell("short"):
            octets = octets[: max(1, len(octets) // 3)]
        return super().write(descriptor, octets)

    def sync(self, descriptor: int) -> None:
        self.step("sync")  # the memory's own fsync would cost time and show nothing

    def allocate(self, descriptor: int, length: int) -> None:
        self.step("allocate")
        super().allocate(descriptor, length)

    def space(self, path: Path) -> Space:
        self.step("space")
        return Space(0, 0) if self._spells and self.spell("full") else Space(1 << 40, 1 << 20)

    def connect(self, path: Path) -> sqlite3.Connection:
        self.step("connect")
        uri = f"{path.as_uri()}?mode=rw"
        self.connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, factory=SimConnection
        )
        self.connection.disk = self
        return self.connection

    def drop(self) -> None:
        """Do what the kernel does for a process that has ended."""
        for descriptor in list(self.descriptors):
            self.close(descriptor)


def _counted(name: str) -> Callable[..., Any]:
    original = getattr(RealDisk, name)

    def operation(self: SimDisk, *arguments: Any) -> Any:
        self.step(name)
        return original(self, *arguments)

    return operation


for _name in ("read", "make_folder", "rename", "unlink", "truncate", "scan", "status", "open_status"):
    setattr(SimDisk, _name, _counted(_name))


class SimConnection(sqlite3.Connection):
    """A database whose commits fail in a spell, and in which a process can end right before or after a commit."""

    disk: SimDisk

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if self.disk._process.dead:
            raise Killed
        if sql == "PRAGMA synchronous = FULL":
            sql = "PRAGMA synchronous = OFF"  # what is written outlives the process; power cuts are proved elsewhere
        if sql != "COMMIT":
            return super().execute(sql, *arguments)
        self.disk.may_end()
        spell = self.disk.spell("commit", "committed", "full", "io")
        if spell is None:
            cursor = super().execute(sql)
            self.disk.may_end()
            return cursor
        self.disk.note(f"{spell.kind} in COMMIT")
        if spell.kind == "committed":  # the error comes after the fact
            super().execute(sql)
        error = sqlite3.OperationalError("injected")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL if spell.kind == "full" else sqlite3.SQLITE_IOERR
        raise error


class SlowHands:
    """Works in the loop; before and after the work other things may happen, and the process may end."""

    def __init__(self, randomness: Random, longest: float) -> None:
        self._random = randomness
        self._longest = longest
        self._database = asyncio.Lock()

    async def file(self, work: Callable[[], T]) -> T:
        await self._pause()
        result = work()
        await self._pause()
        return result

    async def database(self, work: Callable[[], T]) -> T:
        async with self._database:
            await self._pause()
            result = work()
        await self._pause()
        return result

    async def _pause(self) -> None:
        await asyncio.sleep(self._random.random() * self._longest)
