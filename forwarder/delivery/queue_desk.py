"""What `forwarder queue` does to the letters in the spool: the answers to the operator's requests.

`QueueDesk.handle` answers one request, a JSON object with `verb`; the same desk serves the control socket of a running
gateway and the command line when none runs. `select` gives the ids of what is meant; a caller that means many letters
then asks and acts in portions, by ids, so that no answer grows with the queue. An answer has `ok`; where it is false,
`problems` has sentences for the operator and `status` the exit status (1 a problem, 2 wrong use).

What acts takes leases first, reads again, stores, and then tells the running queue. A part that somebody works on
right now is left alone and named in `skipped`, and so is whatever the verb does not apply to. HELD parts are worked on
by nobody, so they need no lease; this desk does one thing at a time.

Left out on purpose: asking the operator whether it is meant (the command line does), and who may ask (`ops.control`).
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from forwarder.delivery.lanes import waiting_of
from forwarder.delivery.queue_selection import (
    PROBLEM,
    WRONG_USE,
    Refused,
    Selection,
    address,
    count,
    flag,
    identified,
    selection,
    sender_text,
    text,
)
from forwarder.delivery.queue_view import MAX_HEADER, fields, header, octets_from
from forwarder.model.address import Address
from forwarder.model.destination import Destination
from forwarder.model.letter import Change, Letter, Part, Progress, Query, State, Waiting
from forwarder.model.reply import Reply
from forwarder.ports import Clock, Damaged, EventLog, Spool, SpoolError

_BUSY = "being delivered right now: try again in a moment"
_GONE = "gone meanwhile: it was delivered, bounced or deleted"
_KEPT = "its sender may not be told: it stays held; resend it to another address, or delete it"
_HELD = "held by the administrator"
_BEFORE = "; before that: "
_RETURNED = Reply(554, "5.0.0", "The administrator gave up the delivery of this message")

# What a verb works on, and why it leaves a letter without such a part as it is.
_APPLIES: Mapping[str, tuple[frozenset[State], str]] = {
    "retry": (frozenset({State.QUEUED}), "held: nothing is tried until you release it"),
    "hold": (frozenset({State.QUEUED}), "held already"),
    "release": (frozenset({State.HELD}), "not held: retry makes it due at once"),
    "bounce": (frozenset({State.QUEUED, State.HELD}), _GONE),
    "delete": (frozenset({State.QUEUED, State.HELD}), _GONE),
    "resend": (frozenset({State.QUEUED, State.HELD}), _GONE),
}


class Bouncer(Protocol):
    """Tells senders that their mail was not delivered."""

    def bounce(self, letter: Letter, numbers: Sequence[int], reply: Reply) -> tuple[Sequence[Letter], Sequence[Change]]:
        """Give the DSNs, and what becomes of the parts: HELD where the sender may not be told."""
        ...


class Told(Protocol):
    """The running queue, which learns what the operator changed."""

    def changed(self, waitings: Sequence[Waiting]) -> None:
        """Learn of parts that are QUEUED now, new ones and those with another due time."""
        ...

    def gone(self, parts: Sequence[Part]) -> None:
        """Learn of parts that are not QUEUED any more."""
        ...


@dataclass(frozen=True, slots=True)
class Desktop:
    """What the desk takes from the world. `refuses` says why nothing may be resent to an address; "" if it may.

    `deciding` is held while parts are changed; whoever else changes HELD parts shares it.
    """

    clock: Clock
    new_id: Callable[[], str]
    log: EventLog
    refuses: Callable[[Address], str] = lambda _: ""
    deciding: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Parts of one letter that an action is to change, all of them leased or HELD."""

    letter: Letter
    numbers: tuple[int, ...]

    @property
    def parts(self) -> list[Part]:
        return [Part(self.letter.message.id, number) for number in self.numbers]


class _Work:
    """What one action has come to: leases that are still ours, what changed, and what was left."""

    def __init__(self, unknown: Sequence[str]) -> None:
        self.leased: set[Part] = set()
        self.chosen: list[_Chosen] = []
        self.changed = 0
        self.new: list[str] = []
        self.skipped: list[dict[str, object]] = []
        self.unknown = unknown

    def skip(self, letter: Letter, number: int | None, reason: str) -> None:
        to = str(letter.message.deliveries[number].recipient) if number is not None else None
        self.skipped.append({"id": letter.message.id, "address": to, "reason": reason})

    def answer(self) -> dict[str, object]:
        return {
            "changed": self.changed,
            "skipped": self.skipped,
            "unknown": list(self.unknown),
            "new": self.new,
        }


