"""Takes away what nobody answers for, and moves aside what is damaged.

A file without rows was never acknowledged, since the commit of the rows comes before the 250; or its letter is done
with. Either way it may go. Rows without a file, and rows that do not belong together, are damage: they are kept in
quarantine and the operator is told. Names that are not ours are left alone.
"""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from forwarder.ports import Clock, EventLog, SpoolError
from forwarder.spool import queries
from forwarder.spool.database import Database
from forwarder.spool.disk import Disk, Kind
from forwarder.spool.faults import SpoolBroken, of_files
from forwarder.spool.files import is_id
from forwarder.spool.hands import Hands
from forwarder.spool.inspection import Premises
from forwarder.spool.quarantine import put_aside, read_record, remove_rows


class Cleaning:
    """See the module. `busy` has the ids whose files are being stored: they are nobody else's business."""

    def __init__(self, folder: Path, database: Database, disk: Disk, hands: Hands, log: EventLog) -> None:
        self._folder = folder
        self._database = database
        self._disk = disk
        self._hands = hands
        self._log = log
        self._moving: dict[str, asyncio.Task[bool]] = {}
        self.busy: set[str] = set()
        self.halt: Callable[[str], None] = self._alert  # told of a failed fsync

    async def after_crash(self, premises: Premises) -> None:
        """Bring files and rows together again; raise `SpoolError` if the database cannot be asked."""
        stored = await self._database.run(queries.ids)
        broken = await self._database.run(queries.incomplete)
        left = [f"messages/{id}" for id in premises.messages - stored - broken]
        left += [f"incoming/{id}" for id in premises.incoming]
        if left:
            await self._unlink(left)
            self._log.event(
                "recovered", component="spool", files=len(left), text="files of an earlier run were removed"
            )
        if premises.foreign:
            names = ", ".join(sorted(premises.foreign)[:5])
            self._alert(
                f"{len(premises.foreign)} files in the spool are not the gateway's and were left alone: {names}"
            )
        for id in sorted(broken):
            await self.put_aside_quietly(id, "its rows do not belong together")
        for id in sorted(stored - premises.messages - broken):
            await self.put_aside_quietly(id, "the message file is missing")

    async def sweep(self, clock: Clock, older_than: float) -> int:
        """Remove files of ours that have been without rows for that many seconds; give how many."""
        names = [name for name in await self._scan("messages") if is_id(name)]
        stored = await self._database.run(queries.ids)  # asked after the names: what was stored meanwhile is known
        paths = [f"messages/{name}" for name in names if name not in stored]
        paths += [f"incoming/{name}" for name in await self._scan("incoming") if is_id(name)]
        before = clock.now().timestamp() - older_than
        old = [path for path in paths if await self._hands.file(partial(self._is_older, path, before))]
        removed = [path for path in old if await self._claim(path)]
        if removed:
            text = "files that nobody asked for were removed"
            self._log.event("recovered", component="spool", files=len(removed), text=text)
        return len(removed)

    async def drop(self, id: str) -> None:
        """Remove the file of an id that has no rows; what cannot be removed now goes with the next sweep.

        After a failed commit the database says nothing any more, so the file stays: its rows may be on the disk.
        """
        try:
            if await self._database.run(partial(queries.record, id=id)) is None:
                await self._unlink([f"messages/{id}"])
        except SpoolError:
            return

    async def put_aside(self, id: str, reason: str) -> bool:
        """Move a letter to quarantine; say whether there was one. Raises `SpoolError`."""
        task = self._moving.get(id)
        if task is None:
            task = self._moving[id] = asyncio.ensure_future(self._put_aside(id, reason))
            task.add_done_callback(lambda _: self._moving.pop(id, None))
        return await asyncio.shield(task)

    async def put_aside_quietly(self, id: str, reason: str) -> None:
        """Move a letter to quarantine; an error is the operator's to know and stops nothing."""
        try:
            await self.put_aside(id, reason)
        except SpoolError as error:
            self._alert(f"damaged ({reason}), and could not be moved to quarantine: {error}", id)

    async def _put_aside(self, id: str, reason: str) -> bool:
        record = await self._database.run(partial(read_record, id=id))
        if not record:
            return False
        try:
            await self._hands.file(partial(put_aside, self._folder, self._disk, id, record, reason))
        except SpoolBroken as error:
            self.halt(str(error))
            raise
        await self._database.run(partial(remove_rows, id=id))
        self._alert(f"damaged, and moved to quarantine: {reason}", id)
        return True

    async def _claim(self, path: str) -> bool:
        id = path.rpartition("/")[2]
        if id in self.busy:
            return False
        self.busy.add(id)
        try:
            if await self._database.run(partial(queries.record, id=id)) is not None:
                return False
            await self._unlink([path])
            return True
        finally:
            self.busy.discard(id)

    async def _scan(self, name: str) -> list[str]:
        try:
            entries = await self._hands.file(partial(self._disk.scan, self._folder / name))
        except OSError as error:
            raise of_files(error, f"the folder {name} cannot be read") from error
        return [entry for entry, kind in entries if kind is Kind.FILE]

    def _is_older(self, path: str, before: float) -> bool:
        try:
            return self._disk.status(self._folder / path).modified < before
        except OSError:
            return False

    async def _unlink(self, paths: Iterable[str]) -> None:
        await self._hands.file(partial(self._unlink_all, tuple(paths)))

    def _unlink_all(self, paths: Iterable[str]) -> None:
        for path in paths:
            try:
                self._disk.unlink(self._folder / path)
            except OSError:
                continue

    def _alert(self, text: str, id: str | None = None) -> None:
        self._log.event("alert", component="spool", id=id, text=text)
