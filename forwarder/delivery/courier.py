"""The courier that cuts through: offers a message to all its destinations at once and tells what came of it in time.

`hand_on` returns by its deadline. What is not decided then is RUNNING: its attempt goes on in the background. What had
no turn yet by the deadline is not started and is DEFERRED. Then the caller says how the sender was answered:

- `entrust`: 250, and the spool has the rest. It is told how attempts that were RUNNING end.
- `unheard`: the sender will come again. What was or still gets delivered is remembered (`ports.Ledger`) and answered
  DELIVERED at once the next time; a retry joins an attempt that is still running.
- neither: 250 and everything was delivered, or nothing was. After a whole success what was remembered is forgotten,
  and the same message sent again is delivered again.

A message that equals one whose sender still waits is no retry but another message: it has attempts of its own.
`carry` is for the spool: no deadline, nothing remembered. After `begin_no_more` it begins nothing.

Deliveries that share route and head go in one transaction, everything else concurrently. De-duplication is the
caller's. Nothing that a next hop, DNS or the disk does makes a method raise.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from weakref import WeakSet

from forwarder.delivery.attempt import Attempt, Listener, Means, Parcel
from forwarder.delivery.judge import Judge
from forwarder.delivery.lines import Lines
from forwarder.delivery.memory import Key, Memory, key_of
from forwarder.delivery.route import Router, Way
from forwarder.delivery.settings import CourierSettings
from forwarder.delivery.turns import Turns
from forwarder.model.envelope import Recipient
from forwarder.model.headers import split_header
from forwarder.model.message import Delivery, Outgoing
from forwarder.model.outcome import LOCAL_FAULT, Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.model.ruling import Fate, Ruling, Scope
from forwarder.ports import Clock, Dialer, EventLog, Ledger, Pacer, Randomness, Resolver
from forwarder.smtp.answers import quote
from forwarder.smtp.client import Transaction

_ANSWERED = 10_000  # successes that the caller may still say nobody heard of
_ANSWERED_AGE = 3600.0  # seconds
_HEADER_SEEN = 262_144  # octets of a message in which 8-bit headers are looked for
_PATIENCE = 30.0  # seconds that the spool's attempts wait for a turn before they are put off
_STRIKES = 3  # refusals of a message's content that are passed on as temporary
_RUNNING = Outcome(Verdict.RUNNING, Reply(451, "4.4.7", "the next hop has not answered yet"))
_UNTRIED = Outcome(Verdict.UNTRIED, Reply(451, "4.4.0", "not tried yet"))
_TAKEN = Outcome(Verdict.DELIVERED, Reply(250, "2.0.0", "taken into our care before"))
_BUSY = Outcome(Verdict.DEFERRED, Reply(451, "4.4.5", "too many connections to the next hop are in use"))
_UNDER_WAY = Ruling("under way", Scope.MESSAGE, Fate.NEVER_QUEUE)
_UNBEGUN = Outcome(Verdict.UNTRIED, Reply(451, "4.3.2", "the gateway is shutting down"))
_CLOSING = Outcome(Verdict.DEFERRED, Reply(451, "4.3.2", "the gateway is shutting down"))


@dataclass(eq=False, slots=True)
class _Promise:
    """The outcome of one delivery to come. Those that are `quiet` are logged by whoever asked."""

    key: Key
    delivery: Delivery
    future: asyncio.Future[Outcome]
    quiet: bool = False


@dataclass(eq=False, slots=True)
class _Job:
    """The attempt for deliveries that go together; `waiting` until it has a turn."""

    parcel: Parcel
    promises: Sequence[_Promise]
    log: EventLog
    started: float
    waiting: bool = True
    task: asyncio.Task[None] | None = field(default=None)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The ports that the courier works through."""

    resolver: Resolver
    dialer: Dialer
    clock: Clock
    randomness: Randomness
    ledger: Ledger
    pacer: Pacer
    log: EventLog


