"""The ports of a worker and the desk that answers them: what a port promises holds over the wire, and a worker that
dies leaves nothing behind."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType

import pytest

from forwarder.model.address import Address
from forwarder.model.destination import Destination
from forwarder.model.envelope import MailOptions
from forwarder.model.letter import Letter, Part, Progress, State
from forwarder.model.message import Content, Delivery, MemoryContent, Outgoing
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.ops import wire
from forwarder.ops.desk import DIED, Desk, Store
from forwarder.ops.remote import remote_ports
from forwarder.ops.wire import Ports
from forwarder.policy.limiter import LocalLimiter, SlidingLimiter
from forwarder.ports import UNUSED, Held, Load, NotKept, SpoolError, SpoolFull, Turn
from tests.fakes import FakeClock
from tests.ops.test_rpc import Pair, pair

FULL = Reply(452, "4.3.1", "No room")
SENT = Outcome(Verdict.DELIVERED, Reply(250, "2.0.0", "ok"), "mx[192.0.2.1]:25", True, "TLSv1.3")
STILL = Outcome(Verdict.RUNNING, Reply(451, "4.4.7", "still at it"))
LOAD = Load("mx.example", "", "d.example", "s.example", ("a@b.example",))


@dataclass
class Parent:
    """All ports of the parent as a list of what was asked of them."""

    asked: list[object] = field(default_factory=list)
    answer: Reply | None = None
    turn_: Turn = field(default_factory=lambda: Turn(7, MappingProxyType({0: Held(FULL, 5.0)}), messages=3, ipv4=True))
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    kept: list[Letter] = field(default_factory=list)
    refused: NotKept | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    async def enter(self, client: str) -> Reply | None:
        await self.gate.wait()
        self.asked.append(("enter", client))
        return self.answer

    def leave(self, client: str) -> None:
        self.asked.append(("leave", client))

    async def recall(self, keys: Sequence[bytes]) -> Sequence[Outcome | None]:
        return [SENT if key == b"known" else None for key in keys]

    async def remember(self, entries: Mapping[bytes, Outcome]) -> None:
        self.asked.append(("remember", entries))

    async def forget(self, keys: Sequence[bytes]) -> None:
        self.asked.append(("forget", keys))

    def running(self, keys: Sequence[bytes]) -> None:
        self.asked.append(("running", keys))

    def ended(self, keys: Sequence[bytes]) -> None:
        self.asked.append(("ended", keys))

    async def strike(self, key: bytes) -> int:
        return len(key)

    async def turn(self, load: Load, until: float) -> Turn:
        await self.gate.wait()
        self.asked.append(("turn", load, until))
        return self.turn_

    def done(self, turn: Turn, outcomes: Sequence[Outcome]) -> None:
        self.asked.append(("done", turn.number, tuple(outcomes)))

    def refusal(self) -> Reply | None:
        return self.answer

    async def keep(self, letter: Letter, outcomes: Sequence[Outcome]) -> None:
        await self.gate.wait()
        if self.refused:
            raise self.refused
        self.kept.append(letter)
        self.asked.append(("keep", tuple(outcomes)))

    def settled(self, part: Part, outcome: Outcome) -> None:
        self.asked.append(("settled", part, outcome))


@dataclass
class Scene:
    both: Pair
    parent: Parent
    desk: Desk
    worker: Ports
    files: "Files"
    halts: list[str]

    async def end(self) -> None:
        """Let the worker die."""
        self.both.one.close()
        await self.both.until(lambda: len(self.both.losses) == 2)
        self.desk.lost()

    async def heard(self, count: int) -> list[object]:
        """Give what the parent's ports were asked, once it is so much."""
        await self.both.until(lambda: len(self.parent.asked) >= count)
        return self.parent.asked


