"""How fast the courier hands on, against a next hop that does next to nothing in a process of its own.

pytest -m bench tests/bench/test_courier.py -s
"""

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import cast

import pytest
import uvloop

from forwarder.model.message import MemoryContent
from tests.delivery.desk import desk, message

pytestmark = pytest.mark.bench

LINE = b"x" * 76 + b"\r\n"
OFFER = b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000\r\n"


class _Sink(asyncio.Protocol):
    """Answers as a server does, and drops what it gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is not of asyncio's class
        self.in_content = False
        self.tail = b""
        self.transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        if self.in_content:
            window = self.tail + data[-5:] if len(data) >= 5 else self.tail + data
            self.tail = window[-5:]
            if window.endswith(b"\r\n.\r\n"):
                self.in_content = False
                self.transport.write(b"250 taken\r\n")
            return
        answers = [self.answer(line) for line in data.split(b"\r\n")[:-1]]
        self.transport.write(b"".join(answers))

    def answer(self, line: bytes) -> bytes:
        if line == b"DATA":
            self.in_content, self.tail = True, b"\r\n"
            return b"354 go\r\n"
        return OFFER if line.startswith(b"EHLO") else b"250 ok\r\n"


def _serve(tell: Connection) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", 0)
        tell.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


@pytest.fixture
def port() -> Iterator[int]:
    ours, theirs = multiprocessing.Pipe()
    sink = multiprocessing.Process(target=_serve, args=(theirs,), daemon=True)
    sink.start()
    yield ours.recv()
    sink.terminate()
    sink.join()
    ours.close()
    theirs.close()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_transactions_per_second(port: int, loop: object, capsys: pytest.CaptureFixture[str]) -> None:
    count, at_once = 5000, 10
    body = b"Subject: x\r\n\r\n" + LINE * 130

    async def play() -> None:
        async with desk(port) as ours:
            numbers = iter(range(count))

            async def sender() -> None:
                for number in numbers:
                    outgoing = message("me@inbox.test", content=b"N: %d\r\n" % number + body)
                    (outcome,) = await ours.send(outgoing)
                    assert outcome.reply.code == 250

            started, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(sender() for _ in range(at_once)))
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        with capsys.disabled():
            print(f"\n10 kB, pooled, {at_once} at once: {count / seconds:.0f}/s, {cpu / count * 1e6:.0f} µs CPU each")

    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]
        runner.run(play())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_large_message(port: int, loop: object, capsys: pytest.CaptureFixture[str]) -> None:
    class Large(MemoryContent):
        def chunks(self) -> Iterator[bytes]:
            whole = self.head(self.size)
            yield from (whole[n : n + 262_144] for n in range(0, len(whole), 262_144))

    content = Large(b"Subject: x\r\n\r\n" + LINE * 320_000)

    async def play() -> None:
        async with desk(port) as ours:
            await ours.send(message("me@inbox.test", content=b"Subject: warm\r\n\r\n"))
            started, cpu = time.perf_counter(), time.process_time()
            (outcome,) = await ours.send(message("me@inbox.test", content=content), seconds=60)
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
            assert outcome.reply.code == 250
        with capsys.disabled():
            print(f"\n{content.size / 1e6:.0f} MB: {cpu:.3f} s CPU (with SHA-256), {seconds:.3f} s")

    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]
        runner.run(play())
