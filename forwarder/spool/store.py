"""`EmbeddedSpool`: custody of letters in one folder of one machine, with one process as its owner.

A letter is taken by writing its content to a file, durable, and then its rows in a commit; it ends with a commit that
removes its rows, and then its file goes. So a file without rows was never acknowledged, or is done with, and rows
without a file are damage: `cleaning` goes by that.

Contract: that of `ports.Spool`. What was begun is ended even if the caller is cancelled. After a failed fsync of a file
no letter is accepted until the spool is opened again; after a failed commit nothing is done at all. Both raise
`SpoolBroken`. A commit that failed for any other reason than room may have reached the disk: its letters are then
there whole after opening, though their senders were told to come again.

Leases are in memory: they end with the process. Left out on purpose: sharing a folder between processes or machines.
"""

import asyncio
import gc
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from forwarder.model.faults import NO_ROOM, NOT_STORED
from forwarder.model.letter import Change, Letter, Part, Query, Waiting
from forwarder.model.message import Content
from forwarder.model.reply import Reply
from forwarder.ports import Clock, Damaged, EventLog, SpoolError, SpoolFull
from forwarder.spool import queries, rows
from forwarder.spool.cleaning import Cleaning
from forwarder.spool.database import Database
from forwarder.spool.disk import Disk, RealDisk
from forwarder.spool.faults import SpoolBroken, SpoolRefused
from forwarder.spool.files import FiledContent, MessageFiles, Occupied, Spoilt, require_id
from forwarder.spool.fresh import Fresh
from forwarder.spool.hands import Hands, Threads
from forwarder.spool.inspection import DATABASE, enter
from forwarder.spool.room import Room, SpoolSettings

T = TypeVar("T")

_PARTS = 500  # that `waiting` reads before others have their turn
_HOUR = 3600.0
_DEFAULTS = SpoolSettings()


