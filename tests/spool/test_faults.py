"""Rows 24, 54 and 55: the disk fails in every operation there is, and the database in its commit."""

import asyncio
import errno
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from forwarder.model.faults import NO_ROOM, NOT_STORED
from forwarder.model.letter import Change, Letter, Progress, Query, State
from forwarder.model.message import MemoryContent
from forwarder.ports import SpoolError, SpoolFull
from forwarder.spool.faults import SpoolBroken, SpoolRefused
from forwarder.spool.hands import Inline
from tests.fakes import RecordingLog
from tests.spool.material import (
    DELIVERED,
    DatabaseDisk,
    FailingDisk,
    comparable,
    letter,
    names,
    number,
    octets,
    opened,
    part,
)

T = TypeVar("T")
ERRORS = [errno.ENOSPC, errno.EIO, errno.EMFILE]
BODY = b"0123456789" * 1000


def fresh() -> list[Letter]:
    return [letter(n, BODY + b"%d" % n) for n in (1, 2)]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("on", [False, True], ids=["once", "from there on"])
async def test_storing_is_whole_or_not_at_all(tmp_path: Path, error: int, on: bool) -> None:
    """An error in operation n, for every n: the call raised and nothing is there, or it returned and all is."""
    for at in range(1000):
        folder = tmp_path / str(at)
        folder.mkdir()
        disk = FailingDisk()
        spool = await opened(folder, disk=disk)
        await spool.store([letter(9)])
        disk.fail(at, error, on=on)
        raised: SpoolError | None = None
        try:
            await spool.store(fresh(), [Change(part(9), DELIVERED)])
        except SpoolError as caught:
            raised = caught
        injected = disk.failed
        disk.heal()
        if injected == "sync":
            assert isinstance(raised, SpoolBroken)
            assert spool.refusal() == NOT_STORED
        elif raised is not None:
            assert isinstance(raised, SpoolFull) == (error == errno.ENOSPC)
            assert spool.refusal() is None
            if not on:
                assert names(folder, "messages") == {number(9)}
                assert names(folder, "incoming") == set()
        await spool.close()
        spool = await opened(folder)
        expected = [letter(9)] if raised else fresh()
        found = [await spool.fetch(one.message.id) for one in await spool.find(Query())]
        assert [comparable(one) for one in found if one] == [comparable(one) for one in expected]
        assert names(folder, "messages") == {one.message.id for one in expected}
        assert names(folder, "incoming") == names(folder, "quarantine") == set()
        await spool.close()
        if not injected:
            break
    assert at > 12  # every operation had its turn


async def test_a_file_that_a_failed_store_left_is_in_nobodys_way(tmp_path: Path) -> None:
    """The database may have no room for asking whether the file may go: what is asked goes with what others write."""
    disk = DatabaseDisk()
    spool = await opened(tmp_path, disk=disk)
    await spool.store([letter(9)])
    disk.connection.failing, disk.connection.code, disk.connection.times = "COMMIT", sqlite3.SQLITE_FULL, 2
    with pytest.raises(SpoolFull):
        await spool.store([letter(1, b"first")], [Change(part(9), DELIVERED)])
    assert names(tmp_path, "messages") == {number(1), number(9)}
    await spool.store([letter(1, b"again")], [Change(part(9), DELIVERED)])
    kept = await spool.fetch(number(1))
    assert kept is not None
    assert octets(kept.message.content) == b"again"
    assert names(tmp_path, "messages") == {number(1)}
    await spool.close()


async def test_a_removal_that_waits_does_not_take_a_new_file(tmp_path: Path) -> None:
    gate = asyncio.Event()

    class Slow(Inline):
        async def file(self, work: Callable[[], T]) -> T:
            if getattr(getattr(work, "func", None), "__name__", "") == "_drop_all":
                await gate.wait()
            return work()

    spool = await opened(tmp_path, hands=Slow())
    await spool.files.write(number(1), MemoryContent(b"left"))
    spool.files.remove(number(1))
    storing = asyncio.create_task(spool.store([letter(1, b"again")]))
    for _ in range(10):
        await asyncio.sleep(0)
    gate.set()
    await storing
    await spool.files.removed()
    kept = await spool.fetch(number(1))
    assert kept is not None
    assert octets(kept.message.content) == b"again"
    await spool.close()


async def test_short_writes_are_continued(tmp_path: Path) -> None:
    disk = FailingDisk()
    disk.short = True
    spool = await opened(tmp_path, disk=disk)
    await spool.store(fresh())
    kept = await spool.fetch(number(1))
    assert kept is not None
    assert octets(kept.message.content) == BODY + b"1"
    await spool.close()


