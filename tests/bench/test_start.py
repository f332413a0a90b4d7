"""How long `forwarder serve` takes to its first replies over a long queue, and what idle clients cost it.

Run with `-m bench -s`. Goals: 5 seconds from the start of the process to the first reply with 100,000 queued messages;
30 MB for 1,000 idle connections. Seconds depend on the machine, so they are printed beside what starting with an empty
queue takes in the same run; memory is asserted.
"""

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy.demo.gateway import gateway, listening_socket
from deploy.demo.setting import INBOX, Ports
from deploy.demo.zone import Zone
from forwarder.config import load
from forwarder.model.address import Address
from forwarder.model.destination import Destination
from forwarder.model.letter import Progress, State
from forwarder.model.message import Delivery
from forwarder.spool.rows import INSERT_HEAD, INSERT_LETTER, INSERT_PART, letter_rows
from tests.bench.gateway import HOST, TO, Wishes, configuration, names
from tests.bench.processes import cpu, memory
from tests.spool.material import letter, number, opened

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

QUEUE = 100_000
CLIENTS = 1000
DOMAINS = 500  # destinations of the queue
_CLOSED = 9  # the discard port: nobody listens on loopback
_FROM_QUEUE = re.compile(rf"@d\d+\.{re.escape(INBOX)}\b")
_MESSAGE = b"From: a@sender.example\r\nSubject: x\r\n\r\ntext\r\n"


@dataclass(frozen=True, slots=True)
class Started:
    """Seconds from the start of the process until a client was greeted, EHLO and a message answered, and the queue was
    loaded, so that the first message of it is tried; megabytes and seconds of CPU then."""

    greeted: float
    welcomed: float
    answered: float
    loaded: float
    resident: float
    cpu: float


async def fill(folder: Path, count: int) -> None:
    """Make a spool of `count` letters, each with a destination; a tenth of them are due at once."""
    spool = await opened(folder, hands=None)
    connection = spool._database._connection
    now = datetime.now(UTC)
    content = letter(0, b"x").message.content
    connection.execute("BEGIN")
    for n in range(count):
        due = now + timedelta(seconds=0 if n % 10 == 0 else 600 + n % 3000)
        one = letter(n, b"x", received=now, progress=(Progress(State.QUEUED, due, 1, 60.0, "451 4.4.1 no answer"),))
        to = Destination(Address(f"user{n}", f"d{n % DOMAINS}.{INBOX}"))
        message = replace(one.message, deliveries=(Delivery(one.message.deliveries[0].recipient, to, b"X: y\r\n"),))
        row, parts, heads = letter_rows(replace(one, message=message), content)
        connection.execute(INSERT_LETTER, row)
        connection.executemany(INSERT_PART, parts)
        connection.executemany(INSERT_HEAD, heads)
        (folder / "spool" / "messages" / number(n)).write_bytes(b"x")
    connection.execute("COMMIT")
    await spool.close()
    os.sync()  # else the gateway's first fsync waits until all these files are on the disk


async def first_message(address: tuple[str, int], began: float) -> tuple[float, float, float]:
    """Give when the greeting came and when EHLO and a message were answered, in seconds since `began`."""
    reader, writer = await asyncio.open_connection(*address)
    assert (await reader.readline()).startswith(b"220")
    greeted = time.monotonic() - began
    welcomed = 0.0
    lines = ("EHLO load.example", "MAIL FROM:<ada@sender.example>", f"RCPT TO:<{TO}>", "DATA")
    for line in lines:
        writer.write(line.encode() + b"\r\n")
        while (reply := await reader.readline())[3:4] == b"-":
            pass
        assert reply[:1] in b"23", reply
        welcomed = welcomed or time.monotonic() - began
    writer.write(_MESSAGE + b".\r\n")
    assert await reader.readline()  # the next hop is down: whatever is answered, it is an answer
    writer.close()
    return greeted, welcomed, time.monotonic() - began


async def first_attempt(log: Path, began: float) -> float:
    """Give when the first message of the queue was tried, in seconds since `began`."""
    while not _FROM_QUEUE.search(log.read_text()):
        await asyncio.sleep(0.01)
    return time.monotonic() - began


@contextlib.asynccontextmanager
async def running(folder: Path, count: int) -> AsyncIterator[tuple[Started, tuple[str, int], int]]:
    """Run a gateway over a queue of that many; give how it started, its address and its process."""
    zone = Zone(names())
    with zone.in_thread(HOST) as (_, dns), listening_socket(HOST) as listening:
        address = (HOST, listening.getsockname()[1])
        path = await asyncio.to_thread(configuration, folder, Ports(dns, _CLOSED, address[1]), Wishes(checks=True))
        if count:
            await fill(load(path).state_dir, count)
        began = time.monotonic()
        asking = asyncio.create_task(first_message(address, began))
        async with gateway(path, listening, lambda line: None, folder / "log") as child:
            times = await asyncio.wait_for(asking, 120)
            loaded = await first_attempt(folder / "log", began) if count else times[-1]
            used = sum(cpu(child.pid).values())
            yield Started(*times, loaded, memory(child.pid, "VmRSS") / 1024, used), address, child.pid


async def test_a_hundred_thousand_queued_messages(tmp_path: Path) -> None:
    figures = {}
    for count in (0, QUEUE):
        folder = tmp_path / str(count)
        folder.mkdir()
        async with running(folder, count) as (figures[count], _, _):
            pass
    for count, found in figures.items():
        print(
            f"\n{count} queued: greeted after {found.greeted:.2f} s, EHLO answered after {found.welcomed:.2f} s, "
            f"a message after {found.answered:.2f} s, loaded after {found.loaded:.2f} s, "
            f"{found.cpu:.2f} s CPU, {found.resident:.0f} MB",
            end="",
        )
    print()


async def test_a_thousand_idle_connections(tmp_path: Path) -> None:
    async with running(tmp_path, 0) as (_, address, pid), contextlib.AsyncExitStack() as stack:
        before = memory(pid, "VmRSS")
        for _ in range(CLIENTS):
            reader, writer = await asyncio.open_connection(*address)
            stack.callback(writer.close)
            assert (await reader.readline()).startswith(b"220")
        more = (memory(pid, "VmRSS") - before) / 1024
    print(f"\n{CLIENTS} idle connections: {more:.1f} MB")
    assert more <= 30
