"""How long a worker that was killed is missed: from SIGKILL to the next one's start, and to its first greeting.

Run with `-m bench -s`. The goal is one second. Seconds depend on the machine, so the medians are printed.
"""

import asyncio
import os
import re
import signal
import time
from pathlib import Path
from statistics import median

import pytest

from tests.bench.gateway import Wishes, our_gateway

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]

KILLS = 10
_WORKERS = 2
_STABLE = 6.0  # seconds: one that ends sooner after its start is replaced after a pause, on purpose
_CLOSED = 9  # the discard port: nobody listens on loopback
_LOOK = 0.002
_STARTED = re.compile(r" worker .*?worker=(\d+) pid=(\d+) outcome=started")


def started(log: Path) -> list[tuple[int, int]]:
    """Give the number and process of every worker that was started, in that order."""
    return [(int(number), int(pid)) for number, pid in _STARTED.findall(log.read_text())]


async def replacement(log: Path, before: int) -> None:
    """Wait until more than so many were started."""
    while len(started(log)) <= before:
        await asyncio.sleep(_LOOK)


async def greeting(address: tuple[str, int]) -> float:
    """Give when it came."""
    reader, writer = await asyncio.open_connection(*address)
    assert (await reader.readline()).startswith(b"220")
    writer.close()
    return time.monotonic()


async def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    log = tmp_path / "log"
    starts, greetings = [], []
    async with our_gateway(tmp_path, _CLOSED, Wishes(workers=_WORKERS)) as (_, address):
        await replacement(log, _WORKERS - 1)
        for _ in range(KILLS):
            await asyncio.sleep(_STABLE)
            known = started(log)
            latest = dict(known)
            number, pid = known[-1]
            other = latest[_WORKERS + 1 - number]
            os.kill(other, signal.SIGSTOP)  # so that the new one serves the client
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            asking = asyncio.create_task(greeting(address))
            await replacement(log, len(known))
            starts.append(time.monotonic() - killed)
            greetings.append(await asking - killed)
            os.kill(other, signal.SIGCONT)
    for name, seconds in (("started", starts), ("greeting", greetings)):
        print(f"\nfrom SIGKILL to {name}: median {median(seconds):.3f} s, most {max(seconds):.3f} s", end="")
    print()
