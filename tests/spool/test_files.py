"""Message files by themselves, as a worker uses them, and the sweep for workers that died."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from forwarder.model.message import MemoryContent
from forwarder.ports import SpoolError
from forwarder.spool.disk import RealDisk
from forwarder.spool.files import MessageFiles
from forwarder.spool.hands import Inline
from tests.fakes import FakeClock
from tests.spool.material import letter, names, number, octets, opened


async def test_a_worker_writes_without_the_database(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    files = MessageFiles(tmp_path / "spool", RealDisk(), Inline())
    content = await files.write(number(1), MemoryContent(b"x" * 3_000_000 + b"\xff"))
    assert (content.size, content.eight_bit) == (3_000_001, True)
    assert content.head(5) == b"xxxxx"
    assert max(map(len, content.chunks())) <= 1 << 20
    await spool.store([letter(1, spool.files.adopt(number(1), content.size, content.digest, True))])
    kept = await spool.fetch(number(1))
    assert kept is not None
    assert octets(kept.message.content) == octets(content)
    await spool.close()


async def test_a_message_file_is_never_written_over(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await spool.files.write(number(1), MemoryContent(b"first"))
    with pytest.raises(SpoolError, match="already"):
        await spool.files.write(number(1), MemoryContent(b"second"))
    assert (tmp_path / "spool" / "messages" / number(1)).read_bytes() == b"first"
    assert names(tmp_path, "incoming") == set()
    await spool.close()


async def test_no_descriptor_is_kept(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await spool.store([letter(n) for n in range(50)])
    before = len(os.listdir("/proc/self/fd"))
    for n in range(50):
        kept = await spool.fetch(number(n))
        assert kept is not None
        assert octets(kept.message.content)
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    await spool.close()


async def test_a_failing_source_leaves_nothing(tmp_path: Path) -> None:
    class Vanished(MemoryContent):
        def chunks(self):  # type: ignore[no-untyped-def]
            yield b"some"
            raise OSError(5, "gone")

    spool = await opened(tmp_path)
    with pytest.raises(SpoolError):
        await spool.store([letter(1, Vanished(b""))])
    assert names(tmp_path, "messages") == names(tmp_path, "incoming") == set()
    await spool.close()


async def test_the_sweep_removes_what_is_old_and_nobody_asked_for(tmp_path: Path) -> None:
    clock = FakeClock(datetime.now(UTC))
    spool = await opened(tmp_path, clock=clock)
    await spool.store([letter(1)])
    await spool.files.write(number(2), MemoryContent(b"x"))
    (tmp_path / "spool" / "incoming" / number(3)).write_bytes(b"x")
    assert await spool.sweep() == 0
    clock.advance(3000)
    assert await spool.sweep() == 0
    clock.advance(700)
    assert await spool.sweep() == 2
    assert names(tmp_path, "messages") == {number(1)}
    assert names(tmp_path, "incoming") == set()
    await spool.close()


async def test_the_sweep_leaves_what_is_busy_and_no_letter_comes_between(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    content = await spool.files.write(number(1), MemoryContent(b"x"))
    spool._cleaning.busy.add(number(1))
    assert await spool.sweep(-1e9) == 0
    with pytest.raises(SpoolError, match="being stored"):
        await spool.store([letter(1, content)])
    spool._cleaning.busy.clear()
    assert await spool.sweep(-1e9) == 1
    with pytest.raises(SpoolError, match="missing"):
        await spool.store([letter(1, content)])
    await spool.close()


async def test_the_sweep_never_takes_what_is_being_stored(tmp_path: Path) -> None:
    """The clock jumps ahead by ten years while letters are stored whose files a worker wrote."""
    clock = FakeClock(datetime(2036, 1, 1, tzinfo=UTC))
    spool = await opened(tmp_path, clock=clock, hands=None)

    async def stored(n: int) -> bool:
        try:
            await spool.store([letter(n, await spool.files.write(number(n), MemoryContent(b"%d" % n)))])
        except SpoolError:
            return False
        return True

    async def swept() -> None:
        for _ in range(30):
            await spool.sweep()

    *results, _ = await asyncio.gather(*map(stored, range(60)), swept())
    acknowledged = {number(n) for n, result in enumerate(results) if result}
    for id in acknowledged:
        assert await spool.fetch(id) is not None
    await spool.sweep()
    assert names(tmp_path, "messages") == acknowledged
    assert names(tmp_path, "quarantine") == set()
    await spool.close()
