"""Content on its way from the inbox to memory or disk: bounded memory, whatever is sent."""

import asyncio
import tracemalloc
from pathlib import Path

import pytest

from forwarder.listener.inbox import Inbox
from forwarder.listener.intake import Cut, Intake
from forwarder.listener.limits import ListenerLimits
from forwarder.model.reply import Reply
from tests.listener.test_inbox import Wire

LINE = b"x" * 76 + b"\r\n"
SIZE = 320_512 * len(LINE)  # a little over 25 MB


async def peak_while_receiving(tmp_path: Path, largest: int, piece: bytes, pieces: int) -> tuple[object, int]:
    """Receive the pieces and a dot; give what came of it and the most memory that it took, in octets."""
    wire = Wire()
    box = Inbox(asyncio.get_running_loop(), wire)

    async def send() -> None:
        for _ in range(pieces):
            box.feed(piece)
            while wire.calls[-1:] == ["pause"]:
                await asyncio.sleep(0)
        box.feed(b"\r\n.\r\n")

    tracemalloc.start()
    try:
        sending = asyncio.create_task(send())
        until = asyncio.get_running_loop().time() + 1000
        result: object
        try:
            result = await Intake(ListenerLimits(), tmp_path, largest).receive(box, until, lambda _: None)
        except Cut as cut:
            result = cut.reply
        sending.cancel()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "piece", [LINE * 832, b"x" * 65_536, b"\r\n" * 32_768], ids=["text", "one line", "empty lines"]
)
async def test_row_19_a_large_message_needs_little_memory(tmp_path: Path, piece: bytes) -> None:
    result, peak = await peak_while_receiving(tmp_path, 50_000_000, piece, SIZE // len(piece))
    assert not isinstance(result, Reply)
    assert peak < 8_000_000


async def test_row_17_a_message_that_is_too_large_needs_none(tmp_path: Path) -> None:
    result, peak = await peak_while_receiving(tmp_path, 1_000_000, b"x" * 65_536, 1600)
    assert isinstance(result, Reply)
    assert (result.code, result.enhanced, result.close) == (552, "5.3.4", True)
    assert peak < 8_000_000


@pytest.mark.parametrize(("most", "taken"), [(0, True), (4999, False), (5000, True)])
async def test_row_21_a_long_line_is_refused_where_that_is_wanted(tmp_path: Path, most: int, taken: bool) -> None:
    box = Inbox(asyncio.get_running_loop(), Wire())
    box.feed(b"Subject: x\r\n\r\n" + b"x" * 5000 + b"\r\n.\r\n")
    limits = ListenerLimits(line_length=most)
    result = await Intake(limits, tmp_path, 1_000_000).receive(
        box, asyncio.get_running_loop().time() + 1000, lambda _: None
    )
    assert isinstance(result, Reply) is not taken
    if isinstance(result, Reply):
        assert (result.code, result.enhanced) == (554, "5.6.0")
