"""The small program: spool, runner, settlement and the operator's desk as they are, under load, until it is killed.

Senders, next hops and the operator are played inside it, and say in the journal what they do. A hop says that it took
a mail at the moment of its 250; what comes after that and before `recorded` is the window of RFC 1047.
"""

import asyncio
import hashlib
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forwarder.delivery.attempts import Tools
from forwarder.delivery.intervals import Intervals
from forwarder.delivery.queue_desk import Desktop, QueueDesk
from forwarder.delivery.runner import Runner, RunnerSettings
from forwarder.delivery.schedule import Bounds
from forwarder.delivery.settlement import Settlement, SettlementSettings
from forwarder.model.address import Address
from forwarder.model.destination import Destination
from forwarder.model.envelope import MailOptions
from forwarder.model.letter import Change, Letter, Part, Progress, Query, State
from forwarder.model.message import Content, Delivery, MemoryContent, Outgoing
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.ops.clock import SystemClock
from forwarder.ports import NotKept
from forwarder.spool.store import EmbeddedSpool
from tests.fakes import RecordingLog
from tests.kill.doom import IMMORTAL, DeadlyDisk, Doom
from tests.kill.journal import Journal, told_by
from tests.spool.material import SMALL, number

SENDER = Address("a", "sender.test")
POSTMASTER = Address("postmaster", "owner.test")
PACE = Intervals(seconds=(0.02, 0.05), expire=0.4)
_SENDERS = 4
_LETTERS = 15  # of each sender
_LARGE = 1_200_000
_SAID = {
    Verdict.DELIVERED: Reply(250, "2.0.0", "taken"),
    Verdict.DEFERRED: Reply(451, "4.7.1", "greylisted"),
    Verdict.REFUSED: Reply(550, "5.1.1", "nobody of that name"),
    Verdict.RUNNING: Reply(451, "4.4.7", "not answered yet"),
    Verdict.UNTRIED: Reply(451, "4.4.0", "not tried yet"),
}


@dataclass(frozen=True, slots=True)
class Life:
    """One run of the program: `number` is no other's in this folder; `calm` sends nothing and is let finish."""

    number: int
    seed: int
    doom: Doom = IMMORTAL
    calm: bool = False


