"""Lines and pieces out of what arrived, in any pieces; waiting always ends."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.listener.inbox import Ended, Inbox, Interrupted, LineTooLong, TimedOut

LONG = 60.0


class Wire:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.closing = False

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def is_closing(self) -> bool:
        return self.closing


def inbox(*pieces: bytes) -> tuple[Inbox, Wire]:
    wire = Wire()
    made = Inbox(asyncio.get_running_loop(), wire)
    for piece in pieces:
        made.feed(piece)
    return made, wire


@given(st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b"abcdefgh", b""]), max_size=20), st.integers(1, 12))
def test_lines_in_any_pieces(pieces: list[bytes], limit: int) -> None:
    octets = b"".join(pieces)

    async def read() -> list[bytes]:
        box, _ = inbox()
        for piece in pieces:
            asyncio.get_running_loop().call_soon(box.feed, piece)
        asyncio.get_running_loop().call_soon(box.end)
        lines = []
        while True:
            try:
                lines.append(await box.line(limit, LONG))
            except LineTooLong:
                lines.append(b"too long")
            except Ended:
                return lines

    complete = octets.count(b"\n")
    assert asyncio.run(read()) == [
        line + b"\n" if len(line) < limit else b"too long" for line in octets.split(b"\n")[:complete]
    ]


async def test_pieces_and_what_is_pushed_back() -> None:
    box, _ = inbox(b"one", b"two")
    assert await box.piece(LONG) == b"onetwo"
    box.feed(b"\nmore")
    box.push_back(b"rest")
    assert await box.line(10, LONG) == b"rest\n"
    assert await box.exactly(4, LONG) == b"more"


async def test_waits_end() -> None:
    box, _ = inbox(b"unfinished")
    with pytest.raises(TimedOut):
        await box.line(100, 0.01)
    with pytest.raises(TimedOut):
        await box.exactly(100, 0.01)
    box.discard()
    with pytest.raises(TimedOut):
        await box.piece(0.01)


async def test_what_came_before_the_end_is_read() -> None:
    box, _ = inbox(b"QUIT\r\nunfinished")
    box.end()
    assert await box.line(100, LONG) == b"QUIT\r\n"
    with pytest.raises(Ended):
        await box.line(100, LONG)
    assert await box.piece(LONG) == b"unfinished"
    with pytest.raises(Ended):
        await box.piece(LONG)


async def test_an_interruption_happens_once() -> None:
    box, _ = inbox()
    asyncio.get_running_loop().call_soon(box.interrupt)
    with pytest.raises(Interrupted):
        await box.line(100, LONG)
    box.feed(b"NOOP\r\n")
    assert await box.line(100, LONG) == b"NOOP\r\n"


async def test_row_17_a_line_without_end() -> None:
    box, _ = inbox(b"x" * 100)

    async def flood() -> None:
        while True:
            box.feed(b"x" * 1000)
            await asyncio.sleep(0)

    task = asyncio.create_task(flood())
    with pytest.raises(LineTooLong) as caught:
        await box.line(50, LONG)
    assert not caught.value.whole
    task.cancel()


async def test_memory_is_bounded_by_pausing() -> None:
    box, wire = inbox(b"x" * 65_536)
    assert wire.calls == []
    box.feed(b"x")
    box.feed(b"x")
    assert wire.calls == ["pause"]
    await box.exactly(2, LONG)
    assert wire.calls == ["pause", "resume"]


async def test_another_transport() -> None:
    box, old = inbox(b"x" * 70_000)
    box.discard()
    assert old.calls == ["pause", "resume"]
    box.feed(b"x" * 70_000)
    new = Wire()
    box.switch(new)
    assert old.calls == ["pause", "resume", "pause", "resume"]
    box.feed(b"x")
    assert new.calls == ["pause"]


async def test_silence() -> None:
    box, _ = inbox()
    assert await box.stays_silent(0)
    assert await box.stays_silent(0.01)
    asyncio.get_running_loop().call_soon(box.feed, b"x")
    assert not await box.stays_silent(LONG)
    box.discard()
    asyncio.get_running_loop().call_soon(box.end)
    assert await box.stays_silent(LONG)


async def test_row_18_others_get_a_turn_between_pieces() -> None:
    box, _ = inbox(b"x" * 200_000)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    pieces = [await box.piece(LONG) for _ in range(7)]
    assert [len(piece) for piece in pieces] == [32_768] * 6 + [3_392]
    assert turns >= 7
    task.cancel()


async def test_a_transport_that_is_closed_is_left_alone() -> None:
    box, wire = inbox(b"x" * 70_000)
    wire.closing = True
    await box.exactly(70_000, 20.0)
    assert wire.calls == ["pause"]


async def test_row_18_large_messages_take_turns() -> None:
    """However many clients send, one piece is given between two turns of the others."""
    turns = asyncio.Lock()
    boxes = [Inbox(asyncio.get_running_loop(), Wire(), turns) for _ in range(10)]
    given = 0

    async def read(box: Inbox) -> None:
        nonlocal given
        box.feed(b"x" * 65_536 * 2)
        for _ in range(4):
            assert len(await box.piece(20.0)) == 32_768
            given += 1

    reading = [asyncio.create_task(read(box)) for box in boxes]
    while given < 40:
        before = given
        await asyncio.sleep(0)
        assert given <= before + 1
    await asyncio.gather(*reading)