@pytest.mark.parametrize("error", ERRORS)
async def test_opening_survives_any_error(tmp_path: Path, error: int) -> None:
    """Opening either refuses or works; afterwards nothing that was acknowledged is missing."""
    spool = await opened(tmp_path)
    await spool.store(fresh())
    await spool.close()
    folder = tmp_path / "spool"
    for at in range(1000):
        (folder / "incoming" / number(7)).write_bytes(b"left")
        (folder / "messages" / number(8)).write_bytes(b"left")
        (folder / "ballast").unlink(missing_ok=True)
        disk = FailingDisk()
        disk.fail(at, error)
        try:
            await (await opened(tmp_path, disk=disk)).close()
        except SpoolRefused as refused:
            assert refused.problems[0].startswith("/")
        if not disk.failed:
            break
    assert at > 20
    spool = await opened(tmp_path)
    for one in fresh():
        kept = await spool.fetch(one.message.id)
        assert kept is not None
        assert comparable(kept) == comparable(one)
    assert names(tmp_path, "quarantine") == names(tmp_path, "incoming") == set()
    await spool.close()


@pytest.mark.parametrize("error", ERRORS)
async def test_quarantine_survives_any_error(tmp_path: Path, error: int) -> None:
    """A damaged letter is in the spool or in quarantine, whatever fails while it is moved."""
    for at in range(1000):
        folder = tmp_path / str(at)
        folder.mkdir()
        disk = FailingDisk()
        spool = await opened(folder, disk=disk)
        await spool.store([letter(1, b"whole"), letter(2)])
        (folder / "spool" / "messages" / number(1)).write_bytes(b"wh\0le")
        disk.fail(at, error)
        with pytest.raises(SpoolError):
            await spool.fetch(number(1))
        disk.heal()
        places = {place for place in ("messages", "quarantine") if number(1) in names(folder, place)}
        assert len(places) == 1
        await spool.close()
        spool = await opened(folder)
        assert await spool.fetch(number(2)) is not None
        if await spool.find(Query(ids=(number(1),))):
            with pytest.raises(SpoolError):
                await spool.fetch(number(1))
        assert {number(1), f"{number(1)}.json"} <= names(folder, "quarantine")
        assert (folder / "spool" / "quarantine" / number(1)).read_bytes() == b"wh\0le"
        assert names(folder, "messages") == {number(2)}
        await spool.close()
        if not disk.failed:
            break
    assert at > 8


async def test_reading_fails_for_now(tmp_path: Path) -> None:
    """An error in reading says nothing about the letter: it stays where it is."""
    disk = FailingDisk()
    spool = await opened(tmp_path, disk=disk)
    await spool.store([letter(1)])
    for at in range(3):
        disk.fail(at, errno.EIO)
        with pytest.raises(SpoolError):
            await spool.fetch(number(1))
    disk.heal()
    assert await spool.fetch(number(1)) is not None
    assert names(tmp_path, "quarantine") == set()
    await spool.close()


@pytest.mark.parametrize("which", [0, 1], ids=["file", "messages"])
async def test_after_a_failed_fsync_nothing_is_accepted(tmp_path: Path, which: int) -> None:
    disk, log = FailingDisk(), RecordingLog()
    spool = await opened(tmp_path, log, disk=disk)
    await spool.store([letter(1)])
    disk.steps.clear()
    await spool.store([letter(2)])
    syncs = [at for at, step in enumerate(disk.steps) if step == "sync"]
    assert len(syncs) == 2
    disk.fail(syncs[which], errno.EIO)
    with pytest.raises(SpoolBroken):
        await spool.store([letter(3)])
    disk.heal()
    disk.steps.clear()
    for _ in range(2):
        with pytest.raises(SpoolBroken):
            await spool.store([letter(4)])
    assert "sync" not in disk.steps
    assert spool.refusal() == NOT_STORED
    assert len(log.named("alert")) == 1
    await spool.store([], [Change(part(1), DELIVERED)])  # the database is sound, and outcomes matter
    await spool.close()
    spool = await opened(tmp_path)
    assert spool.refusal() is None
    await spool.store([letter(4)])
    assert [one.message.id for one in await spool.find(Query())] == [number(2), number(4)]
    await spool.close()


async def test_a_worker_whose_fsync_failed_never_tries_again(tmp_path: Path) -> None:
    disk = FailingDisk()
    spool = await opened(tmp_path, disk=disk)
    disk.steps.clear()
    await spool.files.write(number(1), MemoryContent(b"x"))
    disk.fail([at for at, step in enumerate(disk.steps) if step == "sync"][1], errno.EIO)
    with pytest.raises(SpoolBroken):
        await spool.files.write(number(2), MemoryContent(b"x"))
    disk.heal()
    with pytest.raises(SpoolBroken):
        await spool.files.write(number(3), MemoryContent(b"x"))
    spool.halt("a worker said so")
    assert spool.refusal() == NOT_STORED
    await spool.close()