class CutThroughCourier:
    """Implements the `Courier` port over real or fake connections. Close it at the end."""

    def __init__(self, settings: CourierSettings, ports: Surroundings) -> None:
        self._settings = settings
        self._ports = ports
        self._clock = ports.clock
        self._ledger = ports.ledger
        self._log = ports.log
        self._router = Router(settings, ports.resolver, ports.randomness)
        self._lines = Lines(settings, ports.dialer, ports.clock)
        self._retired: WeakSet[Lines] = WeakSet()  # one is gone when no attempt and no idle connection holds it
        self._judge = Judge(ports.clock)
        self._answered = Memory(ports.clock, _ANSWERED, _ANSWERED_AGE)
        self._undecided: OrderedDict[str, Sequence[_Promise]] = OrderedDict()  # by message, until it is answered
        self._running: dict[Key, _Promise] = {}  # those whose sender comes again
        self._tasks: set[asyncio.Task[None]] = set()
        self._forgetting: set[asyncio.Task[None]] = set()
        self._in_all = Turns(settings.limits.connections)
        self._carrying: set[_Job] = set()  # for the spool
        self._ending = False

    async def hand_on(self, message: Outgoing, deadline: float) -> Sequence[Outcome]:
        """Offer to every destination at once; give one outcome per delivery, in their order, by `deadline`."""
        promises, fresh = await self._promises(message)
        jobs = [self._start(message, way, group, deadline) for way, group in self._groups(fresh)]
        try:
            await asyncio.wait({p.future for p in promises}, timeout=max(0.0, deadline - self._clock.monotonic()))
        except asyncio.CancelledError:  # nobody will hear of it: the sender asks again
            self._spawn(self._remember(promises))
            raise
        for job in jobs:
            self._call_off(job, _BUSY)
        outcomes = [promise.future.result() if promise.future.done() else _RUNNING for promise in promises]
        if all(outcome.verdict is Verdict.DELIVERED for outcome in outcomes):
            # Only what this call used up: an equal message on its way at the same time may need the rest.
            self._forget(promise.key for promise in promises if promise not in fresh)
        self._note_answered(promises)
        self._note_undecided(message, promises)
        return [await self._passed_on(promise, outcome) for promise, outcome in zip(promises, outcomes, strict=True)]

    async def known(self, message: Outgoing) -> Sequence[Outcome]:
        """Say what was handed on of a message before, without an attempt."""
        promises, fresh = await self._promises(message)
        if not fresh and all(promise.future.done() for promise in promises):
            self._forget(promise.key for promise in promises)
            self._note_answered(promises)
        self._note_undecided(message, [promise for promise in promises if promise not in fresh])
        return [
            promise.future.result() if promise.future.done() else _UNTRIED if promise in fresh else _RUNNING
            for promise in promises
        ]

    def entrust(self, message: Outgoing, settled: Callable[[int, Outcome], None]) -> None:
        """Learn that the sender was told 250: tell the spool how attempts end that were RUNNING."""
        digest = message.content.digest
        undecided = {promise.key: promise for promise in self._undecided.pop(message.id, ())}
        keys = [key_of(message, delivery, digest) for delivery in message.deliveries]
        for index, key in enumerate(keys):
            if promise := undecided.get(key):
                self._give_away(promise, partial(settled, index))
            if self._answered.get(key) is None:
                self._answered.put(key, _TAKEN)
        self._forget(keys)

    async def unheard(self, message: Outgoing) -> None:
        """Remember what was delivered of a message whose sender did not learn of it and will send it again."""
        if self._forgetting:  # what was used up by the question is to be known again
            await asyncio.wait(self._forgetting)
        digest = message.content.digest
        keys = (key_of(message, delivery, digest) for delivery in message.deliveries)
        known: dict[bytes, Outcome] = {key: outcome for key in keys if (outcome := self._answered.get(key))}
        await self._remember(self._undecided.pop(message.id, ()))
        if known:
            await self._ledger.remember(known)

    async def carry(self, message: Outgoing) -> Sequence[Outcome]:
        """Offer to every destination for the spool; give one outcome per delivery, never RUNNING."""
        digest = message.content.digest
        promises = [_new(key_of(message, delivery, digest), delivery, quiet=True) for delivery in message.deliveries]
        patience = self._clock.monotonic() + _PATIENCE
        jobs = {self._start(message, way, group, patience) for way, group in self._groups(promises)}
        self._carrying |= jobs
        if self._ending:
            self.begin_no_more()
        try:
            await asyncio.wait({promise.future for promise in promises})
        except asyncio.CancelledError:
            for job in jobs:
                if job.task:
                    job.task.cancel()
            raise
        finally:
            self._carrying -= jobs
        return [promise.future.result() for promise in promises]

    def begin_no_more(self) -> None:
        """Let `carry` end for what still waits for a turn, UNTRIED: begun now it might be cut off after the dot."""
        self._ending = True
        for job in self._carrying:
            self._call_off(job, _UNBEGUN)

    def reconfigure(self, settings: CourierSettings) -> None:
        """Use other settings for what begins from now on; what is under way ends with those it began with."""
        if settings == self._settings:
            return
        self._settings = settings
        self._router = Router(settings, self._ports.resolver, self._ports.randomness)
        self._retired.add(self._lines)  # its idle connections run out by themselves
        self._lines = Lines(settings, self._ports.dialer, self._clock)
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

    async def _promises(self, message: Outgoing) -> tuple[list[_Promise], list[_Promise]]:
        """Give a promise for each delivery, and those among them that need an attempt."""
        digest = message.content.digest
        keys = [key_of(message, delivery, digest) for delivery in message.deliveries]
        recalled = await self._ledger.recall(keys)
        fresh: dict[Key, _Promise] = {}
        promises = []
        for key, delivery, outcome in zip(keys, message.deliveries, recalled, strict=True):
            promise = fresh.get(key) or self._running.get(key)
            if promise is None and outcome is not None:
                promise = self._known(key, delivery, outcome, message.id)
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

    def _start(self, message: Outgoing, way: Way, promises: Sequence[_Promise], patience: float) -> _Job:
        head = promises[0].delivery.head
        parcel = Parcel(way, message, head, _transaction(message, head, promises), patience)
        job = _Job(parcel, promises, self._log.bind(id=message.id), self._clock.monotonic())
        job.task = self._spawn(self._work(job))
        return job

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)  # the loop holds tasks weakly
        task.add_done_callback(self._tasks.discard)
        return task

    # Under way

    async def _work(self, job: _Job) -> None:
        """Run one attempt; whatever happens, every promise of the job is kept."""
        otherwise = _CLOSING
        try:
            await self._attempt(job).run()
        except Exception as error:  # noqa: BLE001,RUF100 - whatever it is, the recipients have to be told
            otherwise = LOCAL_FAULT
            job.log.event("alert", reason=f"the attempt failed: {type(error).__name__}: {error}")
        finally:
            for promise in job.promises:
                self._settle(job, promise, otherwise)

    def _attempt(self, job: _Job) -> Attempt:
        def decided(index: int, outcome: Outcome) -> None:
            self._settle(job, job.promises[index], outcome)

        def begun() -> None:
            job.waiting = False

        means = Means(self._router, self._lines, self._judge, self._ports.pacer, self._in_all)
        return Attempt(job.parcel, means, Listener(decided, begun), job.log)

    def _call_off(self, job: _Job, outcome: Outcome) -> None:
        """Take a job back that has had no turn."""
        if job.waiting and job.task:
            for promise in job.promises:
                self._settle(job, promise, outcome)
            job.task.cancel()

    def _settle(self, job: _Job, promise: _Promise, outcome: Outcome) -> None:
        if promise.future.done():
            return
        promise.future.set_result(outcome)
        if self._running.get(promise.key) is promise:
            del self._running[promise.key]
            self._spawn(self._conclude(promise, outcome))
        if not promise.quiet:
            self._report(job.log, promise.delivery, outcome, self._clock.monotonic() - job.started)

    async def _conclude(self, promise: _Promise, outcome: Outcome) -> None:
        """Write down how an attempt ended whose sender comes again."""
        if outcome.verdict is Verdict.DELIVERED:
            await self._ledger.remember({promise.key: outcome})
        self._ledger.ended([promise.key])

    async def _passed_on(self, promise: _Promise, outcome: Outcome) -> Outcome:
        """Make a temporary refusal of a message's content permanent when it has been passed on often enough."""
        if not outcome.remote or outcome.ruling is None or outcome.ruling.fate is not Fate.NEVER_QUEUE:
            return outcome
        if await self._ledger.strike(promise.key) < _STRIKES:
            return outcome
        return replace(outcome, verdict=Verdict.REFUSED, reply=Reply(550, "5.7.1", outcome.reply.text))

    # Afterwards

    def _known(self, key: Key, delivery: Delivery, outcome: Outcome, message_id: str) -> _Promise:
        promise = _new(key, delivery)
        if outcome.verdict is Verdict.RUNNING:  # in another process: whoever else tries now makes a second copy
            outcome = replace(outcome, verdict=Verdict.DEFERRED, ruling=_UNDER_WAY)
        promise.future.set_result(outcome)
        self._report(self._log.bind(id=message_id, remembered=True), delivery, outcome, 0.0)
        return promise

    async def _remember(self, promises: Sequence[_Promise]) -> None:
        """Note what is delivered, and see to it that what still gets delivered is noted then."""
        going_on = [promise for promise in promises if not promise.future.done()]
        for promise in going_on:
            self._running[promise.key] = promise
        if going_on:
            self._ledger.running([promise.key for promise in going_on])
        done = [(promise.key, promise.future.result()) for promise in promises if promise.future.done()]
        delivered: dict[bytes, Outcome] = {
            key: outcome for key, outcome in done if outcome.verdict is Verdict.DELIVERED
        }
        if delivered:
            await self._ledger.remember(delivered)

    def _forget(self, keys: Iterable[Key]) -> None:
        if used_up := list(keys):
            task = self._spawn(self._ledger_forget(used_up))
            self._forgetting.add(task)
            task.add_done_callback(self._forgetting.discard)

    async def _ledger_forget(self, keys: Sequence[Key]) -> None:
        await self._ledger.forget(keys)

    def _give_away(self, promise: _Promise, settled: Callable[[Outcome], None]) -> None:
        """Tell the spool, and nobody else, how an attempt ends."""
        promise.quiet = True
        if self._running.get(promise.key) is promise:
            del self._running[promise.key]
            self._ledger.ended([promise.key])
        promise.future.add_done_callback(lambda future: settled(future.result()))

    def _note_answered(self, promises: Iterable[_Promise]) -> None:
        for promise in promises:
            if promise.future.done() and (outcome := promise.future.result()).verdict is Verdict.DELIVERED:
                self._answered.put(promise.key, outcome)

    def _note_undecided(self, message: Outgoing, promises: Sequence[_Promise]) -> None:
        if undecided := [promise for promise in promises if not promise.future.done()]:
            self._undecided[message.id] = [*self._undecided.get(message.id, ()), *undecided]
        if len(self._undecided) > _ANSWERED:
            self._undecided.popitem(last=False)

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


def _new(key: Key, delivery: Delivery, *, quiet: bool = False) -> _Promise:
    return _Promise(key, delivery, asyncio.get_running_loop().create_future(), quiet=quiet)


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
