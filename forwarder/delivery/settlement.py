"""What becomes of each part of a letter after an attempt: delivered, queued again, returned to its sender, or held.

Every part that was tried gets exactly one state, and what is owed for it comes along: DSNs to the sender as letters of
their own, a delay until the next attempt, events for the log. The caller records all of it in one step.

Who is told of a failure: the sender by a DSN, if the letter is one that may be answered and the recipient's NOTIFY
lets it (RFC 3461 4.1), once for each message and address of ours; in every other case the owner, and the part is held.
A full or dead mailbox is the owner's affair, but for what is refused at the first attempt: that sender is still near.
What DMARC refuses behind us may get another chance: `rework` makes a message with a From of ours of it, which goes on
as a letter of its own, and nobody is told of the part that it replaces. Its time in the queue counts on. Both are in
what is recorded in one step, so that a crash leaves the one or the other. Where an address of ours has two destinations
and the sender was told of the one already, a failure of the other one's new letter is the owner's to know; and while a
new letter speaks for an address, so is a failure of what it left behind: two letters never tell the sender the same.

A DSN of ours that cannot be delivered is never answered (RFC 5321 6.1); a notice that cannot be delivered is not even
told of by a notice. A fault of ours is never the sender's: it is queued, and held when it expires.

Touches nothing: clock, randomness and ids are parameters. Never raises, except what `where`, `prepare` and `rework`
raise.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from forwarder.bounce.compose import compose
from forwarder.bounce.report import Action, Report, Told
from forwarder.bounce.suppress import wants
from forwarder.delivery.intervals import Intervals
from forwarder.model.address import Address
from forwarder.model.destination import Destination
from forwarder.model.envelope import MailOptions
from forwarder.model.letter import Change, Kind, Letter, Part, Progress, State
from forwarder.model.message import Delivery, MemoryContent, Outgoing
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.model.ruling import Fate
from forwarder.ports import Clock, Randomness
from forwarder.smtp.answers import quote

_EXPIRED = "4.4.7"  # RFC 3463 3.5: delivery time expired
_UNWELCOME = 3  # attempts of content that is not wanted, before it counts as refused
_EVENTS = {State.REPLACED: "rewritten"}  # where the event is not called as the state is
_NEVER_TRIED = (Verdict.UNTRIED, Verdict.RUNNING)  # RUNNING: counted when its end is known


@dataclass(frozen=True, slots=True)
class SettlementSettings:
    """How failures are told.

    `where` gives the destinations of an address that a letter of ours goes to, which may be one of ours; none if it
    leads nowhere. `delay_after` is in seconds, 0: no delay notices. `prepare` finishes a message of ours (signs it).
    `rework` makes of parts that go to one address of ours, and that DMARC refused, a message with a From of ours, one
    delivery for each; None where that cannot or must not be.
    """

    hostname: str
    where: Callable[[Address], tuple[Destination, ...]]
    intervals: Intervals = field(default_factory=Intervals)
    delay_after: float = 0.0
    prepare: Callable[[Outgoing], Outgoing] = lambda message: message
    rework: Callable[[Letter, Sequence[int]], Outgoing | None] = lambda letter, numbers: None


@dataclass(frozen=True, slots=True)
class Event:
    """One event for the log."""

    name: str
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Settled:
    """What is to be recorded in one step: `changes` of parts of `letter`, which has them already, and new `letters`.

    `again` says for each part that is QUEUED in how many seconds it is due.
    """

    letter: Letter
    changes: tuple[Change, ...]
    letters: tuple[Letter, ...]
    events: tuple[Event, ...]
    again: Mapping[Part, float]


@dataclass(frozen=True, slots=True)
class _Step:
    """What became of one part. `before` is its progress with this attempt counted and the outcome's words in it.

    `again` names the letter that carries it on.
    """

    number: int
    outcome: Outcome
    before: Progress
    after: Progress
    seconds: float = 0.0  # until the next attempt
    expired: bool = False
    again: str = ""


class Settlement:
    """Decides by the settings given; `settings` may be replaced at any time."""

    def __init__(
        self, settings: SettlementSettings, clock: Clock, randomness: Randomness, new_id: Callable[[], str]
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._randomness = randomness
        self.new_id = new_id

    def take(self, letter: Letter, outcomes: Sequence[Outcome]) -> Settled:
        """Settle a letter that comes into custody with what its first attempt came to, one outcome for each part.

        What was not tried is due at once. What is RUNNING counts as queued, due after the first interval: that is
        when it will be tried if its end never becomes known.
        """
        fresh = replace(letter, progress=tuple(Progress(State.QUEUED) for _ in outcomes))
        return self._settle(fresh, dict(enumerate(outcomes)), {}, {}, first=True)

    def settle(self, letter: Letter, outcomes: Mapping[int, Outcome], waited: Mapping[int, float]) -> Settled:
        """Settle what was tried now. `waited` says for how many seconds each part has been in the queue since noted.

        A part that is not QUEUED any more stays as it is, unless it was delivered all the same.
        """
        open_ones = {n: outcome for n, outcome in outcomes.items() if _is_open(letter.progress[n], outcome)}
        return self._settle(letter, open_ones, waited, self._carried_on(letter, open_ones, waited), first=False)

    def _carried_on(
        self, letter: Letter, outcomes: Mapping[int, Outcome], waited: Mapping[int, float]
    ) -> Mapping[int, Letter]:
        """Give the letters that go on with parts which DMARC has stopped, by part: one for each address of ours."""
        stopped: dict[Address, list[int]] = {}
        for number, outcome in sorted(outcomes.items()):
            is_for_dmarc = outcome.verdict is Verdict.REFUSED and outcome.ruling and outcome.ruling.by_dmarc
            if letter.kind is Kind.MAIL and is_for_dmarc:
                stopped.setdefault(letter.message.deliveries[number].recipient, []).append(number)
        carried: dict[int, Letter] = {}
        for numbers in stopped.values():
            if message := self.settings.rework(letter, numbers):
                progress = tuple(self._anew(letter, n, waited.get(n, 0.0)) for n in numbers)
                untold = letter.bounceable and not _was(letter, numbers[0], State.BOUNCED)
                carried |= dict.fromkeys(
                    numbers, replace(letter, message=message, progress=progress, bounceable=untold)
                )
        return carried

    def _anew(self, letter: Letter, number: int, waited: float) -> Progress:
        """Begin again, but for what counts from when the message came, and what was told of the address."""
        noticed = max(letter.progress[n].noticed for n in _siblings(letter, number))
        waited += letter.progress[number].waited
        return Progress(State.QUEUED, self._clock.now(), waited=waited, noticed=noticed)

    def bounce(self, letter: Letter, numbers: Sequence[int], reply: Reply) -> tuple[Sequence[Letter], Sequence[Change]]:
        """Give parts up for the reason that the operator gave: DSNs, and changes.

        Where the sender may not be told the part is HELD; the owner, who has decided this, is not told of it.
        """
        outcome = Outcome(Verdict.REFUSED, reply)
        steps = []
        for number in numbers:
            before = replace(letter.progress[number], reply=quote(reply), relay="", due=None)
            after = replace(self._given_up(letter, number, before, outcome), untold=False)
            steps.append(_Step(number, outcome, before, after))
        progress = list(letter.progress)
        for step in steps:
            progress[step.number] = step.after
        told, dsns = self._tell(letter, replace(letter, progress=tuple(progress)), steps)
        return dsns, [Change(Part(letter.message.id, n), told.progress[n]) for n in numbers]

    def first_interval(self) -> float:
        """Give seconds to wait after an attempt of which nothing is known."""
        return self.settings.intervals.drawn(1, self._randomness.random())

    def expiring(self, progress: Progress, waited: float) -> bool:
        """Say whether another failure would be the last one."""
        return self.settings.intervals.expired(
            replace(progress, attempts=progress.attempts + 1, waited=progress.waited + waited)
        )

    def outgoing(self, id: str, to: Sequence[Address], octets: bytes, kind: Kind) -> Letter | None:
        """Make a letter of ours with the null sender, due at once; None if the addresses lead nowhere."""
        now = self._clock.now()
        places = {place: address for address in to for place in self.settings.where(address)}
        deliveries = tuple(Delivery(address, place, b"") for place, address in places.items())
        if not deliveries:
            return None
        utf8 = not all(place.address.is_ascii for place in places)
        message = Outgoing(id, None, None, MailOptions(smtputf8=utf8), MemoryContent(octets), deliveries)
        queued = tuple(Progress(State.QUEUED, now) for _ in deliveries)
        return Letter(self.settings.prepare(message), now, queued, kind, message_id=f"<{id}@{self.settings.hostname}>")

    def _settle(
        self,
        letter: Letter,
        outcomes: Mapping[int, Outcome],
        waited: Mapping[int, float],
        carried: Mapping[int, Letter],
        *,
        first: bool,
    ) -> Settled:
        letter = _with_replaced(letter, carried) if carried else letter
        chance = self._randomness.random()  # one for all: what failed together may go together again
        steps = [
            self._step(letter, number, outcome, waited.get(number, 0.0), chance=chance, first=first)
            for number, outcome in sorted(outcomes.items())
        ]
        steps = [_replaced(s, carried[s.number].message.id) if s.number in carried else s for s in steps]
        made = {one.message.id: one for one in carried.values()}
        progress = list(letter.progress)
        for step in steps:
            progress[step.number] = step.after
        after, dsns = self._tell(letter, replace(letter, progress=tuple(progress)), steps)
        return Settled(
            after,
            tuple(Change(Part(letter.message.id, s.number), after.progress[s.number]) for s in steps),
            (*made.values(), *dsns),
            tuple(event for s in steps for event in _events(after, s, first=first)),
            {Part(letter.message.id, s.number): s.seconds for s in steps if s.after.state is State.QUEUED},
        )

    # One part

    def _step(
        self, letter: Letter, number: int, outcome: Outcome, waited: float, *, chance: float, first: bool
    ) -> _Step:
        old = letter.progress[number]
        tried = outcome.verdict not in (_NEVER_TRIED if first else (Verdict.UNTRIED,))
        before = replace(
            old,
            attempts=old.attempts + tried,
            waited=old.waited + waited,
            reply=quote(outcome.reply),
            relay=outcome.relay,
            due=None,
        )
        if outcome.verdict is Verdict.DELIVERED:
            return _Step(number, outcome, before, replace(before, state=State.DELIVERED, untold=False))
        if _is_final(outcome, before.attempts):
            told = replace(outcome, ruling=None) if first and _fate(outcome) is Fate.HOLD else outcome
            return _Step(number, outcome, before, self._given_up(letter, number, before, told))
        if self.settings.intervals.expired(before):
            return _Step(number, outcome, before, self._given_up(letter, number, before, outcome), expired=True)
        seconds = self._seconds(before.attempts, outcome, chance, first=first)
        due = self._clock.now() + timedelta(seconds=seconds)
        return _Step(number, outcome, before, replace(before, state=State.QUEUED, due=due), seconds)

    def _seconds(self, attempts: int, outcome: Outcome, chance: float, *, first: bool) -> float:
        intervals = self.settings.intervals
        at_once = first and outcome.verdict is Verdict.UNTRIED
        return intervals.stretched(0.0 if at_once else intervals.drawn(attempts, chance), outcome.wait)

    def _given_up(self, letter: Letter, number: int, before: Progress, outcome: Outcome) -> Progress:
        is_owners = _fate(outcome) in (Fate.OURS, Fate.HOLD) or _was(letter, number, State.REPLACED)
        if is_owners or not self._may_tell(letter, number, Action.FAILED):
            return replace(before, state=State.HELD, untold=letter.kind is not Kind.NOTICE)
        return replace(before, state=State.BOUNCED)

    # Telling the sender

    def _may_tell(self, letter: Letter, number: int, action: Action) -> bool:
        sender = letter.message.original_sender
        return (
            letter.kind is Kind.MAIL  # RFC 5321 6.1, RFC 3464 2: no DSN about a DSN
            and letter.bounceable
            and sender is not None
            and wants(letter.message.deliveries[number].options, action)
            and bool(self.settings.where(sender))
        )

    def _tell(self, old: Letter, new: Letter, steps: Sequence[_Step]) -> tuple[Letter, tuple[Letter, ...]]:
        """Give the DSNs that are owed, and the letter with what they change in it."""
        failed = [s for s in steps if s.after.state is State.BOUNCED and not _was(old, s.number, State.BOUNCED)]
        relayed = [s for s in steps if self._is_relayed(new, s)]
        delayed = [s for s in steps if self._is_late(new, s)]
        progress = list(new.progress)
        for step in delayed:
            progress[step.number] = replace(step.after, noticed=step.after.noticed + 1)
        owed = ((Action.FAILED, failed), (Action.RELAYED, relayed), (Action.DELAYED, delayed))
        dsns = [self._dsn(new, action, some) for action, some in owed if some]
        return replace(new, progress=tuple(progress)), tuple(dsn for dsn in dsns if dsn)

    def _is_relayed(self, letter: Letter, step: _Step) -> bool:
        """Say whether the sender learns of this success (RFC 3461 5.2.2), which completes its address of ours."""
        return (
            step.after.state is State.DELIVERED
            and not step.outcome.notifies
            and self._may_tell(letter, step.number, Action.RELAYED)
            and all(letter.progress[n].state is State.DELIVERED for n in _siblings(letter, step.number))
        )

    def _is_late(self, letter: Letter, step: _Step) -> bool:
        return (
            0 < self.settings.delay_after <= step.after.waited
            and step.after.state is State.QUEUED
            and not any(letter.progress[n].noticed for n in _siblings(letter, step.number))
            and not _was(letter, step.number, State.BOUNCED)
            and not _was(letter, step.number, State.REPLACED)
            and self._may_tell(letter, step.number, Action.DELAYED)
        )

    def _dsn(self, letter: Letter, action: Action, steps: Sequence[_Step]) -> Letter | None:
        message = letter.message
        if message.original_sender is None:
            return None
        now = self._clock.now()
        report = Report(
            action,
            self.settings.hostname,
            self.new_id(),
            message.original_sender,
            now,
            letter.received,
            tuple(_told(message.deliveries[step.number], step, now) for step in steps),
            message.options.envid,
            message.options.ret,
            self._given_up_at(now, steps) if action is Action.DELAYED else None,
            message.id,
        )
        octets = compose(report, message.content)
        return self.outgoing(report.id, (message.original_sender,), octets, Kind.BOUNCE)

    def _given_up_at(self, now: datetime, steps: Sequence[_Step]) -> datetime:
        left = self.settings.intervals.expire - max(step.after.waited for step in steps)
        return now + timedelta(seconds=max(0.0, left))


def _with_replaced(letter: Letter, numbers: Iterable[int]) -> Letter:
    """Give a letter as it is when these parts are carried on elsewhere."""
    progress = list(letter.progress)
    for number in numbers:
        progress[number] = replace(progress[number], state=State.REPLACED)
    return replace(letter, progress=tuple(progress))


def _replaced(step: _Step, id: str) -> _Step:
    """Give the step of a part that was given up, and that the letter `id` carries on."""
    return replace(step, after=replace(step.before, state=State.REPLACED, untold=False), again=id)


def bare(letter: Letter, outcomes: Mapping[int, Outcome]) -> Settled:
    """Settle with nothing that could fail: what was not delivered is held."""
    progress = list(letter.progress)
    for number, outcome in outcomes.items():
        delivered = outcome.verdict is Verdict.DELIVERED
        state = State.DELIVERED if delivered else State.HELD
        reply = quote(outcome.reply)
        progress[number] = replace(progress[number], state=state, due=None, untold=not delivered, reply=reply)
    changes = tuple(Change(Part(letter.message.id, number), progress[number]) for number in outcomes)
    return Settled(replace(letter, progress=tuple(progress)), changes, (), (), {})


def _is_open(progress: Progress, outcome: Outcome) -> bool:
    if progress.state is State.HELD:
        return outcome.verdict is Verdict.DELIVERED
    return progress.state is State.QUEUED


def _fate(outcome: Outcome) -> Fate:
    if outcome.ruling:
        return outcome.ruling.fate
    return Fate.RETURN if outcome.verdict is Verdict.REFUSED else Fate.RETRY


def _is_final(outcome: Outcome, attempts: int) -> bool:
    """Say whether trying again would not help."""
    fate = _fate(outcome)
    if outcome.verdict not in (Verdict.REFUSED, Verdict.DEFERRED):
        return False
    if fate is Fate.NEVER_QUEUE:  # but it is in custody, and its sender has gone
        return attempts >= _UNWELCOME
    return outcome.verdict is Verdict.REFUSED and fate in (Fate.RETURN, Fate.HOLD)


def _siblings(letter: Letter, number: int) -> list[int]:
    """Give the parts that the sender knows as one recipient: those of the same address of ours."""
    alias = letter.message.deliveries[number].recipient.key
    return [n for n, delivery in enumerate(letter.message.deliveries) if delivery.recipient.key == alias]


def _was(letter: Letter, number: int, state: State) -> bool:
    return any(letter.progress[n].state is state for n in _siblings(letter, number))


def _told(delivery: Delivery, step: _Step, now: datetime) -> Told:
    status = _EXPIRED if step.expired else ""
    when = now if step.before.attempts else None
    return Told(delivery.recipient, step.before.reply, delivery.options, status, step.before.relay, when)


def _events(letter: Letter, step: _Step, *, first: bool) -> list[Event]:
    """Give the log's words. What the first attempt delivered has been told by the courier."""
    state = step.after.state
    if state is State.DELIVERED and first:
        return []
    delivery = letter.message.deliveries[step.number]
    fields = {
        "id": letter.message.id,
        "to": str(delivery.recipient),
        "destination": str(delivery.destination.address),
        "relay": step.outcome.relay or None,
        "code": step.outcome.reply.code,
        "reply": step.after.reply,
        "attempts": step.after.attempts,
        "next": step.after.due.isoformat(timespec="seconds") if step.after.due else None,
        "again": step.again or None,
    }
    name = "deferred" if state is State.QUEUED and not first else _EVENTS.get(state, state.value)
    return [Event(one, fields) for one in (("expired", name) if step.expired else (name,))]