class Files:
    """Message files in memory; `trouble` is raised by `write`, and with `lazy` nothing is stored."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.trouble: SpoolError | None = None
        self.lazy = False

    async def write(self, id: str, content: Content) -> Content:
        if self.trouble:
            raise self.trouble
        if not self.lazy:
            self.stored[id] = b"".join(content.chunks())
        return content

    def remove(self, id: str) -> None:
        del self.stored[id]


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    async with pair() as both:
        files = Files()
        halts: list[str] = []

        def adopt(id: str, size: int, digest: bytes, eight_bit: bool) -> Content:
            content = MemoryContent(files.stored[id])
            assert (content.size, content.digest, content.eight_bit) == (size, digest, eight_bit)
            return content

        worker = remote_ports(both.one, files)
        parent = Parent()
        limiter = LocalLimiter(SlidingLimiter(FakeClock().monotonic))
        desk = Desk(both.two, Ports(limiter, parent, parent, parent, parent), Store(adopt, halts.append))
        yield Scene(both, parent, desk, worker, files, halts)


def letter(deliveries: int = 2) -> Letter:
    mailbox = Address("b\u00fcro", "ours.example")
    each = Delivery(mailbox, Destination(Address("x", "inbox.example")), b"Received: \xff\r\n")
    content = MemoryContent(b"Subject: \xff\r\n\r\n")
    message = Outgoing("ID", None, mailbox, MailOptions(), content, (each,) * deliveries)
    return Letter(message, datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), (Progress(State.QUEUED),) * deliveries)


async def test_connections() -> None:
    async with scene() as on:
        assert await on.worker.doorkeeper.enter("192.0.2.1") is None
        assert await on.worker.doorkeeper.enter("2001:db8::1") is None
        on.parent.answer = FULL
        assert await on.worker.doorkeeper.enter("192.0.2.3") == FULL
        assert on.desk.connections == 2
        on.worker.doorkeeper.leave("192.0.2.1")
        assert (await on.heard(4))[3] == ("leave", "192.0.2.1")
        await on.end()
        assert on.parent.asked[4:] == [("leave", "2001:db8::1")]
        assert on.desk.connections == 0


async def test_limits() -> None:
    async with scene() as on:
        limiter = on.worker.limiter
        assert [await limiter.take("k", 2, 60) for _ in range(3)] == [True, True, False]
        assert not await limiter.room("k", 2, 60)
        limiter.give_back("k")
        assert await limiter.room("k", 2, 60)


async def test_a_client_that_gave_up_waiting_is_not_counted() -> None:
    async with scene() as on:
        on.parent.gate.clear()
        entering = asyncio.ensure_future(on.worker.doorkeeper.enter("192.0.2.1"))
        await on.both.until(lambda: on.both.two._running)
        on.parent.gate.set()
        entering.cancel()
        await on.both.until(lambda: not on.both.one._asked and on.desk.connections == 0)
        assert on.parent.asked in ([], [("enter", "192.0.2.1"), ("leave", "192.0.2.1")])


async def test_the_ledger_and_what_still_runs() -> None:
    async with scene() as on:
        ledger = on.worker.ledger
        assert list(await ledger.recall([b"known", b"new"])) == [SENT, None]
        await ledger.remember(MappingProxyType({b"k": SENT}))
        await ledger.forget([b"k"])
        assert await ledger.strike(b"four") == 4
        ledger.running([b"a", b"b"])
        ledger.running([b"a"])
        ledger.ended([b"a", b"b"])
        assert await on.heard(5) == [
            ("remember", {b"k": SENT}),
            ("forget", (b"k",)),
            ("running", (b"a", b"b")),
            ("running", (b"a",)),
            ("ended", (b"a", b"b")),
        ]
        await on.end()
        assert on.parent.asked[5:] == [("ended", (b"a",))]


async def test_turns_are_given_back() -> None:
    async with scene() as on:
        turn = await on.worker.pacer.turn(LOAD, 12.5)
        assert turn == replace(on.parent.turn_, held={0: Held(FULL, 5.0)})
        on.worker.pacer.done(turn, [SENT])
        on.worker.pacer.done(turn, [SENT])  # twice ends it once
        on.parent.turn_ = Turn(8, {})
        assert (await on.worker.pacer.turn(LOAD, 13.0)).number == 8
        on.parent.turn_ = Turn(0, {})
        assert (await on.worker.pacer.turn(LOAD, 14.0)).number == 0
        await on.end()
        asked = [one for one in on.parent.asked if isinstance(one, tuple) and one[0] == "done"]
        assert asked == [("done", 7, (SENT,)), ("done", 8, (UNUSED,))], "its provider is not to blame"


async def test_a_turn_that_comes_when_its_worker_is_dead_is_given_back() -> None:
    async with scene() as on:
        on.parent.gate.clear()
        waiting = asyncio.ensure_future(on.desk._turns._turn((LOAD, 1.0)))
        await asyncio.sleep(0)
        await on.end()
        on.parent.gate.set()
        await waiting
        assert on.parent.asked[-1] == ("done", 7, (UNUSED,))


async def test_custody() -> None:
    async with scene() as on:
        await on.worker.keeper.keep(letter(), [SENT, STILL])
        (kept,) = on.parent.kept
        assert replace(kept, message=replace(kept.message, content=_none)) == replace(
            letter(), message=replace(letter().message, content=_none)
        )
        assert b"".join(kept.message.content.chunks()) == b"Subject: \xff\r\n\r\n"
        on.worker.keeper.settled(Part("ID", 1), SENT)
        assert (await on.heard(2))[1] == ("settled", Part("ID", 1), SENT)
        await on.end()
        assert len(on.parent.asked) == 2


_none = MemoryContent(b"")


async def test_custody_that_is_refused() -> None:
    async with scene() as on:
        on.parent.refused = NotKept(FULL, "the disk is full")
        with pytest.raises(NotKept, match="the disk is full") as caught:
            await on.worker.keeper.keep(letter(), [STILL, STILL])
        assert caught.value.reply == FULL
        assert on.files.stored == {}  # nobody needs the file
        on.files.lazy = True
        with pytest.raises(NotKept) as broken:
            await on.worker.keeper.keep(letter(), [STILL, STILL])
        assert broken.value.reply.code == 451
        assert "KeyError" in str(broken.value)
        assert "KeyError" not in broken.value.reply.text
        await on.end()
        assert on.parent.asked == []
        with pytest.raises(NotKept):
            await on.worker.keeper.keep(letter(), [STILL, STILL])


@pytest.mark.parametrize(("trouble", "code"), [(SpoolFull("no room"), 452), (SpoolError("no disk"), 451)])
async def test_a_content_that_cannot_be_stored_is_not_offered(trouble: SpoolError, code: int) -> None:
    async with scene() as on:
        on.files.trouble = trouble
        with pytest.raises(NotKept, match=str(trouble)) as caught:
            await on.worker.keeper.keep(letter(), [STILL, STILL])
        assert caught.value.reply.code == code
        assert on.parent.asked == []


async def test_a_worker_whose_disk_fails_ends_the_taking_of_letters() -> None:
    async with scene() as on:
        on.both.one.tell(wire.BROKEN, "fsync failed")
        await on.both.until(lambda: on.halts)
        assert on.halts == ["fsync failed"]


async def test_attempts_that_ran_in_a_worker_that_died_are_tried_again() -> None:
    async with scene() as on:
        await on.worker.keeper.keep(letter(3), [STILL, SENT, STILL])
        on.worker.keeper.settled(Part("ID", 0), SENT)
        await on.heard(2)
        await on.end()
        assert on.parent.asked[2:] == [("settled", Part("ID", 2), DIED)]


async def test_a_letter_is_taken_to_the_end_though_its_worker_dies_meanwhile() -> None:
    async with scene() as on:
        on.parent.gate.clear()
        keeping = asyncio.ensure_future(on.worker.keeper.keep(letter(), [SENT, STILL]))
        await on.both.until(lambda: on.desk._letters._keeping)
        await on.end()
        with pytest.raises(NotKept):
            await keeping
        on.parent.gate.set()
        await on.both.until(lambda: not on.desk._letters._keeping)
        assert on.parent.asked == [("keep", (SENT, STILL)), ("settled", Part("ID", 1), DIED)]


async def test_a_refusal_is_known_before_it_is_asked_for() -> None:
    async with scene() as on:
        keeper = on.worker.keeper
        assert keeper.refusal() is None
        on.parent.answer = FULL
        on.desk.announce()
        on.desk.announce()
        await on.both.until(lambda: keeper.refusal() == FULL)
        on.parent.answer = None
        await keeper.keep(letter(), [STILL, STILL])  # any letter is an occasion to tell
        await on.both.until(lambda: keeper.refusal() is None)