_Act = Callable[[_Work, _Chosen], Awaitable[None]]


class QueueDesk:
    """Answers requests about the letters of one spool. `told` is a no-op where no queue runs."""

    def __init__(self, spool: Spool, bouncer: Bouncer, told: Told, desktop: Desktop) -> None:
        self._spool = spool
        self._bouncer = bouncer
        self._told = told
        self._clock = desktop.clock
        self._new_id = desktop.new_id
        self._log = desktop.log
        self._refuses = desktop.refuses
        self._acting = desktop.deciding

    async def handle(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """Answer one request; never raises for what the request says or the spool cannot do."""
        try:
            return {"ok": True, **await self._answer(request)}
        except Refused as refused:
            return _refusal(refused.status, *refused.problems)
        except SpoolError as error:
            return _refusal(PROBLEM, f"the spool could not do it: {error}")

    async def _answer(self, request: Mapping[str, object]) -> Mapping[str, object]:
        verb = text(request, "verb")
        match verb:
            case "select":
                return await self._select(request)
            case "list":
                found, unknown = await self._found(selection(request))
                return {"messages": [fields(letter, numbers) for letter, numbers in found], "unknown": unknown}
            case "show":
                return await self._show(request)
            case "content":
                return await self._content(request)
            case _ if verb in _APPLIES:
                return await self._act(verb, request)
        raise Refused(WRONG_USE, f'verb: "{verb}": the gateway does not know it')

    async def _select(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """Give the ids of what is meant, oldest first; with `for`, only of what that verb can change.

        A recipient who has the message already makes no filter fit: nothing can be done about it, or be listed.
        """
        verb = text(request, "for")
        if verb and verb not in _APPLIES:
            raise Refused(WRONG_USE, f'for: "{verb}": no such verb')
        wanted = selection(request)
        if wanted.ids:  # they are kept whatever their states, so that the verb can say why it leaves one as it is
            found, unknown = await self._found(wanted)
            return {"ids": [letter.message.id for letter, _ in found], "unknown": unknown}
        states = wanted.states or _OPEN
        if verb:
            states &= _APPLIES[verb][0]
        if not states:
            return {"ids": [], "unknown": []}
        return {"ids": list(await self._spool.ids(replace(wanted.query, states=states))), "unknown": []}

    async def _found(self, wanted: Selection) -> tuple[list[tuple[Letter, tuple[int, ...]]], list[str]]:
        """Give the letters that are meant with the numbers of their parts, and the ids that name nothing."""
        unknown: Sequence[str] = ()
        if wanted.ids:
            letters, unknown = await self._named(wanted)
        else:
            letters = await self._spool.find(wanted.query)
        pairs = ((letter, wanted.numbers(letter)) for letter in letters)
        return [(letter, numbers) for letter, numbers in pairs if numbers], list(unknown)

    async def _named(self, wanted: Selection) -> tuple[Sequence[Letter], Sequence[str]]:
        """Give the letters that ids name, of which no others are read, and the ids that name nothing."""
        ids, unknown = identified(wanted.ids, await self._spool.ids(wanted.query))
        found = await self._spool.find(Query(ids=tuple(ids))) if ids else []
        letters = {letter.message.id: letter for letter in found}  # a beginning may be a whole id too
        gone = [id for id in ids if id not in letters]
        return [letters[id] for id in ids if id in letters], [*unknown, *gone]

    async def _one(self, request: Mapping[str, object]) -> Letter:
        wanted = selection(request)
        if len(wanted.ids) != 1:
            raise Refused(WRONG_USE, "ids: expected one")
        found, _ = await self._found(wanted)
        if not found:
            raise Refused(PROBLEM, f"{wanted.ids[0]}: no such message in the queue")
        return found[0][0]

    async def _show(self, request: Mapping[str, object]) -> Mapping[str, object]:
        letter = await self._one(request)
        message = fields(letter, range(len(letter.progress)))
        if flag(request, "headers"):
            number = _first_open(letter)
            content = letter.message.content
            head = await _read(lambda: letter.message.deliveries[number].head + header(content.head(MAX_HEADER)))
            message["headers"] = head.decode("utf-8", "backslashreplace")
        return {"message": message}

    async def _content(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """Give a slice of what a recipient would get, in base64, and where the next begins; null after the last."""
        letter = await self._one(request)
        number = count(request, "number", _first_open(letter))
        offset = count(request, "offset")
        if number >= len(letter.progress):
            raise Refused(WRONG_USE, "number: the message has no such recipient")
        if offset == 0:
            letter = await self._whole(letter.message.id)
        octets = await _read(lambda: octets_from(letter.message, number, offset))
        end = offset + len(octets)
        whole = len(letter.message.deliveries[number].head) + letter.message.content.size
        octets_text = base64.b64encode(octets).decode()
        return {"octets": octets_text, "number": number, "next": end if octets and end < whole else None}

    async def _whole(self, id: str) -> Letter:
        try:
            letter = await self._spool.fetch(id)
        except Damaged as error:
            raise Refused(PROBLEM, f"{id}: damaged: {error}") from None
        if letter is None:
            raise Refused(PROBLEM, f"{id}: {_GONE}")
        return letter

    async def _act(self, verb: str, request: Mapping[str, object]) -> Mapping[str, object]:
        wanted = selection(request)
        if wanted.empty:
            raise Refused(WRONG_USE, "nothing says which messages are meant: give ids, a filter or --all")
        to = self._destination(request) if verb == "resend" else None
        async with self._acting, self._leased(verb, wanted) as work:
            if verb == "bounce":
                await self._each(work, self._bounce)
            elif to is not None:
                await self._each(work, lambda work, chosen: self._resend(work, chosen, to))
            else:
                await self._change(work, verb)
            return work.answer()

    def _destination(self, request: Mapping[str, object]) -> Address:
        given = text(request, "resend_to")
        if not given:
            raise Refused(WRONG_USE, "resend_to: expected the address to send to")
        to = address("to", given)
        if reason := self._refuses(to):
            raise Refused(WRONG_USE, f"{to}: {reason}")
        return to

    @asynccontextmanager
    async def _leased(self, verb: str, wanted: Selection) -> AsyncIterator[_Work]:
        """Lease what is meant and read it again: from now on it stays as it is until we change it.

        Leases without a change are given back, except when we are cancelled: then a store may still be under way, and
        whoever leased the part would work on what is about to change. That happens only when the gateway stops.
        """
        found, unknown = await self._found(wanted)
        work = _Work(unknown)
        queued = [
            Part(letter.message.id, number)
            for letter, numbers in found
            for number in numbers
            if State.QUEUED in _APPLIES[verb][0] and letter.progress[number].state is State.QUEUED
        ]
        work.leased = set(await self._spool.lease(queued)) if queued else set()
        try:
            await self._choose(work, verb, found)
            yield work
        except Exception:
            await self._spool.give_back(list(work.leased))
            raise
        if work.leased:
            await self._spool.give_back(list(work.leased))

    async def _choose(self, work: _Work, verb: str, found: Sequence[tuple[Letter, tuple[int, ...]]]) -> None:
        ids = tuple(letter.message.id for letter, _ in found)
        again = {letter.message.id: letter for letter in await self._spool.find(Query(ids=ids))} if ids else {}
        states, otherwise = _APPLIES[verb]
        for before, numbers in found:
            letter = again.get(before.message.id)
            open_parts = [n for n in numbers if letter and letter.progress[n].state in states]
            if letter is None or not open_parts:
                work.skip(before, None, otherwise if letter and _in(letter, numbers, _OPEN) else _GONE)
                continue
            mine = tuple(n for n in open_parts if self._is_ours(work, letter, n))
            for number in open_parts:
                if number not in mine:
                    work.skip(letter, number, _BUSY)
            if mine:
                work.chosen.append(_Chosen(letter, mine))

    @staticmethod
    def _is_ours(work: _Work, letter: Letter, number: int) -> bool:
        return letter.progress[number].state is State.HELD or Part(letter.message.id, number) in work.leased

    async def _change(self, work: _Work, verb: str) -> None:
        """Retry, hold, release or delete all that was chosen, in one step."""
        now = self._clock.now()
        changes = [
            Change(part, _progress(verb, chosen.letter.progress[part.number], now))
            for chosen in work.chosen
            for part in chosen.parts
        ]
        await self._store(work, [], changes)
        letters = {chosen.letter.message.id: chosen.letter for chosen in work.chosen}
        waitings = [
            replace(waiting_of(letters[change.part.id], change.part.number), progress=change.progress)
            for change in changes
            if change.progress.state is State.QUEUED
        ]
        self._tell(waitings, [change.part for change in changes if change.progress.state is not State.QUEUED])
        work.changed += len(changes)
        for change in changes:
            self._note(letters[change.part.id], change.part.number, _EVENTS[verb])

    async def _each(self, work: _Work, act: _Act) -> None:
        """Act on one letter after the other; what fails is told, and the rest goes on."""
        for chosen in work.chosen:
            try:
                await act(work, chosen)
            except Refused as refused:
                work.skip(chosen.letter, None, refused.problems[0].removeprefix(f"{chosen.letter.message.id}: "))
            except SpoolError as error:
                work.skip(chosen.letter, None, f"the spool could not do it: {error}")

    async def _bounce(self, work: _Work, chosen: _Chosen) -> None:
        letter = await self._whole(chosen.letter.message.id)
        letters, changes = self._bouncer.bounce(letter, chosen.numbers, _RETURNED)
        await self._store(work, letters, changes)
        self._tell(_waitings(letters), [change.part for change in changes])
        work.new += [made.message.id for made in letters]
        for change in changes:
            if change.progress.state is State.HELD:
                work.skip(letter, change.part.number, _KEPT)
            else:
                work.changed += 1
                self._note(letter, change.part.number, "bounced")

    async def _resend(self, work: _Work, chosen: _Chosen, to: Address) -> None:
        letter = await self._whole(chosen.letter.message.id)
        now = self._clock.now()
        made = _copy(letter, chosen.numbers[0], to, self._new_id(), now)
        changes = [Change(part, _progress("delete", letter.progress[part.number], now)) for part in chosen.parts]
        await self._store(work, [made], changes)
        self._tell(_waitings([made]), chosen.parts)
        work.changed += len(changes)
        work.new.append(made.message.id)
        for number in chosen.numbers:
            self._note(letter, number, "deleted", resent=made.message.id)
        self._note(made, 0, "queued", resent_from=letter.message.id)

    async def _store(self, work: _Work, letters: Sequence[Letter], changes: Sequence[Change]) -> None:
        if letters or changes:
            await self._spool.store(letters, changes)
        work.leased -= {change.part for change in changes}  # those leases ended: the parts may be another's by now

    def _tell(self, waitings: Sequence[Waiting], parts: Sequence[Part]) -> None:
        if waitings:
            self._told.changed(waitings)
        if parts:
            self._told.gone(parts)

    def _note(self, letter: Letter, number: int, event: str, **more: str) -> None:
        delivery = letter.message.deliveries[number]
        known = {"id": letter.message.id, "from_": sender_text(letter), "to": str(delivery.recipient), **more}
        self._log.event(event, **known, destination=str(delivery.destination.address), by="the administrator")


_OPEN = frozenset({State.QUEUED, State.HELD})
_EVENTS = {"retry": "queued", "hold": "held", "release": "queued", "delete": "deleted"}


def _refusal(status: int, *problems: str) -> dict[str, object]:
    return {"ok": False, "status": status, "problems": list(problems)}


def _progress(verb: str, before: Progress, now: datetime) -> Progress:
    """Say where a part stands after a verb.

    What is released begins its time in the queue anew: it may have been held longer than mail may wait, and would
    otherwise expire at the first failure. Its attempts are kept, and with them the pace of further ones.
    """
    reply = before.reply.removeprefix(_HELD).removeprefix(_BEFORE)
    match verb:
        case "retry":
            return replace(before, due=now)
        case "hold":
            held = f"{_HELD}{_BEFORE}{reply}" if reply else _HELD
            return replace(before, state=State.HELD, due=None, reply=held, untold=False)
        case "release":
            return replace(before, state=State.QUEUED, due=now, waited=0.0, reply=reply, untold=False)
    return replace(before, state=State.DELETED, due=None, untold=False)


def _copy(letter: Letter, number: int, to: Address, id: str, now: datetime) -> Letter:
    """Make a letter of the same octets to another destination, due now."""
    delivery = replace(letter.message.deliveries[number], destination=Destination(to))
    message = replace(letter.message, id=id, deliveries=(delivery,))
    return replace(letter, message=message, progress=(Progress(State.QUEUED, due=now),))


def _waitings(letters: Sequence[Letter]) -> list[Waiting]:
    return [
        waiting_of(letter, number)
        for letter in letters
        for number, progress in enumerate(letter.progress)
        if progress.state is State.QUEUED
    ]


def _in(letter: Letter, numbers: Sequence[int], states: frozenset[State]) -> bool:
    return any(letter.progress[number].state in states for number in numbers)


def _first_open(letter: Letter) -> int:
    return next((number for number, progress in enumerate(letter.progress) if not progress.state.final), 0)


async def _read(read: Callable[[], bytes]) -> bytes:
    """Read content aside: it may be a large file, and others are waiting for the loop."""
    try:
        return await asyncio.to_thread(read)
    except OSError as error:
        raise Refused(PROBLEM, f"the message cannot be read: {error.strerror}") from None