class Watched(EmbeddedSpool):
    """Says what has been recorded."""

    journal: Journal
    places: dict[Part, tuple[str, str]]

    async def watch_into(self, journal: Journal) -> None:
        """Begin."""
        self.journal, self.places = journal, {}
        self._note(await self.find(Query()))

    async def store(self, letters: Sequence[Letter], changes: Sequence[Change] = ()) -> None:
        self._note(letters)
        await super().store(letters, changes)
        self.journal.say("recorded", [self.places[one.part] for one in changes])

    def _note(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            digest = letter.message.content.digest.hex()
            for n, one in enumerate(letter.message.deliveries):
                self.places[Part(letter.message.id, n)] = digest, str(one.destination.address)


class Small:
    """The program's parts, put together."""

    def __init__(self, folder: Path, life: Life, journal: Journal) -> None:
        self._folder = folder
        self._life = life
        self._journal = journal
        self._dice = random.Random(life.seed)
        self._clock = SystemClock()
        self._log = RecordingLog()
        self._numbers = itertools.count(life.number * 1_000_000)
        self._late: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Open, work, and end only if nothing kills us."""
        disk = DeadlyDisk(self._life.doom, lambda what: self._journal.say("dies", what))
        opened = await Watched.open(self._folder / "spool", clock=self._clock, log=self._log, settings=SMALL, disk=disk)
        assert isinstance(opened, Watched)
        self._spool = spool = opened
        await spool.watch_into(self._journal)
        settings = SettlementSettings("mx.test", lambda address: (Destination(address),), PACE)
        settlement = Settlement(settings, self._clock, self._dice, self._new_id)
        bounds = Bounds(patience=0.05)
        runner = Runner(
            RunnerSettings(POSTMASTER, bounds=bounds, notice_after=0.02, notice_every=0.05),
            Tools(spool, self, settlement, self._clock, self._log),
        )
        self._runner = runner
        await runner.start()
        desktop = Desktop(self._clock, self._new_id, self._log, deciding=runner.deciding)
        self._desk = QueueDesk(spool, settlement, runner, desktop)
        running = asyncio.create_task(runner.run())
        if not self._life.calm:
            await asyncio.gather(self._operate(), *(self._send_many() for _ in range(_SENDERS)))
        await self._empty()
        await runner.drain(5.0)
        await running
        await spool.close()
        assert not self._log.named("alert"), self._log.named("alert")

    async def _empty(self) -> None:
        """Wait until nothing more will be tried and the owner has been told.

        `find` reads the ids before the rows: a letter that is stored between the two is not seen, though the end of the
        part that it tells of is. So nothing may be open in one look, and the next must find the same letters.
        """
        closed: set[str] | None = None
        while True:
            letters = await self._spool.find(Query())
            found = {letter.message.id for letter in letters}
            if found == closed:
                return
            closed = None if self._late or any(map(_is_open, letters)) else found
            await asyncio.sleep(0.02)

    def _new_id(self) -> str:
        return number(next(self._numbers))

    # The senders

    async def _send_many(self) -> None:
        for _ in range(_LETTERS):
            await self._send()

    async def _send(self) -> None:
        dice, id = self._dice, self._new_id()
        size = _LARGE if dice.random() < 0.03 else dice.randrange(3000)
        octets = f"From: a@sender.test\r\nX-Token: {id}\r\n\r\n{id}".encode() + dice.randbytes(size).hex().encode()
        digest = hashlib.sha256(octets).hexdigest()
        deliveries = tuple(_delivery(id, n, dice.choice(("good", "grey", "bad"))) for n in range(dice.randint(1, 4)))
        mailboxes = [str(one.destination.address) for one in deliveries]
        verdicts = self._first(deliveries)
        aliases = [str(one.recipient) for one in deliveries]
        self._journal.say("keep", id, id, digest, aliases, mailboxes)
        self._took(octets, [m for m, verdict in zip(mailboxes, verdicts, strict=True) if verdict is Verdict.DELIVERED])
        content: Content = MemoryContent(octets)
        if dice.random() < 0.3:  # as a worker does
            content = await self._spool.files.write(id, content)
        message = Outgoing(id, SENDER, SENDER, MailOptions(), content, deliveries, dice.random() < 0.5)
        parts = tuple(Progress(State.QUEUED) for _ in deliveries)
        letter = Letter(message, self._clock.now(), parts, bounceable=message.authenticated)
        try:
            await self._runner.keep(letter, [_outcome(verdict) for verdict in verdicts])
        except NotKept:
            self._journal.say("refused", id)
            return
        self._journal.say("recorded", [(digest, mailbox) for mailbox in mailboxes])
        self._journal.say("acknowledged", id)
        for n, verdict in enumerate(verdicts):
            if verdict is Verdict.RUNNING:
                self._spawn_late(Part(id, n), octets, mailboxes[n])

    def _first(self, deliveries: Sequence[Delivery]) -> list[Verdict]:
        """Say what the first attempt came to: none was made, or the destinations answered, or do so later."""
        if self._dice.random() < 0.4:
            return [Verdict.UNTRIED] * len(deliveries)
        verdicts = [self._verdict(one.destination.address) for one in deliveries]
        verdicts[0] = self._dice.choice((Verdict.RUNNING, Verdict.DEFERRED))
        return verdicts

    def _spawn_late(self, part: Part, octets: bytes, mailbox: str) -> None:
        task = asyncio.create_task(self._answer_late(part, octets, mailbox))
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _answer_late(self, part: Part, octets: bytes, mailbox: str) -> None:
        await asyncio.sleep(self._dice.random() * 0.02)
        verdict = self._dice.choice((Verdict.DELIVERED, Verdict.DEFERRED))
        if verdict is Verdict.DELIVERED:
            self._took(octets, [mailbox])
        self._runner.settled(part, _outcome(verdict))

    # The next hops

    async def carry(self, message: Outgoing) -> Sequence[Outcome]:
        """Be the courier of one transaction, and the hop."""
        await asyncio.sleep(self._dice.random() * 0.004)
        octets = b"".join(message.content.chunks())
        verdicts = [self._verdict(one.destination.address) for one in message.deliveries]
        pairs = zip(message.deliveries, verdicts, strict=True)
        taken = [str(one.destination.address) for one, verdict in pairs if verdict is Verdict.DELIVERED]
        if taken:
            self._took(octets, taken, ours=message.original_sender is None)
            await asyncio.sleep(self._dice.random() * 0.004)
        return [_outcome(verdict) for verdict in verdicts]

    def _verdict(self, mailbox: Address) -> Verdict:
        if mailbox.domain == "bad.test":
            return Verdict.REFUSED
        greylisted = mailbox.domain == "grey.test" and not self._life.calm and self._dice.random() < 0.7
        return Verdict.DEFERRED if greylisted else Verdict.DELIVERED

    def _took(self, octets: bytes, mailboxes: Sequence[str], *, ours: bool = False) -> None:
        if mailboxes:
            digest, told = hashlib.sha256(octets).hexdigest(), told_by(octets if ours else b"")
            self._journal.say("took", digest, list(mailboxes), sorted(told.failed), sorted(told.held), told.more)

    # The operator

    async def _operate(self) -> None:
        for n in range(12):
            await asyncio.sleep(self._dice.random() * 0.03)
            verb = self._dice.choice(("retry", "hold", "release", "bounce", "delete", "resend"))
            ids = [letter.message.id for letter in await self._spool.find(Query()) if letter.message.sender]
            for id in self._dice.sample(ids, min(len(ids), 3)):
                await self._order(verb, id, f"resent-{n}-{id}@good.test".lower() if verb == "resend" else "")

    async def _order(self, verb: str, id: str, to: str) -> None:
        request: Mapping[str, object] = {"verb": verb, "ids": [id], **({"resend_to": to} if to else {})}
        self._journal.say("operator", verb, id, to)
        answer = await self._desk.handle(request)
        assert answer["ok"] or "no message" in str(answer) or answer.get("status") == 1, answer


def _delivery(id: str, number: int, domain: str) -> Delivery:
    alias = Address(f"{number}-{id.lower()}", "forward.test")
    return Delivery(alias, Destination(Address(f"{number}-{id.lower()}", f"{domain}.test")), b"X-Head: %d\r\n" % number)


def _outcome(verdict: Verdict) -> Outcome:
    return Outcome(verdict, _SAID[verdict], "mx.test[192.0.2.1]:25", remote=True)


def _is_open(letter: Letter) -> bool:
    return any(one.state is State.QUEUED or (one.state is State.HELD and one.untold) for one in letter.progress)


def main(folder: Path, life: Life) -> None:
    """Live, in this process; the journal lies beside the spool."""
    asyncio.run(Small(folder, life, Journal(folder / "journal")).run())
