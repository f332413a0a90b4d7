"""What the spool costs. Run with `-m bench -s`; it prints, and asserts nothing about the clock.

Each figure stands beside a bare loop of the same fsyncs in the same run, since disks and machines differ.
"""

import asyncio
import itertools
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from forwarder.model.letter import Change, Progress, Query, State
from forwarder.spool.room import SpoolSettings
from forwarder.spool.rows import INSERT_HEAD, INSERT_LETTER, INSERT_PART, letter_rows
from tests.spool.material import NOW, letter, number, opened, part

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

BODY = b"Subject: ten kilobytes\r\n\r\n" + b"0123456789abcdef" * 620
QUEUE = 100_000


async def median(work: Callable[[int], Awaitable[object]], times: int = 300) -> float:
    """Milliseconds."""
    runs = []
    for turn in range(times):
        start = time.perf_counter()
        await work(turn)
        runs.append(time.perf_counter() - start)
    return statistics.median(runs) * 1000


async def bare(folder: Path) -> float:
    """What one write and fsync of a file takes here, in milliseconds."""
    descriptor = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT, 0o600)

    async def once(_: int) -> None:
        os.write(descriptor, BODY)
        os.fsync(descriptor)

    found = await median(once)
    os.close(descriptor)
    return found


async def test_one_commit(tmp_path: Path) -> None:
    spool = await opened(tmp_path, hands=None)
    store = await median(lambda n: spool.store([letter(n, BODY)]))
    change = await median(lambda n: spool.store([], [Change(part(n), Progress(State.QUEUED, NOW, 1))]))
    print(f"\nbare fsync {await bare(tmp_path):.2f} ms; commit {change:.2f} ms; letter of 10 kB {store:.2f} ms")
    await spool.close()


async def test_fifty_at_a_time(tmp_path: Path) -> None:
    spool = await opened(tmp_path, hands=None)
    numbers = iter(range(5000))

    async def work() -> None:
        for n in numbers:
            await spool.store([letter(n, BODY)])

    start, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*itertools.starmap(work, [()] * 50))
    took, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"\n{5000 / took:.0f} letters of 10 kB a second, {cpu / 5:.2f} ms of processor each; ", end="")
    print(f"bare fsync {await bare(tmp_path):.2f} ms")
    await spool.close()


async def test_a_hundred_thousand_letters(tmp_path: Path) -> None:
    spool = await opened(tmp_path, hands=None)
    connection = spool._database._connection
    one = letter(0, b"x")
    content = one.message.content
    connection.execute("BEGIN")
    for n in range(QUEUE):
        row, parts, heads = letter_rows(letter(n, b"x"), content)
        connection.execute(INSERT_LETTER, row)
        connection.executemany(INSERT_PART, parts)
        connection.executemany(INSERT_HEAD, heads)
        (tmp_path / "spool" / "messages" / number(n)).write_bytes(b"x")
    connection.execute("COMMIT")
    await spool.close()
    start = time.perf_counter()
    spool = await opened(tmp_path, hands=None, settings=SpoolSettings())
    ready = time.perf_counter()
    waiting = await spool.waiting()
    known = time.perf_counter()
    assert len(waiting) == QUEUE
    await spool.fetch(number(QUEUE // 2))
    fetched = time.perf_counter()
    assert len(await spool.find(Query(ids=(number(5),)))) == 1
    assert await spool.find(Query(states=frozenset({State.HELD}))) == []
    found = time.perf_counter()
    assert len(await spool.find(Query())) == QUEUE
    everything = time.perf_counter()
    print(
        f"\nopening {ready - start:.2f} s, waiting {known - ready:.2f} s, one fetch {(fetched - known) * 1000:.1f} ms, "
    )
    print(f"finding by id and by state {found - fetched:.3f} s, finding all {everything - found:.2f} s")
    await spool.close()