@pytest.mark.parametrize("afterwards", [False, True], ids=["before", "after"])
async def test_a_failed_commit_ends_everything(tmp_path: Path, afterwards: bool) -> None:
    """Whether the commit reached the disk is not known: the letter is there whole or not at all, the change too."""
    disk, log = DatabaseDisk(), RecordingLog()
    spool = await opened(tmp_path, log, disk=disk)
    await spool.store([letter(1, parts=2)])
    disk.connection.afterwards = afterwards
    disk.connection.failing = "COMMIT"
    with pytest.raises(SpoolBroken):
        await spool.store([letter(2)], [Change(part(1, 0), DELIVERED)])
    disk.connection.failing = ""
    for call in (spool.store([letter(3)]), spool.store([], [Change(part(1), DELIVERED)]), spool.lease([part(1)])):
        with pytest.raises(SpoolBroken):
            await call
    assert spool.refusal() == NOT_STORED
    assert len(log.named("alert")) == 1
    await spool.close()
    spool = await opened(tmp_path, log)
    kept = await spool.fetch(number(2))
    assert (kept is not None) == afterwards
    first = await spool.fetch(number(1))
    assert first is not None
    assert (first.progress[0] == DELIVERED) == afterwards
    assert names(tmp_path, "messages") == {number(1), number(2)} if afterwards else {number(1)}
    assert names(tmp_path, "quarantine") == set()
    await spool.close()


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT INTO letters", "SAVEPOINT", "RELEASE"])
async def test_an_error_of_the_disk_within_a_transaction_ends_everything(tmp_path: Path, statement: str) -> None:
    disk = DatabaseDisk()
    spool = await opened(tmp_path, disk=disk)
    disk.connection.failing = statement
    with pytest.raises(SpoolBroken):
        await spool.store([letter(1)])
    assert spool.refusal() == NOT_STORED
    await spool.close()
    spool = await opened(tmp_path)
    assert await spool.find(Query()) == []
    await spool.close()


async def test_a_failed_checkpoint_ends_everything(tmp_path: Path) -> None:
    """SQLite's own checkpoints would not tell."""
    disk, log = DatabaseDisk(), RecordingLog()
    spool = await opened(tmp_path, log, disk=disk)
    disk.connection.failing = "PRAGMA wal_checkpoint"
    for n in range(250):
        try:
            await spool.remember({b"%d" % n: b"1"})
        except SpoolBroken:
            break
    assert n == 200
    assert spool.refusal() == NOT_STORED
    assert len(log.named("alert")) == 1
    await spool.close()


async def test_a_full_disk_refuses_new_letters_and_leaves_nothing(tmp_path: Path) -> None:
    disk = DatabaseDisk()
    spool = await opened(tmp_path, disk=disk)
    disk.connection.failing, disk.connection.code, disk.connection.times = "COMMIT", sqlite3.SQLITE_FULL, 1
    with pytest.raises(SpoolFull):
        await spool.store([letter(1)])
    assert names(tmp_path, "messages") == names(tmp_path, "incoming") == set()
    assert spool.refusal() is None
    disk.connection.failing = ""
    await spool.store([letter(1)])
    await spool.close()


async def test_the_ballast_lets_outcomes_be_recorded(tmp_path: Path) -> None:
    disk, log = DatabaseDisk(), RecordingLog()
    spool = await opened(tmp_path, log, disk=disk)
    await spool.store([letter(1), letter(2)])
    disk.free = None
    disk.connection.failing, disk.connection.code, disk.connection.times = "COMMIT", sqlite3.SQLITE_FULL, 1
    await spool.store([], [Change(part(1), Progress(State.HELD))])
    assert not (tmp_path / "spool" / "ballast").exists()
    assert spool.refusal() == NO_ROOM
    assert len(log.named("alert")) == 1
    with pytest.raises(SpoolFull):
        await spool.store([letter(3)])
    await spool.store([], [Change(part(2), DELIVERED)])
    await spool.watch()
    assert spool.refusal() is None
    assert (tmp_path / "spool" / "ballast").stat().st_size == 4096
    await spool.store([letter(3)])
    kept = await spool.fetch(number(1))
    assert kept is not None
    assert kept.progress[0].state is State.HELD
    await spool.close()


async def test_without_room_even_so_the_outcome_is_not_recorded(tmp_path: Path) -> None:
    disk = DatabaseDisk()
    spool = await opened(tmp_path, disk=disk)
    await spool.store([letter(1)])
    disk.connection.failing, disk.connection.code = "COMMIT", sqlite3.SQLITE_FULL
    with pytest.raises(SpoolFull):
        await spool.store([], [Change(part(1), DELIVERED)])
    disk.connection.failing = ""
    kept = await spool.fetch(number(1))
    assert kept is not None
    assert kept == letter(1, kept.message.content)
    await spool.close()
