"""Outgoing connections over real sockets, on both event loops."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import pytest
import trustme
import uvloop

from forwarder.net.dialer import TcpConnection, TcpDialer
from forwarder.ports import Connection, ConnectionLost, Dialer, TimedOut

Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


Run: TypeAlias = Callable[[Coroutine[Any, Any, None]], None]


@asynccontextmanager
async def connected(
    serve: Serve, *, address: str = "127.0.0.1", source: str | None = None
) -> AsyncIterator[TcpConnection]:
    """A connection to a server whose every connection is served so, and cleared away at the end."""
    done: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        done.append(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handle, address, 0)
    connection = await TcpDialer().connect(address, server.sockets[0].getsockname()[1], source=source, timeout=5)
    try:
        yield connection
    finally:
        await connection.close()
        server.close()
        for task in done:
            task.cancel()
        await asyncio.gather(*done, return_exceptions=True)
        await server.wait_closed()
        await asyncio.sleep(0.01)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def test_the_ports_are_kept() -> None:
    dialer: Dialer = TcpDialer()
    connection: Connection = TcpConnection()
    assert dialer
    assert connection.tls is None


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_octets_go_both_ways(run: Run, address: str) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while octets := await reader.read(1000):
            writer.write(octets.upper())
            await writer.drain()

    async def play() -> None:
        async with connected(echo, address=address) as connection:
            await connection.write([b"ab", b"cd"], 5)
            heard = b""
            while len(heard) < 4:
                heard += await connection.read(5)
            assert heard == b"ABCD"

    run(play())


def test_the_source_is_used_where_its_family_fits(run: Run) -> None:
    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(writer.get_extra_info("peername")[0].encode())
        await writer.drain()

    async def play() -> None:
        async with connected(tell, source="127.0.0.77") as connection:
            assert await connection.read(5) == b"127.0.0.77"
        async with connected(tell, source="::1") as connection:
            assert await connection.read(5) == b"127.0.0.1"

    run(play())


def test_a_source_that_is_not_ours_is_a_plain_reason(run: Run) -> None:
    async def play() -> None:
        with pytest.raises(ConnectionLost, match="the source address is not one of this machine"):
            await TcpDialer().connect("127.0.0.1", 9, source="192.0.2.1", timeout=5)

    run(play())


def test_the_end_of_data_comes_after_the_data(run: Run) -> None:
    async def bye(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"421 bye\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def play() -> None:
        async with connected(bye) as connection:
            assert await connection.read(5) == b"421 bye\r\n"
            assert await connection.read(5) == b""
            await asyncio.sleep(0.01)
            with pytest.raises(ConnectionLost):
                await connection.write([b"x"], 5)

    run(play())


@pytest.mark.parametrize("last_words", [b"", b"421 bye\r\n"])
@pytest.mark.parametrize("closes", [False, True])
def test_what_became_of_it_while_nobody_looked_is_known(run: Run, last_words: bytes, closes: bool) -> None:
    go = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hop\r\n")
        await go.wait()
        writer.write(last_words)
        await writer.drain()
        if closes:
            writer.close()
        await asyncio.Event().wait()

    async def play() -> None:
        async with connected(speak) as connection:
            assert await connection.read(5) == b"220 hop\r\n"
            assert not connection.ended
            go.set()
            await asyncio.sleep(0.05)
            assert connection.ended is (closes or bool(last_words))

    run(play())


def test_nobody_listens(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def play() -> None:
        with pytest.raises(ConnectionLost, match=r"^connection refused$"):
            await TcpDialer().connect("127.0.0.1", port, source=None, timeout=5)

    run(play())


def test_nobody_answers(run: Run) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = []
        for _ in range(4):  # the queue of connections is full now: further ones get no answer
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            waiting.append(one)

        async def play() -> None:
            with pytest.raises(ConnectionLost, match=r"^timed out after 0\.05 s$"):
                await TcpDialer().connect("127.0.0.1", port, source=None, timeout=0.05)

        run(play())
        for one in waiting:
            one.close()


def test_reading_times_out(run: Run) -> None:
    async def play() -> None:
        async with connected(silent) as connection:
            with pytest.raises(ConnectionLost, match=r"^timed out after 0\.05 s$"):
                await connection.read(0.05)

    run(play())


def test_writing_waits_for_the_peer_and_times_out(run: Run) -> None:
    pieces = 0

    def endless() -> Iterator[bytes]:
        nonlocal pieces
        while True:
            pieces += 1
            yield b"x" * 65_536

    async def play() -> None:
        async with connected(silent) as connection:
            with pytest.raises(ConnectionLost, match=r"^timed out after 0\.1 s$"):
                await connection.write(endless(), 0.1)
            assert pieces < 500  # what kernels hold, and no more: nothing piles up in this process

    run(play())


def test_octets_of_a_peer_that_takes_none_are_no_progress(run: Run) -> None:
    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads as well
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.02)

    async def play() -> None:
        async with connected(dribble) as connection, asyncio.timeout(10):
            with pytest.raises(TimedOut, match=r"^timed out after 0\.2 s$"):
                await connection.write((b"x" * 65_536 for _ in range(1000)), 0.2)

    run(play())


def test_single_octets_taken_are_no_progress(run: Run) -> None:
    """A block has to be taken whole; each that is has a time-out of its own."""

    async def sip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bare = writer.get_extra_info("socket")
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads as well
        while True:
            await asyncio.sleep(0.02)
            with suppress(BlockingIOError):
                os.read(bare.fileno(), 1)

    async def play() -> None:
        async with connected(sip) as connection, asyncio.timeout(10):
            with pytest.raises(TimedOut, match=r"^timed out after 0\.2 s$"):
                await connection.write((b"x" * 65_536 for _ in range(1000)), 0.2)

    run(play())


def test_every_block_has_a_time_out_of_its_own(run: Run) -> None:
    heard = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        while octets := await reader.read(1_000_000):
            heard += len(octets)
            await asyncio.sleep(0.005)

    async def play() -> None:
        async with connected(slow) as connection:
            began = asyncio.get_running_loop().time()
            until = began + 1.5
            blocks = iter(lambda: b"x" * 65_536 if asyncio.get_running_loop().time() < until else b"", b"")
            await connection.write(blocks, 0.75)  # in all twice as long as one may take

    run(play())
    assert heard


def test_a_peer_that_talks_without_end_has_to_wait(run: Run) -> None:
    sent = 0

    async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()

    async def play() -> None:
        async with connected(chatter) as connection:
            await asyncio.sleep(0.2)
            assert sent < 50_000_000
            assert len(await connection.read(5)) <= 512 * 1024
            for _ in range(50):  # and goes on when it is heard
                assert await connection.read(5)

    run(play())


def test_a_connection_that_breaks_gives_its_reason(run: Run) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async def play() -> None:
        async with connected(reset) as connection:
            await connection.write([b"x"], 5)
            with pytest.raises(ConnectionLost, match="reset"):
                await connection.read(5)
            with pytest.raises(ConnectionLost):
                await connection.write([b"x"], 5)
            await connection.close()
            await connection.close()

    run(play())


class TestTls:
    @pytest.fixture
    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("hop.test").configure_cert(context)
        return context

    @pytest.mark.parametrize("host", ["hop.test", "other.test", "127.0.0.1", ""])
    def test_a_handshake(self, run: Run, context: ssl.SSLContext, host: str) -> None:
        names: list[str | None] = []
        context.sni_callback = lambda _socket, name, _context: names.append(name)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 go\r\n")
            await writer.start_tls(context)
            while octets := await reader.read(1000):
                writer.write(octets.upper())
                await writer.drain()

        async def play() -> None:
            async with connected(serve) as connection:
                before = connection.tls
                assert await connection.read(5) == b"220 go\r\n"
                await connection.start_tls(host, 5)
                after = connection.tls
                assert before is None
                assert after is not None
                assert (after.version, bool(after.cipher)) == ("TLSv1.3", True)
                await connection.write([b"quiet"], 5)
                assert await connection.read(5) == b"QUIET"

        run(play())
        assert names == [host if host.endswith(".test") else None]

    def test_what_was_read_ahead_in_clear_is_dropped(self, run: Run, context: ssl.SSLContext) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 go\r\n")
            await reader.read(1)
            writer.write(b"250 injected\r\n")
            await writer.start_tls(context)
            writer.write(b"250 under TLS\r\n")
            await writer.drain()
            await asyncio.Event().wait()

        async def play() -> None:
            async with connected(serve) as connection:
                assert await connection.read(5) == b"220 go\r\n"
                await connection.write([b"."], 5)
                await asyncio.sleep(0.05)  # the injected reply is here now, unread
                await connection.start_tls("hop.test", 5)
                assert await connection.read(5) == b"250 under TLS\r\n"

        run(play())

    def test_something_that_is_not_tls(self, run: Run) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"what is this supposed to mean?\r\n")
            await writer.drain()
            await asyncio.Event().wait()

        async def play() -> None:
            async with connected(serve) as connection:
                with pytest.raises(ConnectionLost, match=r"^the TLS handshake failed: wrong version number$"):
                    await connection.start_tls("hop.test", 5)
                with pytest.raises(ConnectionLost):
                    await connection.write([b"x"], 5)

        run(play())

    def test_a_peer_that_hangs_up(self, run: Run) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)

        async def play() -> None:
            async with connected(serve) as connection:
                with pytest.raises(ConnectionLost, match=r"^the TLS handshake failed: connection"):
                    await connection.start_tls("hop.test", 5)

        run(play())

    def test_a_peer_that_says_nothing(self, run: Run) -> None:
        async def play() -> None:
            async with connected(silent) as connection:
                with pytest.raises(ConnectionLost, match=r"^the TLS handshake timed out after 0\.1 s$"):
                    await connection.start_tls("hop.test", 0.1)

        run(play())
