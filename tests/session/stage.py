"""A gateway made of fakes, and a client that speaks to one session of it."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from random import Random

import pytest

from forwarder.model.address import Address, parse_mailbox
from forwarder.model.envelope import Peer
from forwarder.model.letter import Letter, Part
from forwarder.model.message import Delivery, MemoryContent, Outgoing
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.policy.content import ContentLimits
from forwarder.policy.limiter import LocalLimiter, SlidingLimiter
from forwarder.ports import NotKept
from forwarder.rewrite.srs import Srs
from forwarder.rules import parse
from forwarder.session.gateway import Gateway, Settings
from forwarder.session.transaction import Session
from tests.fakes import FakeClock, FakeResolver, RecordingLog

RULES = """
[ours.example, bücher.example]
me, sales               -> me@inbox.example
both                    -> me@inbox.example, other@inbox.example
shop from *@shop.example -> me@inbox.example
shop                    -> reject "550 5.7.1 This address was for shop.example only"
busy                    -> defer "450 4.2.1 Try later"
old                     -> discard
few                     -> me@inbox.example limit 2/hour
jürgen                  -> me@inbox.example
via                     -> me@inbox.example via [192.0.2.7]:26
"""
SECRET = b"a secret for the tests only"
DELIVERED = Outcome(Verdict.DELIVERED, Reply(250, "2.0.0", "queued"), "mx.inbox.example[192.0.2.9]:25", remote=True)
UNTRIED = Outcome(Verdict.UNTRIED, Reply(451, "4.4.0", "not tried yet"))
MESSAGE = b"From: a@sender.example\r\nSubject: hello\r\n\r\nbody\r\n"


class FakeCourier:
    """Takes everything, or what `outcome` says of each delivery; remembers the messages."""

    def __init__(self, outcome: Callable[[Delivery], Outcome] = lambda _: DELIVERED) -> None:
        self.outcome = outcome
        self.messages: list[Outgoing] = []
        self.deadlines: list[float] = []
        self.untold: list[Outgoing] = []
        self.entrusted: list[tuple[Outgoing, Callable[[int, Outcome], None]]] = []
        self.already: Outcome = UNTRIED

    async def hand_on(self, message: Outgoing, deadline: float) -> Sequence[Outcome]:
        self.messages.append(message)
        self.deadlines.append(deadline)
        return [self.outcome(delivery) for delivery in message.deliveries]

    async def known(self, message: Outgoing) -> Sequence[Outcome]:
        return [self.already for _ in message.deliveries]

    def entrust(self, message: Outgoing, settled: Callable[[int, Outcome], None]) -> None:
        self.entrusted.append((message, settled))

    async def unheard(self, message: Outgoing) -> None:
        self.untold.append(message)


class FakeKeeper:
    """Takes every letter, or none while `trouble` is set; `gate` makes it wait."""

    def __init__(self) -> None:
        self.kept: list[tuple[Letter, list[Outcome]]] = []
        self.reports: list[tuple[Part, Outcome]] = []
        self.full: Reply | None = None
        self.trouble: Reply | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    def refusal(self) -> Reply | None:
        return self.full

    async def keep(self, letter: Letter, outcomes: Sequence[Outcome]) -> None:
        await self.gate.wait()
        if self.trouble:
            raise NotKept(self.trouble, "the disk is full")
        self.kept.append((letter, list(outcomes)))

    def settled(self, part: Part, outcome: Outcome) -> None:
        self.reports.append((part, outcome))


class Stage:
    """One session; `say` gives the code and enhanced code of the answer."""

    def __init__(self, rules: str = RULES, postmaster: str = "owner@inbox.example") -> None:
        self.courier = FakeCourier()
        self.keeper = FakeKeeper()
        self.clock = FakeClock()
        self.log = RecordingLog()
        self.resolver = FakeResolver({("1.2.0.192.in-addr.arpa", "PTR"): ["mail.sender.example"]})
        owner = parse_mailbox(postmaster)
        self.gateway = Gateway(
            Settings("mx.ours.example", owner, message_size=10_000, recipients=100, content=ContentLimits()),
            parse([("test.rules", rules)], owner),
            Srs("fwd.ours.example", [SECRET], 21),
            self.courier,
            self.keeper,
            self.resolver,
            LocalLimiter(SlidingLimiter(self.clock.monotonic)),
            self.clock,
            Random(1),
            self.log,
        )
        self.session = Session(self.gateway, Peer("192.0.2.1", 4321))

    async def say(self, line: str | bytes) -> str:
        octets = line.encode() if isinstance(line, str) else line
        verb, _, argument = octets.partition(b" ")
        session = self.session
        match verb.decode():
            case "EHLO":
                reply = session.ehlo(argument, starttls=False)
            case "MAIL":
                reply = await session.mail(argument)
            case "RCPT":
                reply = await session.rcpt(argument)
            case "DATA":
                reply = session.data(argument)
            case "RSET":
                reply = session.rset()
            case _:
                raise AssertionError(line)
        self.reply = reply
        return f"{reply.code} {reply.enhanced}".strip()

    async def begin(self, sender: str = "<a@sender.example>", *recipients: str) -> None:
        assert await self.say("EHLO client.example") == "250"
        assert await self.say(f"MAIL FROM:{sender}") == "250 2.1.0", self.reply
        for recipient in recipients:
            assert await self.say(f"RCPT TO:{recipient}") == "250 2.1.5", self.reply

    async def send(self, octets: bytes = MESSAGE) -> Reply:
        assert await self.say("DATA") == "354"
        self.session.arriving(octets)
        return await self.session.accept(MemoryContent(octets))

    def sent_to(self) -> list[str]:
        """Every destination of every message handed on."""
        return [str(d.destination.address) for message in self.courier.messages for d in message.deliveries]


def srs(address: str, day: int | None = None) -> Address:
    """Encode as the stage's gateway does, on its day unless told."""
    today = int(FakeClock().now().timestamp()) // 86_400
    return Srs("fwd.ours.example", [SECRET], 21).encode(parse_mailbox(address), today if day is None else day)


async def stop_when(sending: Coroutine[None, None, Reply], courier: FakeCourier, offered: int) -> None:
    """Cancel a session as soon as so many messages have been offered and it has come to rest."""
    task = asyncio.create_task(sending)
    while len(courier.messages) < offered:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(5):
        await asyncio.sleep(0)


def hold_second_offer(courier: FakeCourier) -> None:
    """Let the second message that is offered have no answer."""
    hand_on, never = courier.hand_on, asyncio.Event()

    async def second_waits(message: Outgoing, deadline: float) -> Sequence[Outcome]:
        outcomes = await hand_on(message, deadline)
        if len(courier.messages) == 2:
            await never.wait()
        return outcomes

    courier.hand_on = second_waits  # type: ignore[method-assign]
