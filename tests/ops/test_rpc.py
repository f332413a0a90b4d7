"""Calls between processes: every type comes out equal, order is kept, failures stay where they belong."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.model.letter import Letter
from forwarder.model.message import Content, MemoryContent, Outgoing
from forwarder.ops import wire
from forwarder.ops.rpc import MAX_FRAME, BrokenFrame, Channel, ChannelLost, Frame, FrameReader, Kind, Method, RpcError

ECHO: Method[str, str] = Method(1, str, str)
SAY: Method[str, None] = Method(2, str)
COUNT: Method[int, int] = Method(3, int, int)
WRONG: Method[str, Any] = Method(3, str, int)


class Pair:
    """Two channels in one process. `told` is what either was told, `errors` what handlers raised."""

    def __init__(self) -> None:
        self.losses: list[str] = []
        self.errors: list[tuple[str, int]] = []
        self.one = Channel(lambda: self.losses.append("one"), self._report)
        self.two = Channel(lambda: self.losses.append("two"), self._report)
        self.sockets = socket.socketpair()

    def _report(self, error: BaseException, code: int) -> None:
        self.errors.append((type(error).__name__, code))

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0)


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    both = Pair()
    await both.one.open(both.sockets[0])
    await both.two.open(both.sockets[1])
    try:
        yield both
    finally:
        both.one.close()
        await both.until(lambda: sorted(both.losses) == ["one", "two"])


async def echo(text: str) -> str:
    return text


async def test_both_sides_call_at_once() -> None:
    async with pair() as both:
        both.one.serve(ECHO, echo)
        both.two.serve(ECHO, echo)
        words = [f"{number}" for number in range(200)]
        answers = await asyncio.gather(
            *(both.one.call(ECHO, word) for word in words), *(both.two.call(ECHO, word) for word in words)
        )
        assert answers == words * 2


async def test_frames_of_one_turn_are_written_together() -> None:
    async with pair() as both:
        heard: list[str] = []
        both.two.hear(SAY, heard.append)
        real = both.one._wire
        assert real is not None
        both.one._wire = recorder = _Recorder(real)
        for number in range(50):
            both.one.tell(SAY, str(number))
        await both.until(lambda: len(heard) == 50)
        both.one._wire = real
        assert recorder.writes == 1


class _Recorder(asyncio.Transport):
    """Counts what is written to another transport."""

    def __init__(self, real: asyncio.Transport) -> None:
        super().__init__()
        self.real, self.writes = real, 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes += 1
        self.real.write(data)


async def test_what_is_told_and_asked_keeps_its_order() -> None:
    async with pair() as both:
        seen: list[str] = []

        async def note(text: str) -> str:
            seen.append(text)
            return text

        both.two.serve(ECHO, note)
        both.two.hear(SAY, seen.append)
        calls = []
        for number in range(0, 40, 2):
            calls.append(asyncio.ensure_future(both.one.call(ECHO, f"{number}")))
            await asyncio.sleep(0)
            both.one.tell(SAY, f"{number + 1}")
        await asyncio.gather(*calls)
        await both.until(lambda: len(seen) == 40)
        assert seen == [f"{number}" for number in range(40)]


async def test_a_slow_handler_holds_nobody_up() -> None:
    async with pair() as both:
        go_on = asyncio.Event()

        async def answer(text: str) -> str:
            if text == "slow":
                await go_on.wait()
            return text

        both.two.serve(ECHO, answer)
        slow = asyncio.ensure_future(both.one.call(ECHO, "slow"))
        await asyncio.sleep(0)
        assert await both.one.call(ECHO, "quick") == "quick"
        assert not slow.done()
        go_on.set()
        assert await slow == "slow"


async def test_a_handler_that_fails_costs_one_answer() -> None:
    async with pair() as both:

        async def fail(text: str) -> str:
            raise ValueError(f"no {text}")

        both.two.serve(ECHO, fail)
        both.two.serve(COUNT, lambda _: asyncio.sleep(0, "no number"))  # type: ignore[arg-type]
        with pytest.raises(RpcError, match="ValueError: no luck"):
            await both.one.call(ECHO, "luck")
        with pytest.raises(RpcError, match="Expected `int`"):
            await both.one.call(COUNT, 1)
        with pytest.raises(RpcError, match="Expected `int`"):
            await both.one.call(WRONG, "x")
        with pytest.raises(RpcError, match="KeyError"):
            await both.one.call(Method[str, str](99, str, str), "x")
        both.one.tell(Method[str, None](98, str), "x")
        both.two.serve(ECHO, echo)
        assert await both.one.call(ECHO, "well") == "well"
        assert both.errors[0] == ("ValueError", 1)
        assert ("KeyError", 98) in both.errors


async def test_a_call_that_is_cancelled_is_cancelled_there() -> None:
    async with pair() as both:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def wait(text: str) -> str:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return text

        both.two.serve(ECHO, wait)
        calling = asyncio.ensure_future(both.one.call(ECHO, "x"))
        await begun.wait()
        calling.cancel()
        async with asyncio.timeout(20):
            await ended.wait()
        assert calling.cancelled() or calling.cancelling()
        await both.until(lambda: not both.one._asked)  # it was answered all the same
        assert not both.two._running


@pytest.mark.parametrize("turns", range(12))
async def test_an_answer_that_comes_too_late_is_undone_exactly_once(turns: int) -> None:
    """Whenever a call is cancelled: either its answer is had, or it is undone, or the handler never answered."""
    async with pair() as both:
        answered: list[str] = []
        undone: list[str] = []

        async def answer(text: str) -> str:
            await asyncio.sleep(0)
            answered.append(text)
            return text

        both.two.serve(ECHO, answer)
        calling = asyncio.ensure_future(both.one.call(ECHO, "x", undone.append))
        for _ in range(turns):
            await asyncio.sleep(0)
        calling.cancel()
        (had,) = await asyncio.gather(calling, return_exceptions=True)
        await both.until(lambda: not both.one._asked and not both.two._running)
        assert len(answered) == len(undone) + (had == "x")


async def test_whoever_waits_learns_that_the_other_side_has_gone() -> None:
    async with pair() as both:
        stopped = asyncio.Event()

        async def wait(text: str) -> str:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()
            return text

        both.two.serve(ECHO, wait)
        calling = asyncio.ensure_future(both.one.call(ECHO, "x"))
        await both.until(lambda: both.two._running)
        both.one.close()
        with pytest.raises(ChannelLost):
            await calling
        async with asyncio.timeout(20):
            await stopped.wait()
        with pytest.raises(ChannelLost):
            await both.one.call(ECHO, "y")
        both.one.tell(SAY, "nobody hears it")


async def test_octets_that_are_no_frame_end_the_channel() -> None:
    async with pair() as both:
        assert both.one._wire is not None
        both.one._wire.write(b"\xff" * 100)
        await both.until(lambda: both.losses)
        assert both.errors == [("BrokenFrame", 0)]


async def test_a_large_body_passes_and_one_that_is_too_large_is_refused_at_once() -> None:
    async with pair() as both:
        state: Method[bytes, int] = Method(4, bytes, int)

        async def measure(octets: bytes) -> int:
            return len(octets)

        both.two.serve(state, measure)
        assert await both.one.call(state, bytes(5_000_000)) == 5_000_000
        with pytest.raises(RpcError, match="a frame of"):
            await both.one.call(state, bytes(MAX_FRAME))
        assert not both.one._asked


frames = st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary()))


def written(kind: Kind, code: int, number: int, body: bytes) -> bytes:
    return len(body).to_bytes(4) + bytes([kind, code]) + number.to_bytes(4) + body


@given(frames, st.randoms(use_true_random=False))
def test_frames_are_the_same_however_they_are_cut(sent: list[tuple[Kind, int, int, bytes]], lot: Any) -> None:
    octets = b"".join(written(*frame) for frame in sent)
    reader, got, at = FrameReader(), list[Frame](), 0
    while at < len(octets):
        size = lot.randint(1, 20)
        got += reader.feed(octets[at : at + size])
        at += size
    assert got == [Frame(*frame) for frame in sent]


@given(st.lists(st.binary()))
def test_whatever_comes_is_frames_or_broken(pieces: list[bytes]) -> None:
    reader = FrameReader(largest=1000)
    try:
        for piece in pieces:
            for frame in reader.feed(piece):
                assert len(frame.body) <= 1000
    except BrokenFrame:
        pass


# What travels.

texts = st.text(max_size=20)
times = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
st.register_type_strategy(datetime, times)
st.register_type_strategy(float, st.floats(allow_nan=False))
st.register_type_strategy(int, st.integers(-(2**63), 2**63 - 1))
st.register_type_strategy(str, texts)
st.register_type_strategy(Mapping, lambda kind: st.dictionaries(*map(st.from_type, get_args(kind)), max_size=3))

METHODS = [value for value in vars(wire).values() if isinstance(value, Method)]


@given(st.data())
@pytest.mark.parametrize("method", METHODS, ids=lambda method: str(method.code))
def test_every_question_and_answer_comes_out_equal(method: Method[Any, Any], data: st.DataObject) -> None:
    for decoder in (method.question, method.answer):
        value = data.draw(st.from_type(decoder.type) if decoder.type is not None else st.none())
        assert decoder.decode(msgspec.msgpack.encode(value)) == value


def test_methods_have_codes_of_their_own() -> None:
    assert len({method.code for method in METHODS}) == len(METHODS)


@given(st.from_type(wire.Sheet))
def test_a_sheet_is_the_letter_but_for_its_content(sheet: wire.Sheet) -> None:
    content = MemoryContent(b"octets")
    letter = wire.letter_of(sheet, content)
    assert letter.message.content is content
    again = wire.sheet_of(letter, _Stored(sheet))
    assert again == sheet


class _Stored(MemoryContent):
    def __init__(self, sheet: wire.Sheet) -> None:
        super().__init__(b"")
        self.size, self.eight_bit, self._digest = sheet.size, sheet.eight_bit, sheet.digest


def test_a_sheet_has_all_that_a_letter_has() -> None:
    letter = {field.name for field in (*fields(Letter), *fields(Outgoing))} - {"message", "content"}
    content = {name for name in ("size", "digest", "eight_bit") if hasattr(Content, name)}
    assert {field.name for field in fields(wire.Sheet)} == letter | content
