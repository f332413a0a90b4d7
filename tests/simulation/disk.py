"""A disk that fails by seed and stops with its process, and hands that take their time.

A `Volume` is what outlives processes: names, files and one database, all in memory. `SimDisk` is what one process sees
of it. While a spell of faults lasts, an operation fails with some probability. A process can be killed in any
operation: before it takes effect, or after. Left out: what a power cut takes away, and SQLite's own recovery from its
log; a killed process's open transaction is rolled back as that would do.
"""

import asyncio
import errno
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from forwarder.spool.disk import Kind, Space, Status
from tests.simulation.loop import Process
from tests.simulation.world import START

T = TypeVar("T")

WRITING = frozenset(("create", "write", "allocate"))
SYNCING = frozenset(("sync",))
_HEADER = 100  # octets of SQLite's header


class Killed(BaseException):
    """The process ends here."""


@dataclass(frozen=True, slots=True)
class Spell:
    """From `begin` to `end`, by the world's seconds, operations of a kind fail with a probability."""

    begin: float
    end: float
    kind: str  # "full", "io", "sync", "short", "commit", "committed"
    chance: float


@dataclass(eq=False)
class Inode:
    """A file, or a folder with the names in it. `holder` has it locked."""

    modified: float
    octets: bytearray = field(default_factory=bytearray)
    names: "dict[str, Inode] | None" = None
    holder: Process | None = None

    @property
    def status(self) -> Status:
        folder = self.names is not None
        size, kind = len(self.octets), Kind.FOLDER if folder else Kind.FILE
        return Status(kind, os.geteuid(), 0o700 if folder else 0o600, size, size, self.modified)


class Volume:
    """`database` is the connection of the process that had it open last."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.database: SimConnection | None = None
        self._now = now
        self._root = self.inode(folder=True)

    def inode(self, *, folder: bool = False) -> Inode:
        return Inode(START.timestamp() + self._now(), names={} if folder else None)

    def folder(self, path: Path) -> dict[str, Inode]:
        """Give the names in the folder that a name is in."""
        inode = self._root
        for name in path.parts[1:-1]:
            inode = self.child(inode.names, name)
        if inode.names is None:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        return inode.names

    def at(self, path: Path) -> Inode:
        return self.child(self.folder(path), path.name) if path.name else self._root

    @staticmethod
    def child(names: dict[str, Inode] | None, name: str) -> Inode:
        inode = (names or {}).get(name)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return inode

    def add(self, path: Path, inode: Inode) -> Inode:
        names = self.folder(path)
        if path.name in names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        names[path.name] = inode
        return inode


class SimDisk:
    """Implements `Disk` for a process. `now` gives the world's seconds; `injected` notes when faults were."""

    def __init__(
        self,
        volume: Volume,
        process: Process,
        spells: list[Spell],
        randomness: Random,
        now: Callable[[], float],
        kill: Callable[[], None],
    ) -> None:
        self._volume = volume
        self._process = process
        self._spells = spells
        self._random = randomness
        self._now = now
        self._kill = kill
        self.kill_at = -1
        self.operations = 0
        self.injected: list[tuple[float, str]] = []
        self._open: dict[int, Inode] = {}
        self._opened = 0
        self._connection: SimConnection | None = None

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

    def _descriptor(self, inode: Inode) -> int:
        self._opened += 1
        self._open[self._opened] = inode
        return self._opened

    def create(self, path: Path) -> int:
        self.step("create")
        return self._descriptor(self._volume.add(path, self._volume.inode()))

    def open(self, path: Path) -> int:
        self.step("open")
        return self._descriptor(self._volume.at(path))

    def open_folder(self, path: Path) -> int:
        self.step("open_folder")
        return self._descriptor(self._volume.at(path))

    def lock(self, path: Path) -> int:
        self.step("lock")
        names = self._volume.folder(path)
        inode = names.get(path.name) or self._volume.add(path, self._volume.inode())
        if inode.holder is not None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
        inode.holder = self._process
        return self._descriptor(inode)

    def close(self, descriptor: int) -> None:
        inode = self._open.pop(descriptor, None)
        if inode is not None and inode.holder is self._process:
            inode.holder = None

    def write(self, descriptor: int, octets: memoryview) -> int:
        self.step("write")
        if self._spells and self.spell("short"):
            octets = octets[: max(1, len(octets) // 3)]
        self._open[descriptor].octets += octets
        return len(octets)

    def read(self, descriptor: int, length: int, start: int) -> bytes:
        self.step("read")
        return bytes(self._open[descriptor].octets[start : start + length])

    def sync(self, descriptor: int) -> None:
        self.step("sync")

    def allocate(self, descriptor: int, length: int) -> None:
        self.step("allocate")
        inode = self._open[descriptor]
        inode.octets += bytes(max(0, length - len(inode.octets)))

    def make_folder(self, path: Path) -> None:
        self.step("make_folder")
        self._volume.add(path, self._volume.inode(folder=True))

    def rename(self, source: Path, target: Path) -> None:
        self.step("rename")
        into, inode = self._volume.folder(target), self._volume.at(source)
        del self._volume.folder(source)[source.name]
        into[target.name] = inode

    def unlink(self, path: Path) -> None:
        self.step("unlink")
        self._volume.at(path)
        del self._volume.folder(path)[path.name]

    def truncate(self, path: Path) -> None:
        self.step("truncate")
        self._volume.at(path).octets.clear()

    def scan(self, path: Path) -> list[tuple[str, Kind]]:
        self.step("scan")
        return [(name, inode.status.kind) for name, inode in (self._volume.at(path).names or {}).items()]

    def status(self, path: Path) -> Status:
        self.step("status")
        return self._volume.at(path).status

    def open_status(self, descriptor: int) -> Status:
        self.step("open_status")
        return self._open[descriptor].status

    def space(self, path: Path) -> Space:
        self.step("space")
        return Space(0, 0) if self._spells and self.spell("full") else Space(1 << 40, 1 << 20)

    def connect(self, path: Path) -> sqlite3.Connection:
        self.step("connect")
        inode = self._volume.at(path)
        self._connection = connection = sqlite3.connect(
            ":memory:", isolation_level=None, check_same_thread=False, factory=SimConnection
        )
        connection.disk, connection.inode = self, inode
        if last := self._volume.database:
            last.backup(connection)
            last.end()
        self._volume.database = connection
        return connection

    def drop(self) -> None:
        """Do what the kernel does for a process that has ended, and SQLite when it finds an unfinished transaction."""
        for descriptor in list(self._open):
            self.close(descriptor)
        if self._connection is not None and self._connection is self._volume.database:
            self._connection.close()


class SimConnection(sqlite3.Connection):
    """A database whose commits fail in a spell, and in which a process can end right before or after a commit."""

    disk: SimDisk
    inode: Inode

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if self.disk._process.dead:
            raise Killed
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

    def close(self) -> None:
        """Keep the data: it is the volume's, and the file shows its beginning."""
        if self.in_transaction:
            super().execute("ROLLBACK")
        (pages,) = super().execute("PRAGMA page_count").fetchone()
        self.inode.octets[:] = self.serialize()[:_HEADER] if pages else b""

    def end(self) -> None:
        super().close()


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

    def leave(self, work: Callable[[], None]) -> None:
        work()

    async def _pause(self) -> None:
        if (share := self._random.random()) < 0.7:  # at times nothing comes between
            await asyncio.sleep(share * self._longest)
