"""The delivery loop: takes letters into custody, and tries what is due. Start reading at `run`.

One runner owns the queue of a spool. It implements the `Keeper` port: `keep` settles a letter with what its first
attempt came to, and stores it before anything else. From then on each of its parts is in one place: in the schedule,
under way here (`attempts`), or (RUNNING) under way at the courier that cut through, which tells its end by `settled`.

Nothing that a next hop, DNS or the disk does ends `run`. What is left out: the first attempt, which is the courier's,
and what the operator does, which comes in by `changed` and `gone`.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from forwarder.delivery import notices
from forwarder.delivery.attempts import Attempts, Tools
from forwarder.delivery.lanes import waiting_of
from forwarder.delivery.schedule import Bounds, Due, Schedule
from forwarder.model.address import Address
from forwarder.model.faults import NO_ROOM, NOT_STORED
from forwarder.model.letter import Kind, Letter, Part, Query, State, Waiting
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.ports import NotKept, SpoolError, SpoolFull

_AT_ONCE = 500  # parts that are placed before others have their turn
_LONGEST_SLEEP = 30.0  # seconds: a machine that was suspended is noticed after this
_HELD = Query(states=frozenset((State.HELD,)))


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """How the loop works.

    `postmaster` is told of what is held, `notice_after` seconds after it and every `notice_every` seconds at most.
    `refusal` says why no message can be taken now.
    """

    postmaster: Address
    bounds: Bounds = field(default_factory=Bounds)
    notice_after: float = 300.0
    notice_every: float = 3600.0
    refusal: Callable[[], Reply | None] = lambda: None


class Runner:
    """Implements `Keeper`. `start` it, then `run` it in a task, `drain` it at the end."""

    def __init__(self, settings: RunnerSettings, tools: Tools) -> None:
        self._settings = settings
        self._spool = tools.spool
        self._settlement = tools.settlement
        self._clock = tools.clock
        self._log = tools.log
        self._sleep = tools.sleep
        self._schedule = Schedule(tools.settlement.settings.intervals, settings.bounds)
        self._notices = notices.Notices(settings.notice_after, settings.notice_every)
        self._attempts = Attempts(tools, self._schedule, self._notices)
        self._running: dict[Part, Due] = {}  # tried by the courier that cut through
        self.deciding = asyncio.Lock()  # held by who changes HELD parts, of which there are no leases
        self._kept: set[str] | None = None  # ids of letters that were kept while the queue is loaded
        self._stopping = False

    async def start(self) -> None:
        """Load what the spool holds, before `run`; raises `SpoolError`. Letters may be kept, parts changed meanwhile.

        What has come to its end by the time that it is placed is refused a lease, and forgotten. Letters that are kept
        meanwhile are left to `keep`: their parts may be RUNNING, and must not be tried before they have their leases.
        """
        kept = self._kept = set[str]()
        now, wall = self._clock.monotonic(), self._clock.now()
        try:
            for count, waiting in enumerate(await self._spool.waiting(), 1):
                if waiting.part.id not in kept and waiting.part not in self._schedule:
                    self._schedule.place(waiting, now, wall)
                if count % _AT_ONCE == 0:
                    await asyncio.sleep(0)
        finally:
            self._kept = None
        if notices.untold(await self._spool.find(_HELD)):
            self._notices.failed(now)

    async def run(self) -> None:
        """Try what is due, until `drain`."""
        while not self._stopping:
            self._attempts.wake.clear()
            while self._attempts.recorder.free() and (batch := self._schedule.pop(self._clock.monotonic())):
                self._attempts.spawn(self._attempts.attempt(batch))
            if self._notices.begin(self._clock.monotonic()):
                self._attempts.spawn(self._notify())
            await self._rest()

    async def _rest(self) -> None:
        """Wait until something may be due."""
        now = self._clock.monotonic()
        due = self._schedule.next_at(now)
        times = [] if due is None else [max(due, self._attempts.recorder.closed_until)]
        if self._notices.next_at is not None:
            times.append(self._notices.next_at)
        seconds = max(0.0, min([now + _LONGEST_SLEEP, *times]) - now)
        ends = [asyncio.ensure_future(self._sleep(seconds)), asyncio.ensure_future(self._attempts.wake.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()

    async def drain(self, grace: float) -> None:
        """Start nothing more, let what is under way end for `grace` seconds, and give the rest back as it was."""
        self._stopping = True
        self._attempts.wake.set()
        tasks = self._attempts.tasks
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        if self._attempts.recorder.waiting:
            text = f"{self._attempts.recorder.waiting} outcomes could not be recorded: there may be second copies"
            self._log.event("alert", component="spool", text=text)
        left = self._attempts.underway.parts
        while tasks:  # what is cancelled may begin to tidy up
            unfinished = list(tasks)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        with suppress(SpoolError):  # the leases end with the process
            await self._spool.give_back(left)

    def reconfigure(self, settings: RunnerSettings) -> None:
        """Use other settings from now on, and those that the settlement has now."""
        self._settings = settings
        self._schedule.bounds = settings.bounds
        self._schedule.intervals = self._settlement.settings.intervals
        self._notices.after, self._notices.every = settings.notice_after, settings.notice_every
        self._attempts.wake.set()

    # Custody

    def refusal(self) -> Reply | None:
        """Say why no message can be taken now; None while there is room."""
        return self._settings.refusal()

    async def keep(self, letter: Letter, outcomes: Sequence[Outcome]) -> None:
        """Store a letter with what its first attempt came to; durable on return. Raises `NotKept`.

        To be shielded from cancellation: what is stored must come into the schedule.
        """
        settled = self._settlement.take(letter, outcomes)
        if self._kept is not None:
            self._kept.add(letter.message.id)
        await self._store((settled.letter, *settled.letters))  # also one that is done: its file may have been written
        now = self._clock.monotonic()
        running = {
            Part(letter.message.id, number): Due(waiting_of(settled.letter, number), now)
            for number, outcome in enumerate(outcomes)
            if outcome.verdict is Verdict.RUNNING
        }
        self._running |= running
        self._attempts.underway.begin(running)
        self._attempts.follow(settled, settled.again.keys() - running.keys())
        if running:
            with suppress(SpoolError):  # the letter is safe, and we give nobody else these parts
                await self._spool.lease(list(running))

    async def _store(self, letters: Sequence[Letter]) -> None:
        try:
            await self._spool.store(letters)
        except SpoolFull as error:
            raise NotKept(NO_ROOM, f"the spool is full: {error}") from error
        except SpoolError as error:
            raise NotKept(NOT_STORED, f"the spool failed: {error}") from error
        self._attempts.recorder.worked()

    def settled(self, part: Part, outcome: Outcome) -> None:
        """Learn how an attempt ended that was RUNNING when its letter was taken."""
        due = self._running.pop(part, None)
        if due or outcome.verdict is Verdict.DELIVERED:  # told twice, or of a part that nobody knows: no news
            self._attempts.spawn(self._attempts.settle_late(due, part, outcome))

    def changed(self, waitings: Iterable[Waiting]) -> None:
        """Learn that the operator has made parts QUEUED, or due at another time.

        Lanes that are held are tried again: who asks knows more of them than we do.
        """
        now, wall = self._clock.monotonic(), self._clock.now()
        for waiting in waitings:
            if not self._attempts.underway.stay(waiting.part):
                self._schedule.place(waiting, now, wall)
                self._schedule.hold_lane(waiting.lane, now, now)
        self._attempts.wake.set()

    def gone(self, parts: Iterable[Part]) -> None:
        """Learn that parts are not QUEUED any more."""
        for part in parts:
            self._schedule.remove(part)
            self._attempts.underway.leave(part)

    # The owner

    async def _notify(self) -> None:
        """Tell the postmaster of everything that is held untold, in one mail."""
        try:
            async with self.deciding:
                await self._send_notice()
        except Exception as error:  # noqa: BLE001,RUF100 - it is tried again
            self._notices.postpone(self._clock.monotonic())
            self._log.event("alert", reason=f"the postmaster could not be told of held mail: {error}")
        self._attempts.wake.set()

    async def _send_notice(self) -> None:
        parts = notices.untold(await self._spool.find(_HELD))
        if not parts:
            return
        hostname, id, to = self._settlement.settings.hostname, self._settlement.new_id(), self._settings.postmaster
        octets = notices.write(parts, hostname, id, to, self._clock.now())
        letter = self._settlement.outgoing(id, (to,), octets, Kind.NOTICE)
        if letter is None:
            raise ValueError(f"{to} leads nowhere")
        await self._spool.store([letter], notices.told(parts))
        self._attempts.follow_own(letter)
