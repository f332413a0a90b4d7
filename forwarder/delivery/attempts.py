"""Trying what is due, and recording what came of it: the hands of the delivery loop (`runner`).

Whoever tries a part has leased it in the spool. The outcome is recorded at once, with the DSNs that are owed, and with
`Recorder.surely`: what was delivered is not tried again because a disk is full. What the operator does meanwhile
stands: of a part that is not QUEUED any more only a delivery still counts.

When a lane's probe shows that nothing can be delivered there now, everything that is due there shares its outcome as if
it had been tried: it waits for its next time, or expires. Letters that are damaged are dropped; the spool has moved
them away and told the operator.

Every part that comes in by `attempt` or `settle_late` is in the schedule again afterwards, or has come to its end.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

from forwarder.delivery.lanes import speaks_of_lane, waiting_of
from forwarder.delivery.notices import Notices
from forwarder.delivery.recorder import Recorder
from forwarder.delivery.schedule import Batch, Due, Schedule
from forwarder.delivery.settlement import Settled, Settlement, bare
from forwarder.delivery.underway import Underway
from forwarder.model.letter import Change, Kind, Letter, Part, Query, State
from forwarder.model.message import Outgoing
from forwarder.model.outcome import LOCAL_FAULT, Outcome, Verdict
from forwarder.ports import Clock, Damaged, EventLog, Spool, SpoolError

_TOGETHER = 100  # letters that share a probe's outcome in one step


class Carrier(Protocol):
    """Makes one attempt."""

    async def carry(self, message: Outgoing) -> Sequence[Outcome]:
        """Offer all deliveries of a message; give one outcome for each when all are decided. Never raises.

        UNTRIED is what was not begun, since the gateway ends.
        """
        ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What attempts are made with."""

    spool: Spool
    carrier: Carrier
    settlement: Settlement
    clock: Clock
    log: EventLog
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Attempts:
    """Attempts on one schedule. `wake` is set whenever the schedule or the notices have changed."""

    def __init__(self, tools: Tools, schedule: Schedule, notices: Notices) -> None:
        self._spool = tools.spool
        self._carrier = tools.carrier
        self._settlement = tools.settlement
        self._clock = tools.clock
        self._log = tools.log
        self._schedule = schedule
        self._notices = notices
        self.recorder = Recorder(tools.clock, tools.sleep, tools.log)
        self.underway = Underway()
        self.wake = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Do something beside the loop."""
        task = asyncio.create_task(work)
        self.tasks.add(task)  # the loop holds tasks weakly
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._log.event("alert", reason=f"the delivery loop has a fault: {type(error).__name__}: {error}")

    def put_back(self, dues: Iterable[Due], seconds: float) -> None:
        """Put parts into the schedule with which nothing could be done."""
        now = self._clock.monotonic()
        for due in dues:
            self._schedule.put_back(due, now, now + seconds)
        self.wake.set()

    def release(self, parts: Iterable[Part]) -> None:
        """End leases."""
        freed = list(parts)
        if freed:
            self.spawn(self.recorder.surely(lambda: self._spool.give_back(freed)))

    # One batch

    async def attempt(self, batch: Batch) -> None:
        """Try one batch of the schedule, and end it there."""
        dues = {due.waiting.part: due for due in batch.parts}
        flight = self.underway.begin(dues)
        again = self._settlement.settings.intervals.longest_wait  # after a fault of ours nobody knows what was sent
        try:
            letter = await self._take_up(batch.parts, flight)
            if letter:
                with self.underway.opened(letter, [part.number for part in flight]):
                    await self._learn(batch, await self._offer(letter, dues, flight))
        except Damaged:  # of another letter, which was to share an outcome
            pass
        except SpoolError as error:  # before anything was sent
            self.recorder.failed(error)
            again = self._settlement.first_interval()
        finally:
            left = self.underway.end(flight)
            self.release(left)
            self.put_back([dues[part] for part in left], again)
            self._schedule.done(batch, self._clock.monotonic())

    async def _take_up(self, dues: Sequence[Due], flight: set[Part]) -> Letter | None:
        """Lease parts and give their letter; what cannot be had leaves the flight. Raises `SpoolError`."""
        leased = set(await self._spool.lease([due.waiting.part for due in dues]))
        if refused := [due for due in dues if due.waiting.part not in leased]:
            for due in refused:
                self.underway.landed(flight, due.waiting.part)
            self.spawn(self._look_again(refused))
        if not leased:
            return None
        letter = None
        try:
            id = dues[0].waiting.part.id
            letter = self._spool.recent(id) or await self._spool.fetch(id)
        except Damaged as error:
            self._log.event("alert", component="spool", id=dues[0].waiting.part.id, text=str(error))
        if letter is None:
            self.underway.end(flight)
            self.release(leased)
        return letter

    async def _look_again(self, dues: Sequence[Due]) -> None:
        """See to parts that we did not get: those that are still QUEUED are somebody else's now, and may come back."""
        id = dues[0].waiting.part.id
        found = await self.recorder.surely(lambda: self._spool.find(Query(ids=(id,))))
        queued = {
            Part(id, number)
            for letter in found
            if letter.message.id == id
            for number, progress in enumerate(letter.progress)
            if progress.state is State.QUEUED
        }
        left = [due for due in dues if due.waiting.part in queued and due.waiting.part not in self._schedule]
        self.put_back(left, self._settlement.first_interval())

    async def _offer(self, letter: Letter, dues: Mapping[Part, Due], flight: set[Part]) -> list[Outcome]:
        """Offer what is in the flight; the outcomes of each transaction are recorded when it ends."""
        groups: dict[bytes, list[int]] = {}  # those of one head go in one transaction
        for number in sorted(part.number for part in flight):
            groups.setdefault(letter.message.deliveries[number].head, []).append(number)
        since = {part.number: due.since for part, due in dues.items()}
        offers = [self._offer_group(letter, group, since, flight) for group in groups.values()]
        return [outcome for some in await asyncio.gather(*offers) for outcome in some]

    async def _offer_group(
        self, letter: Letter, numbers: Sequence[int], since: Mapping[int, float], flight: set[Part]
    ) -> Sequence[Outcome]:
        message = replace(letter.message, deliveries=tuple(letter.message.deliveries[number] for number in numbers))
        try:
            outcomes = await self._carrier.carry(message)
        except Exception as error:  # noqa: BLE001,RUF100 - the others go on, and these are tried again
            self._log.event("alert", id=message.id, reason=f"the attempt failed: {type(error).__name__}: {error}")
            outcomes = [LOCAL_FAULT] * len(numbers)
        known = zip(numbers, outcomes, strict=True)
        tried = {number: outcome for number, outcome in known if outcome.verdict is not Verdict.UNTRIED}
        if tried:  # the rest goes back as it was
            await self._record(message.id, tried, since, flight)
        return outcomes

    async def settle_late(self, due: Due | None, part: Part, outcome: Outcome) -> None:
        """Record how an attempt ended that was RUNNING; `due` is what was known of the part, already under way."""
        flight = {part} if due else self.underway.begin([part])
        due = due or self._schedule.remove(part)
        since = due.since if due else self._clock.monotonic()
        try:
            letter = await self.recorder.surely(lambda: self._spool.fetch(part.id))
            if letter and part.number < len(letter.progress):
                with self.underway.opened(letter, [part.number]):
                    await self._record(part.id, {part.number: outcome}, {part.number: since}, flight)
        except Damaged as error:
            self._log.event("alert", component="spool", id=part.id, text=str(error))
        finally:
            self.underway.end(flight)

    # What came of it

    async def _record(
        self, id: str, outcomes: Mapping[int, Outcome], since: Mapping[int, float], flight: set[Part]
    ) -> None:
        settled = self._settle(id, outcomes, since)
        parts = [Part(id, number) for number in outcomes]
        try:
            await self.recorder.surely(lambda: self._spool.store(settled.letters, settled.changes))
        except Damaged as error:
            self._drop(parts, outcomes, flight, error)
        else:
            self._land(settled, parts, flight)

    def _drop(self, parts: Sequence[Part], outcomes: Mapping[int, Outcome], flight: set[Part], error: Damaged) -> None:
        """Give up parts whose letter was moved away while they were tried: what became of them is the operator's."""
        for part in parts:
            came_to = outcomes[part.number].verdict.value
            text = f"{error}; what became of part {part.number} cannot be recorded: {came_to}"
            self._log.event("alert", component="spool", id=part.id, text=text)
            self.underway.landed(flight, part)
        self.release(parts)

    def _settle(self, id: str, outcomes: Mapping[int, Outcome], since: Mapping[int, float]) -> Settled:
        """Settle parts of an open letter, and bring it up to date."""
        letter = self.underway.letter(id)
        counting = {n: outcome for n, outcome in outcomes.items() if self.underway.counts(Part(id, n), outcome)}
        now = self._clock.monotonic()
        try:
            settled = self._settlement.settle(letter, counting, {number: now - since[number] for number in counting})
        except Exception as error:  # noqa: BLE001,RUF100 - what was delivered must be recorded in any case
            self._log.event("alert", id=id, reason=f"the outcome was not settled: {type(error).__name__}: {error}")
            settled = bare(letter, counting)
        self.underway.update(settled.letter)
        return settled

    def _land(self, settled: Settled, parts: Sequence[Part], flight: set[Part]) -> None:
        """Go on from what has been recorded."""
        wanted = {part for part in parts if self.underway.wants(part)}
        for part in parts:
            self.underway.landed(flight, part)
        self.follow(settled, wanted)
        recorded = {change.part for change in settled.changes}
        self.release(part for part in parts if part not in recorded)

    def follow(self, settled: Settled, wanted: set[Part]) -> None:
        """Say what was recorded; have those parts that are `wanted` and what was made tried when due."""
        now = self._clock.monotonic()
        for event in settled.events:
            self._log.event(event.name, **event.fields)
        for part, seconds in settled.again.items():
            if part in wanted:
                self._schedule.put(waiting_of(settled.letter, part.number), now, now + seconds)
        for made in settled.letters:
            self.follow_own(made, settled.letter.message.id)
        self._note_held(settled.letter, settled.changes)
        self.wake.set()

    def follow_own(self, letter: Letter, regarding: str | None = None) -> None:
        """Have a letter tried that we made, and that has been recorded."""
        now = self._clock.monotonic()
        for number, delivery in enumerate(letter.message.deliveries):
            self._schedule.put(waiting_of(letter, number), now, now)
            destination = str(delivery.destination.address)
            self._log.event("queued", id=letter.message.id, kind=letter.kind.value, to=destination, regarding=regarding)

    def _note_held(self, letter: Letter, changes: Sequence[Change]) -> None:
        held = [change.progress for change in changes if change.progress.state is State.HELD]
        if any(progress.untold for progress in held):
            self._notices.failed(self._clock.monotonic())
        if held and letter.kind is Kind.NOTICE:
            self._log.event("alert", id=letter.message.id, text="a notice to the postmaster cannot be delivered")

    # The others of the lane

    async def _learn(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        now = self._clock.monotonic()
        wide = next((outcome for outcome in outcomes if speaks_of_lane(outcome)), None)
        if wide is None:
            self._schedule.clear(batch.lane, now)
            return
        self._schedule.trouble(batch.lane, now)
        longest = self._settlement.settings.intervals.longest_wait
        pause = max(min(wide.wait, longest), self._schedule.bounds.patience if batch.probe else 0.0)
        self._schedule.hold_lane(batch.lane, now, now + pause)
        if batch.probe:
            await self._share(self._schedule.take_due(batch.lane, now), wide)

    async def _share(self, dues: Sequence[Due], outcome: Outcome) -> None:
        """Let parts that were not tried have the outcome of one that was."""
        letters: dict[str, list[Due]] = {}
        for due in dues:
            letters.setdefault(due.waiting.part.id, []).append(due)
        flight = self.underway.begin(due.waiting.part for due in dues)
        ids = iter(letters)
        try:
            while some := list(islice(ids, _TOGETHER)):
                await self._share_some([due for id in some for due in letters[id]], some, outcome, flight)
        finally:
            left = set(self.underway.end(flight))
            self.release(left)
            again = self._settlement.first_interval()
            self.put_back([due for due in dues if due.waiting.part in left], again)

    async def _share_some(self, dues: Sequence[Due], ids: Sequence[str], outcome: Outcome, flight: set[Part]) -> None:
        leased = set(await self.recorder.surely(lambda: self._spool.lease([due.waiting.part for due in dues])))
        found = await self.recorder.surely(lambda: self._spool.find(Query(ids=tuple(ids))))
        since = {due.waiting.part: due.since for due in dues if due.waiting.part in leased}
        settled: list[Settled] = []
        with ExitStack() as stack:
            for letter in found:
                mine = {part.number: since[part] for part in since if part.id == letter.message.id}
                whole = await self._whole_if_expiring(letter, mine) if mine else None
                if whole:
                    stack.enter_context(self.underway.opened(whole, mine))
                    settled.append(self._settle(letter.message.id, dict.fromkeys(mine, outcome), mine))
            letters = [dsn for one in settled for dsn in one.letters]
            changes = [change for one in settled for change in one.changes]
            await self.recorder.surely(lambda: self._spool.store(letters, changes))
        for one in settled:
            self._land(one, [change.part for change in one.changes], flight)

    async def _whole_if_expiring(self, letter: Letter, since: Mapping[int, float]) -> Letter | None:
        """Have the content checked where it may be needed for a DSN."""
        now = self._clock.monotonic()
        if not any(self._settlement.expiring(letter.progress[n], now - at) for n, at in since.items()):
            return letter
        try:
            return await self.recorder.surely(lambda: self._spool.fetch(letter.message.id))
        except Damaged as error:
            self._log.event("alert", component="spool", id=letter.message.id, text=str(error))
            return None
