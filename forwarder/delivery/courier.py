"""The courier that cuts through: offers a message to all its destinations at once and tells what came of it in time.

`hand_on` returns by its deadline. What is not decided then is RUNNING: its attempt goes on in the background, and a
later `hand_on` of the same message joins it. What had no turn yet by the deadline (too many connections at once) is
not started and is DEFERRED.

When not everything was delivered by the deadline the caller cannot acknowledge the message as a whole and its sender
will send it again: so what was or still gets delivered of it is remembered (`memory`) and answered DELIVERED at once
the next time. After a whole success what was remembered is forgotten, and the same message sent again is delivered
again; unless the caller says that nobody heard of the success (`unheard`).

A message that equals one whose sender still waits is no retry but another message: it has attempts of its own.

Deliveries that share route and head go in one transaction, everything else concurrently. De-duplication is the
caller's, retrying the spool's. Nothing that a next hop, DNS or the disk does makes `hand_on` raise.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from weakref import WeakSet

from forwarder.delivery.attempt import Attempt, Parcel
from forwarder.delivery.judge import Judge
from forwarder.delivery.lines import Lines
from forwarder.delivery.memory import Key, Memory, key_of
from forwarder.delivery.route import Router, Way
from forwarder.delivery.settings import CourierSettings
from forwarder.delivery.turns import Turns
from forwarder.model.envelope import Recipient
from forwarder.model.headers import split_header
from forwarder.model.message import Delivery, Outgoing
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.ports import Clock, Dialer, EventLog, Randomness, Resolver
from forwarder.smtp.answers import quote
from forwarder.smtp.client import Transaction

_ANSWERED = 10_000  # whole successes that the caller may still say nobody heard of
_ANSWERED_AGE = 3600.0  # seconds
_HEADER_SEEN = 262_144  # octets of a message in which 8-bit headers are looked for
_RUNNING = Outcome(Verdict.RUNNING, Reply(451, "4.4.7", "the next hop has not answered yet"))
_BUSY = Outcome(Verdict.DEFERRED, Reply(451, "4.4.5", "too many connections to the next hop are in use"))
_CLOSING = Outcome(Verdict.DEFERRED, Reply(451, "4.3.2", "the gateway is shutting down"))
_BROKEN = Outcome(Verdict.DEFERRED, Reply(451, "4.3.0", "the message could not be handed on for a local reason"))


@dataclass(eq=False, slots=True)
class _Promise:
    """The outcome of one delivery to come. With `keep` it is remembered if it is a success."""

    key: Key
    delivery: Delivery
    future: asyncio.Future[Outcome]
    keep: bool = False


@dataclass(eq=False, slots=True)
class _Job:
    """The attempt for deliveries that go together; `waiting` until it has a turn."""

    parcel: Parcel
    promises: Sequence[_Promise]
    log: EventLog
    started: float
    waiting: bool = True
    task: asyncio.Task[None] | None = field(default=None)


class CutThroughCourier:
    """Implements the `Courier` port over real or fake connections. Close it at the end."""

    def __init__(
        self,
        settings: CourierSettings,
        *,
        resolver: Resolver,
        dialer: Dialer,
        clock: Clock,
        randomness: Randomness,
        log: EventLog,
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._dialer = dialer
        self._randomness = randomness
        self._clock = clock
        self._log = log
        self._router = Router(settings, resolver, randomness)
        self._lines = Lines(settings, dialer, clock)
        self._retired: WeakSet[Lines] = WeakSet()  # one is gone when no attempt and no idle connection holds it
        self._judge = Judge(clock)
        self._memory = Memory(clock, seconds=settings.remember)
        self._answered = Memory(clock, _ANSWERED, _ANSWERED_AGE)
        self._running: dict[Key, _Promise] = {}  # those whose caller could not be told of a success
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_destination = Turns(settings.limits.per_destination)
        self._in_all = Turns(settings.limits.connections)

    async def hand_on(self, message: Outgoing, deadline: float) -> Sequence[Outcome]:
        """Offer to every destination at once; give one outcome per delivery, in their order, by `deadline`."""
        promises, fresh = self._promises(message)
        jobs = [self._start(message, way, group) for way, group in self._groups(fresh)]
        try:
            await asyncio.wait({p.future for p in promises}, timeout=max(0.0, deadline - self._clock.monotonic()))
        except asyncio.CancelledError:
            self._remember(promises)  # nobody will hear of it: the sender asks again
            raise
        for job in jobs:
            self._call_off(job)
        outcomes = [promise.future.result() if promise.future.done() else _RUNNING for promise in promises]
        if all(outcome.verdict is Verdict.DELIVERED for outcome in outcomes):
            # Only what this call used up: an equal message on its way at the same time may need the rest.
            self._forget(promise for promise in promises if promise not in fresh)
            self._note_answered(promises)
        else:
            self._remember(promises)
        return outcomes

    def unheard(self, message: Outgoing) -> None:
        """Remember what was delivered of a message whose sender did not learn of it and will send it again."""
        digest = message.content.digest
        for key in (key_of(message, delivery, digest) for delivery in message.deliveries):
            if outcome := self._answered.get(key):
                self._memory.put(key, outcome)

    def reconfigure(self, settings: CourierSettings) -> None:
        """Use other settings for what begins from now on; what is under way ends with those it began with."""
        if settings == self._settings:
            return
        self._settings = settings
        self._memory.keep_for(settings.remember)
        self._router = Router(settings, self._resolver, self._randomness)
        self._retired.add(self._lines)  # its idle connections run out by themselves
        self._lines = Lines(settings, self._dialer, self._clock)
        self._by_destination = Turns(settings.limits.per_destination)
        self._in_all = Turns(settings.limits.connections)

    async def close(self, grace: float) -> None:
        """End: let what is under way finish for `grace` seconds, then cancel it, and close every connection."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lines in [*self._retired, self._lines]:
            await lines.close()

    # What goes together

    def _promises(self, message: Outgoing) -> tuple[list[_Promise], list[_Promise]]:
        """Give a promise for each delivery, and those among them that need an attempt."""
        digest = message.content.digest
        fresh: dict[Key, _Promise] = {}
        promises = []
        for delivery in message.deliveries:
            key = key_of(message, delivery, digest)
            promise = fresh.get(key) or self._known(key, delivery, message.id) or self._running.get(key)
            if promise is None:
                promise = fresh[key] = _new(key, delivery)
            promises.append(promise)
        return promises, list(fresh.values())

    def _groups(self, promises: Iterable[_Promise]) -> Iterator[tuple[Way, list[_Promise]]]:
        groups: dict[tuple[Way, bytes], list[_Promise]] = {}
        for promise in promises:
            way = self._router.way(promise.delivery.destination)
            groups.setdefault((way, promise.delivery.head), []).append(promise)
        most = self._settings.limits.recipients
        for (way, _), group in groups.items():
            for first in range(0, len(group), most):
                yield way, group[first : first + most]

    def _start(self, message: Outgoing, way: Way, promises: Sequence[_Promise]) -> _Job:
        head = promises[0].delivery.head
        parcel = Parcel(way, message, head, _transaction(message, head, promises))
        job = _Job(parcel, promises, self._log.bind(id=message.id), self._clock.monotonic())
        job.task = asyncio.create_task(self._work(job))
        self._tasks.add(job.task)  # the loop holds tasks weakly
        job.task.add_done_callback(self._tasks.discard)
        return job

    # Under way

    async def _work(self, job: _Job) -> None:
        """Run one attempt; whatever happens, every promise of the job is kept."""
        otherwise = _CLOSING
        try:
            async with self._by_destination.turn(job.parcel.way), self._in_all.turn(None):
                job.waiting = False
                await self._attempt(job).run()
        except Exception as error:  # noqa: BLE001,RUF100 - whatever it is, the recipients have to be told
            otherwise = _BROKEN
            job.log.event("alert", reason=f"the attempt failed: {type(error).__name__}: {error}")
        finally:
            for promise in job.promises:
                self._settle(job, promise, otherwise)

    def _attempt(self, job: _Job) -> Attempt:
        def decided(index: int, outcome: Outcome) -> None:
            self._settle(job, job.promises[index], outcome)

        return Attempt(job.parcel, self._router, self._lines, self._judge, decided, job.log)

    def _call_off(self, job: _Job) -> None:
        """Take a job back that had no turn by the deadline."""
        if job.waiting and job.task:
            for promise in job.promises:
                self._settle(job, promise, _BUSY)
            job.task.cancel()

    def _settle(self, job: _Job, promise: _Promise, outcome: Outcome) -> None:
        if promise.future.done():
            return
        if self._running.get(promise.key) is promise:
            del self._running[promise.key]
        promise.future.set_result(outcome)
        if promise.keep and outcome.verdict is Verdict.DELIVERED:
            self._memory.put(promise.key, outcome)
        self._report(job.log, promise.delivery, outcome, self._clock.monotonic() - job.started)

    # Afterwards

    def _known(self, key: Key, delivery: Delivery, message_id: str) -> _Promise | None:
        outcome = self._memory.get(key)
        if outcome is None:
            return None
        promise = _new(key, delivery)
        promise.future.set_result(outcome)
        self._report(self._log.bind(id=message_id, remembered=True), delivery, outcome, 0.0)
        return promise

    def _remember(self, promises: Iterable[_Promise]) -> None:
        for promise in promises:
            promise.keep = True
            if not promise.future.done():
                self._running[promise.key] = promise
            elif promise.future.result().verdict is Verdict.DELIVERED:
                self._memory.put(promise.key, promise.future.result())

    def _forget(self, promises: Iterable[_Promise]) -> None:
        for promise in promises:
            self._memory.forget(promise.key)

    def _note_answered(self, promises: Iterable[_Promise]) -> None:
        for promise in promises:
            self._answered.put(promise.key, promise.future.result())

    def _report(self, log: EventLog, delivery: Delivery, outcome: Outcome, seconds: float) -> None:
        name = "attempt" if outcome.verdict is Verdict.REFUSED else outcome.verdict.value
        log.event(
            name,
            outcome=outcome.verdict.value,
            to=str(delivery.recipient),
            destination=str(delivery.destination.address),
            relay=outcome.relay or None,
            code=outcome.reply.code,
            reply=quote(outcome.reply),
            tls=outcome.tls or None,
            seconds=round(seconds, 3),
        )


def _new(key: Key, delivery: Delivery) -> _Promise:
    return _Promise(key, delivery, asyncio.get_running_loop().create_future())


def _transaction(message: Outgoing, head: bytes, promises: Sequence[_Promise]) -> Transaction:
    recipients = (Recipient(p.delivery.destination.address, p.delivery.options) for p in promises)
    eight_bit = message.content.eight_bit or not head.isascii()
    return Transaction(
        message.sender,
        tuple(recipients),
        message.options,
        len(head) + message.content.size,
        eight_bit,
        eight_bit and message.options.smtputf8 and _has_eight_bit_header(message, head),
    )


def _has_eight_bit_header(message: Outgoing, head: bytes) -> bool:
    octets = message.content.head(_HEADER_SEEN)
    return not (head.isascii() and octets[: split_header(octets).size].isascii())
