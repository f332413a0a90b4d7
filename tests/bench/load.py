"""The two ends of a measurement, each a process of its own: a client that sends as fast as it is let, and a sink.

    python -m tests.bench.load sink 127.0.0.2
        prints its port; told `expect N` on stdin, it prints `done T` when N more messages have come
    python -m tests.bench.load send HOST PORT --messages 1000 --connections 20 --per-connection 1 --size 10000 --to A
        prints one JSON object: start, end, accepted, other (reply → count); with --letter FILE it sends that one over
        and over, each time with another number on top, which breaks no signature

Times are CLOCK_MONOTONIC in seconds, which all processes of a machine share. Both are plain asyncio protocols, so that
they are not what is measured; `tests.bench.throughput` measures them against each other to show it.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from deploy.demo.inbox import STORED, Inbox, Letter

_LINE = b"This line is one of many that fill a letter up to the size it should have.\r\n"


def message(number: int, size: int) -> bytes:
    """Give a message of about `size` octets, unlike all others."""
    head = (
        f"From: Ada <ada@sender.example>\r\nTo: you@yours.example\r\nSubject: letter {number}\r\n"
        f"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{number}.{time.monotonic_ns()}@sender.example>\r\n\r\n"
    ).encode()
    return head + _LINE * max(1, (size - len(head)) // len(_LINE))


@dataclass
class Load:
    """What is to be sent, and how it went so far."""

    to: str
    messages: int
    per_connection: int
    size: int
    letter: bytes = b""
    started: int = 0
    accepted: int = 0
    other: Counter[str] = field(default_factory=Counter)

    def message(self, number: int) -> bytes:
        """Give the message of a number, unlike all others."""
        return b"X-Number: %d\r\n%b" % (number, self.letter) if self.letter else message(number, self.size)

    def next(self) -> int | None:
        """Give the number of the next message, None when there is none left."""
        if self.started >= self.messages:
            return None
        self.started += 1
        return self.started


class Client(asyncio.Protocol):
    """One connection: EHLO, then messages with a pipelined envelope, then QUIT. `ended` is set when it is over."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.ended = asyncio.get_running_loop().create_future()
        self._buffer = b""
        self._sent = 0
        self._stage = 0  # 0 greeting, 1 EHLO, 2 MAIL, 3 RCPT, 4 DATA, 5 the dot
        self._in_transaction = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._in_transaction:
            self._load.other["connection lost"] += 1
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\r\n")
        for line in lines:
            if line[3:4] != b"-" and not self._transport.is_closing():
                self._reply(line)

    def _reply(self, line: bytes) -> None:
        good = line[:1] in (b"2", b"3")
        if not good:
            self._in_transaction = False
            self._load.other[line.decode("ascii", "replace")] += 1
            self._transport.close()
        elif self._stage == 0:
            self._transport.write(b"EHLO load.example\r\n")
            self._stage = 1
        elif self._stage in (1, 5):
            self._load.accepted += self._stage == 5
            self._begin()
        elif self._stage == 4:
            self._transport.write(self._load.message(self._number) + b".\r\n")
            self._stage = 5
        else:
            self._stage += 1

    def _begin(self) -> None:
        number = self._load.next() if self._sent < self._load.per_connection else None
        self._in_transaction = number is not None
        if number is None:
            self._transport.write(b"QUIT\r\n")
            self._transport.close()
            return
        self._number = number
        self._sent += 1
        self._transport.write(f"MAIL FROM:<ada@sender.example>\r\nRCPT TO:<{self._load.to}>\r\nDATA\r\n".encode())
        self._stage = 2


async def send(host: str, port: int, load: Load, connections: int) -> dict[str, object]:
    """Send everything over that many connections at a time; give the figures."""
    loop = asyncio.get_running_loop()

    async def keep_sending() -> None:
        while load.started < load.messages:
            try:
                _, client = await loop.create_connection(lambda: Client(load), host, port)
            except OSError as error:
                load.started += 1
                load.other[str(error.strerror)] += 1
                continue
            await client.ended

    start = time.monotonic()
    await asyncio.gather(*(keep_sending() for _ in range(connections)))
    return {"start": start, "end": time.monotonic(), "accepted": load.accepted, "other": dict(load.other)}


class _Counter:
    """Counts letters and says when the expected number has come."""

    def __init__(self) -> None:
        self._left = 0

    def take(self, letter: Letter) -> str:
        self._left -= 1
        if self._left == 0:
            print(f"done {time.monotonic()}", flush=True)
        return STORED

    def expect(self, number: int) -> None:
        self._left = number
        print("expecting", flush=True)


async def _sink(host: str) -> None:
    counter = _Counter()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with Inbox(counter.take).serve(host) as (_, port):
        print(port, flush=True)
        while line := await reader.readline():  # ends with whoever holds the other end of the pipe
            counter.expect(int(line.split()[1]))


def main() -> None:
    """Run one of the two ends."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.load")
    ends = parser.add_subparsers(dest="end", required=True)
    sink = ends.add_parser("sink")
    sink.add_argument("host")
    sender = ends.add_parser("send")
    sender.add_argument("host")
    sender.add_argument("port", type=int)
    for name, default in (("messages", 1000), ("connections", 20), ("per-connection", 1), ("size", 10_000)):
        sender.add_argument(f"--{name}", type=int, default=default)
    sender.add_argument("--to", default="you@yours.example")
    sender.add_argument("--letter", type=Path)
    arguments = parser.parse_args()
    if arguments.end == "sink":
        asyncio.run(_sink(arguments.host))
        return
    letter = arguments.letter.read_bytes() if arguments.letter else b""
    load = Load(arguments.to, arguments.messages, arguments.per_connection, arguments.size, letter)
    print(json.dumps(asyncio.run(send(arguments.host, arguments.port, load, arguments.connections))))


if __name__ == "__main__":
    main()
