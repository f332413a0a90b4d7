"""Dialogues with a real listener over real sockets.

    async def test_something(serve: Serve, way: Way) -> None:
        house = await serve(ListenerLimits(errors=3))
        async with house.client(way) as client:
            await client.expect("220")
            await client.ask("EHLO c.example", "250")
            await client.send(b"NOOP\r\nQUIT\r\n")
            await client.expect("250 2.0.0")
            await client.expect("221")
            await client.ended()

`serve` starts a listener on a port of its own; it and its clients are gone after the test, and the test fails if the
listener reported an exception that was not expected. Without `sessions` it serves the real `Session` on the gateway of
`tests.session.stage` (rules, courier, log: `house.stage`). `way` runs the test twice: whole, and byte by byte.
"""

import asyncio
import contextlib
import importlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import pytest

from forwarder.listener.conversation import Conversations
from forwarder.listener.limits import Admission, ListenerLimits
from forwarder.listener.protocol import ListenerOptions, TlsSource
from forwarder.listener.server import Listener
from forwarder.listener.sockets import open_listening
from forwarder.ports import Doorkeeper
from forwarder.session.transaction import Session
from tests.session.stage import Stage

PATIENCE = 20.0  # seconds until a test gives up waiting; nothing is ever measured with it
PROMPT = ListenerLimits(banner_delay=0.0)


class Way(Enum):
    WHOLE = "whole"
    BYTE_BY_BYTE = "byte by byte"


class Dialogue:
    """One client. `send` takes octets as they are; `ask` adds CRLF and checks the answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        self.reader = reader
        self.writer = writer
        self.way = way

    async def send(self, octets: bytes) -> None:
        """Send; a connection that is gone is found out by what is expected next."""
        pieces = [octets] if self.way is Way.WHOLE else [octets[i : i + 1] for i in range(len(octets))]
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                await asyncio.sleep(0)

    async def reply(self) -> list[str]:
        """Read one reply; give its lines without CRLF, all of one code."""
        lines: list[str] = []
        async with asyncio.timeout(PATIENCE):
            while not lines or lines[-1][3:4] == "-":
                line = await self.reader.readuntil(b"\r\n")
                assert line.count(b"\r") == line.count(b"\n") == 1, line
                lines.append(line[:-2].decode("ascii"))
        assert len({line[:3] for line in lines}) == 1, lines
        return lines

    async def expect(self, beginning: str) -> str:
        """Read one reply whose last line begins so; give it as one text."""
        lines = await self.reply()
        assert lines[-1].startswith(beginning), (beginning, lines)
        return "\n".join(lines)

    async def ask(self, line: str | bytes, beginning: str) -> str:
        """Send a line, expect a reply."""
        await self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return await self.expect(beginning)

    async def ended(self) -> None:
        """Expect that the server closes without another word."""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                assert await self.reader.read() == b""

    async def greet(self) -> None:
        """Get as far as EHLO."""
        await self.expect("220")
        await self.ask("EHLO client.example", "250")

    async def begin(self, recipient: str = "me@ours.example") -> None:
        """Get as far as the 354."""
        await self.ask("MAIL FROM:<a@sender.example>", "250 2.1.0")
        await self.ask(f"RCPT TO:<{recipient}>", "250 2.1.5")
        await self.ask("DATA", "354")

    async def deliver(self) -> None:
        """Send a whole message, which is accepted."""
        await self.begin()
        await self.send(b"Subject: x\r\n\r\nbody\r\n.\r\n")
        await self.expect("250 2.")

    def reset(self) -> None:
        """Go without a word: the server gets a RST."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands as a client, after the 220."""
        async with asyncio.timeout(PATIENCE):
            await self.writer.start_tls(context, server_hostname="mx.ours.example")


