"""What the tests of `forwarder queue` share: letters, a spool in memory, and a desk over it that remembers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache

from forwarder.delivery.queue_desk import Desktop, QueueDesk
from forwarder.delivery.queue_selection import sender_text
from forwarder.model.address import Address, parse_mailbox
from forwarder.model.destination import Destination
from forwarder.model.envelope import MailOptions
from forwarder.model.letter import Change, Kind, Letter, Part, Progress, Query, State, Waiting
from forwarder.model.message import Delivery, MemoryContent, Outgoing
from forwarder.model.reply import Reply
from forwarder.ports import Damaged, SpoolError
from tests.fakes import FakeClock, RecordingLog

HEAD = b"Received: from a by b\r\n"
BODY = b"From: a@sender.example\r\nSubject: hello\r\n\r\nbody\r\n"
RECEIVED = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
DUE = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
QUEUED = Progress(State.QUEUED, DUE, 3, 7200.0, "451 4.7.1 try later", "mx.inbox.example[192.0.2.9]:25")
HELD = Progress(State.HELD, None, 4, 9000.0, "452 4.2.2 mailbox full", "mx.inbox.example[192.0.2.9]:25", untold=True)
DELIVERED = Progress(State.DELIVERED, None, 1, 1.0, "250 2.0.0 OK")


@cache
def _content(octets: bytes) -> MemoryContent:
    """One for the same octets, so that letters can be compared."""
    return MemoryContent(octets)


def letter(
    id: str,
    *parts: tuple[str, str, Progress],
    sender: str | None = "a@sender.example",
    content: bytes = BODY,
    hours: float = 0,
) -> Letter:
    """A letter to (alias, destination, progress) each; without any to one queued recipient."""
    parts = parts or (("me@ours.example", "me@inbox.example", QUEUED),)
    deliveries = tuple(
        Delivery(parse_mailbox(alias), Destination(parse_mailbox(to)), HEAD + f"Delivered-To: {alias}\r\n".encode())
        for alias, to, _ in parts
    )
    original = parse_mailbox(sender) if sender else None
    return Letter(
        Outgoing(id, original, original, MailOptions(), _content(content), deliveries, authenticated=True),
        RECEIVED + timedelta(hours=hours),
        tuple(progress for _, _, progress in parts),
        bounceable=True,
        author="a@sender.example",
        message_id="<1@sender.example>",
    )


class SmallSpool:
    """Keeps letters in a dict. `busy` parts are leased by somebody else; `failing` makes `store` raise."""

    def __init__(self, *letters: Letter) -> None:
        self.letters = {letter.message.id: letter for letter in letters}
        self.busy: set[Part] = set()
        self.leased: set[Part] = set()
        self.damaged: set[str] = set()
        self.given_back: list[Part] = []
        self.failing = ""
        self.stores = 0
        self.read = 0

    async def store(self, letters: Sequence[Letter], changes: Sequence[Change] = ()) -> None:
        if self.failing:
            raise SpoolError(self.failing)
        self.stores += 1
        for new in letters:
            assert new.message.id not in self.letters
            self.letters[new.message.id] = new
        for change in changes:
            one = self.letters[change.part.id]
            assert one.progress[change.part.number].state is State.HELD or change.part in self.leased, "not leased"
            progress = list(one.progress)
            progress[change.part.number] = change.progress
            self.letters[change.part.id] = replace(one, progress=tuple(progress))
            self.leased.discard(change.part)
        for change in changes:
            if change.part.id in self.letters and all(p.state.final for p in self.letters[change.part.id].progress):
                del self.letters[change.part.id]

    async def waiting(self) -> Sequence[Waiting]:
        return []

    async def lease(self, parts: Sequence[Part]) -> Sequence[Part]:
        given = [part for part in parts if self._is_free(part)]
        self.leased |= set(given)
        return given

    def _is_free(self, part: Part) -> bool:
        one = self.letters.get(part.id)
        queued = one is not None and one.progress[part.number].state is State.QUEUED
        return queued and part not in self.busy | self.leased

    async def give_back(self, parts: Sequence[Part]) -> None:
        self.given_back += parts
        self.leased -= set(parts)

    def recent(self, id: str) -> Letter | None:
        return None

    async def fetch(self, id: str) -> Letter | None:
        if id in self.damaged:
            raise Damaged("the content is not what was stored")
        return self.letters.get(id)

    async def find(self, query: Query) -> Sequence[Letter]:
        """Narrow down by ids only: the desk decides about the rest."""
        found = self._fitting(query)
        self.read += len(found)
        return found

    async def ids(self, query: Query) -> Sequence[str]:
        return [one.message.id for one in self._fitting(query) if _fits(one, query)]

    def _fitting(self, query: Query) -> list[Letter]:
        ids = tuple(id.upper() for id in query.ids)
        found = [one for id, one in self.letters.items() if not ids or id.startswith(ids)]
        return sorted(found, key=lambda one: (one.received, one.message.id))

    async def remember(self, entries: Mapping[bytes, bytes]) -> None: ...

    async def memories(self) -> Mapping[bytes, bytes]:
        return {}


def _fits(one: Letter, query: Query) -> bool:
    pairs = zip(one.message.deliveries, one.progress, strict=True)
    return (not query.sender or sender_text(one).casefold() == query.sender.casefold()) and any(
        (not query.states or progress.state in query.states)
        and (not query.to or query.to.casefold() in {str(place).casefold() for place in _places(delivery)})
        and (not query.domain or query.domain in {place.domain for place in _places(delivery)})
        for delivery, progress in pairs
    )


def _places(delivery: Delivery) -> tuple[Address, Address]:
    return delivery.recipient, delivery.destination.address


class Bouncing:
    """Bounces what came from `tellable`; the rest stays held."""

    def __init__(self, tellable: str = "a@sender.example") -> None:
        self.tellable = tellable
        self.asked: list[tuple[str, tuple[int, ...], Reply]] = []

    def bounce(self, letter: Letter, numbers: Sequence[int], reply: Reply) -> tuple[Sequence[Letter], Sequence[Change]]:
        self.asked.append((letter.message.id, tuple(numbers), reply))
        tellable = str(letter.message.original_sender) == self.tellable
        state = State.BOUNCED if tellable else State.HELD
        parts = [Part(letter.message.id, number) for number in numbers]
        changes = [Change(part, replace(letter.progress[part.number], state=state, due=None)) for part in parts]
        return ([dsn(letter)] if tellable else []), changes


def dsn(failed: Letter) -> Letter:
    to = failed.message.original_sender or Address("postmaster", "ours.example")
    delivery = Delivery(to, Destination(to), b"")
    message = Outgoing(
        f"DSN{failed.message.id[3:]}", None, None, MailOptions(), MemoryContent(b"Subject: failed\r\n\r\n"), (delivery,)
    )
    return Letter(message, RECEIVED, (Progress(State.QUEUED, RECEIVED),), Kind.BOUNCE)


@dataclass
class Queue:
    """The running queue, which writes down what it is told."""

    waitings: list[Waiting] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)

    def changed(self, waitings: Sequence[Waiting]) -> None:
        self.waitings += waitings

    def gone(self, parts: Sequence[Part]) -> None:
        self.parts += parts


class Office:
    """A desk over some letters; `ask` is one request."""

    def __init__(self, *letters: Letter, refused: str = "") -> None:
        self.spool = SmallSpool(*letters)
        self.bouncer = Bouncing()
        self.queue = Queue()
        self.clock = FakeClock()
        self.log = RecordingLog()
        self.made = 0
        desktop = Desktop(self.clock, self._new_id, self.log, lambda to: refused and f"{refused} {to}")
        self.desk = QueueDesk(self.spool, self.bouncer, self.queue, desktop)

    def _new_id(self) -> str:
        self.made += 1
        return f"NEW{self.made:013}"

    async def ask(self, verb: str, *ids: str, **request: object) -> Mapping[str, object]:
        return await self.desk.handle({"verb": verb, **({"ids": list(ids)} if ids else {}), **request})

    def progress(self, id: str, number: int = 0) -> Progress:
        return self.spool.letters[id].progress[number]