class EmbeddedSpool:
    """See the module. `open` makes it; everything belongs to one event loop."""

    def __init__(
        self, folder: Path, clock: Clock, log: EventLog, settings: SpoolSettings, disk: Disk, hands: Hands
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._log = log
        self._disk = disk
        self._hands = hands
        self._room = Room(folder, disk, settings)
        self._database = Database(folder / DATABASE, disk, hands)
        self._cleaning = Cleaning(folder, self._database, disk, hands, log)
        self._cleaning.halt = self.halt
        self._leases: dict[Part, object] = {}
        self._tasks: set[asyncio.Future[None]] = set()
        self._at_room = asyncio.Lock()
        self._lock: int | None = None
        self._threads: Threads | None = None
        self._halted = ""
        self._short = ""
        self.files = MessageFiles(folder, disk, hands)
        self._fresh = Fresh()

    @classmethod
    async def open(
        cls,
        folder: Path,
        *,
        clock: Clock,
        log: EventLog,
        settings: SpoolSettings = _DEFAULTS,
        disk: Disk | None = None,
        hands: Hands | None = None,
    ) -> "EmbeddedSpool":
        """Open the spool in `folder`, which is made where it is missing, and clean up what a crash left.

        Raises `SpoolRefused`, having changed nothing, where it cannot be used as it is. `hands` that are given are
        the caller's to close.
        """
        threads = Threads() if hands is None else None
        spool = cls(folder, clock, log, settings, disk or RealDisk(), hands or threads or Threads())
        spool._threads = threads
        try:
            await spool._start()
        except BaseException as error:
            await spool.close()
            if isinstance(error, SpoolError) and not isinstance(error, SpoolRefused):
                raise SpoolRefused((f"{folder}: {error}",)) from error
            raise
        return spool

    async def close(self) -> None:
        """End what was begun, and give the spool up for others to open. May be called again."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self.files.removed()
        await self._database.ended()
        await self._hands.database(self._database.close)
        if self._lock is not None:
            self._disk.close(self._lock)
            self._lock = None
        if self._threads is not None:
            self._threads.close()
            self._threads = None

    async def store(self, letters: Sequence[Letter], changes: Sequence[Change] = ()) -> None:
        """Take letters with the progress that they have, and apply changes to others, in one step.

        A letter whose content is its message file here already is taken with that file. A change of a part that there
        is not is an error.
        """
        self._fresh.forget(change.part.id for change in changes)
        task = asyncio.ensure_future(self._store(tuple(letters), tuple(changes)))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        await asyncio.shield(task)

    async def waiting(self) -> Sequence[Waiting]:
        """Give every QUEUED part. Letters with damaged ones are moved to quarantine."""
        schedule = queries.Schedule()
        with _uncollected():
            while not schedule.complete:
                await self._run(partial(queries.read_on, schedule=schedule, limit=_PARTS))
        for id, reason in schedule.damaged.items():
            await self._put_aside_quietly(id, reason)
        return [one for one in schedule.found if one.part.id not in schedule.damaged]

    async def lease(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Give those among them that are QUEUED and that nobody works on; the caller does from now on."""
        mine = object()
        free = [part for part in dict.fromkeys(parts) if part not in self._leases]
        self._leases.update(dict.fromkeys(free, mine))  # before asking: so a change that comes meanwhile ends them
        known = {part: self._fresh.queued(part) for part in free}
        queued = {part for part, is_queued in known.items() if is_queued}
        unknown = [part for part, is_queued in known.items() if is_queued is None]
        try:
            if unknown:
                queued.update(await self._run(partial(queries.queued, parts=unknown)))
        finally:
            for part in free:
                if part not in queued and self._leases.get(part) is mine:
                    del self._leases[part]
        return [part for part in free if self._leases.get(part) is mine]

    async def give_back(self, parts: Sequence[Part]) -> None:
        """End leases without a change."""
        for part in parts:
            self._leases.pop(part, None)

    async def fetch(self, id: str) -> Letter | None:
        """Give a letter whole, its content checked; None if there is none. Raises `Damaged`."""
        record = await self._run(partial(queries.record, id=require_id(id)))
        if record is None:
            return None
        try:
            letter, content = self._read(id, record)
            await self.files.verify(content)
        except (rows.Illegible, Spoilt) as error:
            self._fresh.forget((id,))
            if not await self._cleaning.put_aside(id, str(error)):
                return None  # it ended meanwhile
            raise Damaged(f"the letter {id} is damaged, and in quarantine now: {error}") from error
        return letter

    def recent(self, id: str) -> Letter | None:
        """Give a letter that was stored here a moment ago, once, as it was given; None where that is not known."""
        return None if self._database.broken else self._fresh.take(id)

    async def find(self, query: Query) -> Sequence[Letter]:
        """Give letters without checking their content; damaged ones are moved to quarantine."""
        ids = await self.ids(query)
        found: list[Letter] = []
        for start in range(0, len(ids), rows.TOGETHER):
            slice = ids[start : start + rows.TOGETHER]
            records = await self._run(partial(queries.records, ids=slice))
            for id in slice:
                try:
                    if id in records:
                        found.append(self._read(id, records[id])[0])
                except (rows.Illegible, SpoolError) as error:
                    await self._put_aside_quietly(id, str(error))
        return found

    async def ids(self, query: Query) -> Sequence[str]:
        """Give the ids of the letters that `find` would, without reading them: a damaged one may be among them."""
        return await self._run(partial(queries.matching, query=query))

    async def remember(self, entries: Mapping[bytes, bytes]) -> None:
        """Keep small values under keys; b"" removes."""
        await self._record(partial(queries.remember, entries=dict(entries)))

    async def memories(self) -> Mapping[bytes, bytes]:
        """Give all that `remember` keeps."""
        return await self._run(queries.memories)

    def refusal(self) -> Reply | None:
        """Say why no message can be taken now; None while all is well. As of the latest `watch`."""
        if self._halted or self._database.broken:
            return NOT_STORED
        return NO_ROOM if self._short else None

    async def watch(self) -> None:
        """Look how much room there is, and make the ballast again if there is room for it: every few seconds."""
        try:
            async with self._at_room:
                short = await self._hands.file(self._room.shortage)
        except SpoolBroken as error:
            self.halt(str(error))
        else:
            self._note_room(short)

    async def sweep(self, older_than: float = _HOUR) -> int:
        """Remove files that have been without rows for that many seconds: of processes that died between the two."""
        return await self._cleaning.sweep(self._clock, older_than)

    def halt(self, reason: str) -> None:
        """Take no letter until the spool is opened again: an fsync failed, here or in a worker."""
        if not self._halted:
            self._halted = reason
            self._alert(f"no mail is accepted until the gateway is started again: {reason}")

    async def _start(self) -> None:
        premises = await self._hands.file(partial(enter, self._folder, self._disk))
        self._lock = premises.lock
        await self._hands.database(self._database.open)
        await self._hands.file(self._room.enter)
        self._note_room(await self._hands.file(self._room.shortage))
        await self._cleaning.after_crash(premises)

    async def _store(self, letters: tuple[Letter, ...], changes: tuple[Change, ...]) -> None:
        ids = [require_id(letter.message.id) for letter in letters]
        busy = self._cleaning.busy
        if len(set(ids)) != len(ids) or not busy.isdisjoint(ids):
            raise SpoolError("a letter is being stored already")
        if letters:
            self._require_acceptance()
        busy.update(ids)
        try:
            await self._take([letter for letter in letters if not _is_done(letter)], changes)
        finally:
            busy.difference_update(ids)
        for letter in letters:
            if _is_done(letter):
                await self._cleaning.drop(letter.message.id)

    async def _take(self, letters: list[Letter], changes: tuple[Change, ...]) -> None:
        filed = await self._file(letters)
        work = partial(_write, letters=letters, filed=filed, changes=changes)
        try:
            done = await (self._run(work) if letters else self._record(work))
        except SpoolError:
            await self._drop(filed)
            raise
        for letter, content in zip(letters, filed, strict=True):
            self._fresh.note(letter, content)
        for change in changes:
            self._leases.pop(change.part, None)
        for id in done:
            self.files.remove(id)

    async def _file(self, letters: list[Letter]) -> list[FiledContent]:
        """Write the message files; all or none."""
        if len(letters) == 1:
            return [await self._file_one(letters[0])]
        results = await asyncio.gather(*map(self._file_one, letters), return_exceptions=True)
        filed = [result for result in results if isinstance(result, FiledContent)]
        if errors := [result for result in results if isinstance(result, BaseException)]:
            await self._drop(filed)
            errors.sort(key=lambda error: not isinstance(error, SpoolBroken))
            raise errors[0]
        return filed

    async def _file_one(self, letter: Letter) -> FiledContent:
        content = letter.message.content
        if isinstance(content, FiledContent) and self.files.holds(letter.message.id, content):
            self.files.present(content)
            return content
        try:
            return await self._write_file(letter.message.id, content)
        except SpoolBroken as error:
            self.halt(str(error))
            raise

    async def _write_file(self, id: str, content: Content) -> FiledContent:
        try:
            return await self.files.write(id, content)
        except Occupied:  # by what a store left that failed, and whose file could not be removed then either
            await self.files.removed()  # or what is to go would take the new file with it
            await self._cleaning.drop(id)
            return await self.files.write(id, content)

    async def _record(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Write what must not be lost for want of room: an outcome, or what was handed on."""
        try:
            return await self._run(work)
        except SpoolFull as error:
            async with self._at_room:
                if self._room.ballast:
                    await self._hands.file(self._room.release)
            self._note_room(f"the ballast was thrown off: {error}")
        return await self._run(work)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._database.run(work)
        finally:
            if self._database.broken and self._lock is not None:
                self.halt(self._database.broken)

    async def _put_aside_quietly(self, id: str, reason: str) -> None:
        self._fresh.forget((id,))
        await self._cleaning.put_aside_quietly(id, reason)

    def _read(self, id: str, record: queries.Record) -> tuple[Letter, FiledContent]:
        fields = rows.read_fields(record.letter)
        content = self.files.adopt(id, fields.size, fields.digest, fields.eight_bit)
        return rows.read_letter(fields, record.parts, content), content

    def _require_acceptance(self) -> None:
        if broken := self._halted or self._database.broken:
            raise SpoolBroken(broken)
        if not self._room.ballast:
            raise SpoolFull("what room there is, is kept for recording what was delivered")

    def _note_room(self, short: str) -> None:
        if short and not self._short:
            self._alert(f"no mail is accepted for want of room on the disk: {short}")
        elif self._short and not short:
            self._log.event("recovered", component="spool", text="there is room on the disk again: mail is accepted")
        self._short = short

    async def _drop(self, filed: Iterable[FiledContent]) -> None:
        for content in filed:
            await self._cleaning.drop(content.path.name)

    def _ended(self, task: "asyncio.Future[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may be gone

    def _alert(self, text: str) -> None:
        self._log.event("alert", component="spool", text=text)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector from looking through a growing queue again and again, 0.1 s and more at a time.

    None of what is read has cycles. The switch is the process's: who finds it off already leaves it.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _is_done(letter: Letter) -> bool:
    return all(progress.state.final for progress in letter.progress)


def _write(
    connection: sqlite3.Connection, letters: list[Letter], filed: list[FiledContent], changes: tuple[Change, ...]
) -> list[str]:
    for letter, content in zip(letters, filed, strict=True):
        queries.insert(connection, rows.letter_rows(letter, content))
    return queries.apply(connection, changes)