class House:
    """A listener under test. `errors` is what it reported, and `culprits` the addresses of the clients; a test that
    expects errors takes them out. `handshakes` is what it told of those that failed, `turned_away`
    of clients without room.
    """

    def __init__(self, stage: Stage) -> None:
        self.listener: Listener
        self.address: tuple[Any, ...]
        self.stage = stage
        self.errors: list[BaseException] = []
        self.culprits: list[str] = []
        self.handshakes: list[tuple[str, str]] = []
        self.turned_away: list[tuple[str, int]] = []

    def options(
        self, spill: Path, limits: ListenerLimits, tls: TlsSource | None, proxy_protocol: bool
    ) -> ListenerOptions:
        def report(error: BaseException, client: str) -> None:
            self.errors.append(error)
            self.culprits.append(client)

        def handshake_failed(client: str, reason: str) -> None:
            self.handshakes.append((client, reason))

        def refused(client: str, count: int) -> None:
            self.turned_away.append((client, count))

        return ListenerOptions(spill, limits, tls, proxy_protocol, report, handshake_failed, refused)

    @contextlib.asynccontextmanager
    async def client(self, way: Way = Way.WHOLE, source: str | None = None) -> AsyncIterator[Dialogue]:
        """Connect; the connection is closed at the end."""
        local = (source, 0) if source else None
        reader, writer = await asyncio.open_connection(*self.address[:2], local_addr=local)
        try:
            yield Dialogue(reader, writer, way)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    @property
    def received(self) -> list[bytes]:
        """The content of each message that the courier got."""
        return [b"".join(message.content.chunks()) for message in self.stage.courier.messages]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something has come true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.005)


class Serve(Protocol):
    def __call__(
        self,
        limits: ListenerLimits = PROMPT,
        *,
        sessions: Conversations | None = None,
        host: str = "127.0.0.1",
        tls: TlsSource | None = None,
        proxy_protocol: bool = False,
        spill: Path | None = None,
        message_size: int = 10_000,
        doorkeeper: Doorkeeper | None = None,
    ) -> Awaitable[House]: ...


@contextlib.asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Serve]:
    """What the fixture is made of, for tests that bring an event loop of their own."""
    houses: list[House] = []

    async def start(
        limits: ListenerLimits = PROMPT,
        *,
        sessions: Conversations | None = None,
        host: str = "127.0.0.1",
        tls: TlsSource | None = None,
        proxy_protocol: bool = False,
        spill: Path | None = None,
        message_size: int = 10_000,
        doorkeeper: Doorkeeper | None = None,
    ) -> House:
        stage = Stage()
        stage.gateway = replace(stage.gateway, settings=replace(stage.gateway.settings, message_size=message_size))
        stage.log.events.clear()  # of the stage's own session
        house = House(stage)
        options = house.options(spill or directory, limits, tls, proxy_protocol)
        conversations = sessions or (lambda peer: Session(stage.gateway, peer))
        house.listener = Listener(conversations, options, doorkeeper or Admission(limits))
        opened = open_listening(f"[{host}]:0" if ":" in host else f"{host}:0")
        house.address = opened.getsockname()
        await house.listener.serve([opened])
        houses.append(house)
        return house

    yield start
    for house in houses:
        await house.listener.drain(PATIENCE)
        assert house.listener.connections == 0
        assert house.errors == [], [repr(error) for error in house.errors]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Start listeners (see the module)."""
    async with serving(tmp_path) as start:
        yield start


@pytest.fixture(params=Way, ids=lambda way: way.value)
def way(request: pytest.FixtureRequest) -> Way:
    """Run the test whole and byte by byte."""
    chosen: Way = request.param
    return chosen


def loops() -> list[Callable[[], asyncio.AbstractEventLoop]]:
    found: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop]
    with contextlib.suppress(ImportError):
        found.append(importlib.import_module("uvloop").new_event_loop)
    return found


Play = Callable[[Serve, Way], Awaitable[None]]


@pytest.fixture(params=loops(), ids=lambda loop: loop.__module__)
def perform(request: pytest.FixtureRequest, tmp_path: Path, way: Way) -> Callable[[Play], None]:
    """Run a play on one of the loops."""

    async def run(play: Play) -> None:
        async with serving(tmp_path) as serve:
            await play(serve, way)

    def start(play: Play) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(run(play))

    return start
