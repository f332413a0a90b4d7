"""The parent's side of what all processes share: answers one worker with the parent's own ports.

A desk remembers what its worker holds: connections that were let in, attempts that run, turns to send, parts whose
attempts were running when their letters were taken. `lost`, called once the process is certainly gone, gives all of it
back, so that nothing is blocked by a worker that died. What it took from a limiter stays counted: the events happened.

Nothing here fails by itself; what a port raises is answered to the worker as an error.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from forwarder.model.letter import Part
from forwarder.model.message import Content
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.ops import wire
from forwarder.ops.rpc import Channel
from forwarder.ports import UNUSED, Keeper, Ledger, Load, NotKept, Pacer, Turn

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Store:
    """The parent's side of message files.

    `adopt` gives the content that a worker stored, by id, size, digest and `eight_bit`; `halt` ends the taking of
    letters, for the reason that a worker gave.
    """

    adopt: Callable[[str, int, bytes, bool], Content]
    halt: Callable[[str], None]


# The next hop may have taken it: trying again can make a second copy, not trying would lose it (RFC 1047).
DIED = Outcome(Verdict.DEFERRED, Reply(451, "4.3.0", "The process that was handing it on has ended"))


class Desk:
    """Serves one worker."""

    def __init__(self, channel: Channel, ports: wire.Ports, store: Store) -> None:
        self._channel = channel
        self._ports = ports
        self._lost = False
        self._clients: Counter[str] = Counter()
        channel.serve(wire.ENTER, self._enter)
        channel.hear(wire.LEAVE, self._leave)
        limiter = ports.limiter
        channel.serve(wire.ROOM, lambda counted: limiter.room(*counted))
        channel.serve(wire.TAKE, lambda counted: limiter.take(*counted))
        channel.hear(wire.GIVE_BACK, limiter.give_back)
        self._attempts = _Attempts(channel, ports.ledger)
        self._turns = _Turns(channel, ports.pacer)
        self._letters = _Letters(channel, ports.keeper, store)

    @property
    def connections(self) -> int:
        """How many clients of this worker are counted."""
        return self._clients.total()

    def announce(self) -> None:
        """Tell the worker whether custody is refused now, if that has changed."""
        self._letters.announce()

    def lost(self) -> None:
        """Give back all that the worker held; it is gone."""
        self._lost = True
        for client in self._clients.elements():
            self._ports.doorkeeper.leave(client)
        self._clients.clear()
        self._attempts.lost()
        self._turns.lost()
        self._letters.lost()

    async def _enter(self, client: str) -> Reply | None:
        refused = await self._ports.doorkeeper.enter(client)
        if refused is None:
            if self._lost:
                self._ports.doorkeeper.leave(client)
            else:
                self._clients[client] += 1
        return refused

    def _leave(self, client: str) -> None:
        if client in self._clients:
            _take_off(self._clients, client)
            self._ports.doorkeeper.leave(client)


class _Attempts:
    """The ledger, and the attempts of this worker that run."""

    def __init__(self, channel: Channel, ledger: Ledger) -> None:
        self._ledger = ledger
        self._running: Counter[bytes] = Counter()
        channel.serve(wire.RECALL, self._recall)
        channel.serve(wire.REMEMBER, ledger.remember)
        channel.serve(wire.FORGET, ledger.forget)
        channel.serve(wire.STRIKE, ledger.strike)
        channel.hear(wire.RUNNING, self._begin)
        channel.hear(wire.ENDED, self._end)

    async def _recall(self, keys: wire.Keys) -> tuple[Outcome | None, ...]:
        return tuple(await self._ledger.recall(keys))

    def _begin(self, keys: wire.Keys) -> None:
        self._running.update(keys)
        self._ledger.running(keys)

    def _end(self, keys: wire.Keys) -> None:
        for key in keys:
            _take_off(self._running, key)
        self._ledger.ended(keys)

    def lost(self) -> None:
        if keys := tuple(self._running.elements()):
            self._ledger.ended(keys)
        self._running.clear()


class _Turns:
    """The pacer, and the turns of this worker."""

    def __init__(self, channel: Channel, pacer: Pacer) -> None:
        self._pacer = pacer
        self._lost = False
        self._turns: dict[int, Turn] = {}
        channel.serve(wire.TURN, self._turn)
        channel.hear(wire.DONE, self._done)

    async def _turn(self, wanted: tuple[Load, float]) -> Turn:
        turn = await self._pacer.turn(*wanted)
        if turn.number and self._lost:
            self._pacer.done(turn, (UNUSED,))
        elif turn.number:
            self._turns[turn.number] = turn
        return replace(turn, held=dict(turn.held))  # msgpack knows no other mapping

    def _done(self, told: tuple[int, wire.Outcomes]) -> None:
        number, outcomes = told
        if turn := self._turns.pop(number, None):
            self._pacer.done(turn, outcomes)

    def lost(self) -> None:
        self._lost = True
        for turn in self._turns.values():
            self._pacer.done(turn, (UNUSED,))  # what the provider said died with the worker
        self._turns.clear()


class _Letters:
    """The keeper, and the parts whose attempts still run in this worker."""

    def __init__(self, channel: Channel, keeper: Keeper, store: Store) -> None:
        self._channel = channel
        self._keeper = keeper
        self._store = store
        self._lost = False
        self._announced: Reply | None = None
        self._running: set[Part] = set()
        self._keeping: set[asyncio.Task[wire.Refused | None]] = set()
        channel.serve(wire.KEEP, self._keep)
        channel.hear(wire.SETTLED, self._settled)
        channel.hear(wire.BROKEN, self._broken)
        self.announce()

    def announce(self) -> None:
        refusal = self._keeper.refusal()
        if refusal != self._announced:
            self._announced = refusal
            self._channel.tell(wire.REFUSAL, refusal)

    async def _keep(self, handed: tuple[wire.Sheet, wire.Outcomes]) -> wire.Refused | None:
        """Take a letter, to the end even if the worker goes away meanwhile: it may have been stored."""
        task = asyncio.ensure_future(self._take(*handed))
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)
        return await asyncio.shield(task)

    async def _take(self, sheet: wire.Sheet, outcomes: wire.Outcomes) -> wire.Refused | None:
        content = self._store.adopt(sheet.id, sheet.size, sheet.digest, sheet.eight_bit)
        try:
            await self._keeper.keep(wire.letter_of(sheet, content), outcomes)
        except NotKept as refused:
            return refused.reply, str(refused)
        finally:
            self.announce()
        parts = {Part(sheet.id, at) for at, one in enumerate(outcomes) if one.verdict is Verdict.RUNNING}
        self._running |= parts
        if self._lost:
            self.lost()
        return None

    def _broken(self, reason: str) -> None:
        self._store.halt(reason)
        self.announce()

    def _settled(self, told: tuple[Part, Outcome]) -> None:
        part, outcome = told
        self._running.discard(part)
        self._keeper.settled(part, outcome)

    def lost(self) -> None:
        self._lost = True
        parts, self._running = self._running, set()
        for part in sorted(parts, key=lambda part: (part.id, part.number)):
            self._keeper.settled(part, DIED)


def _take_off(counter: Counter[T], key: T) -> None:
    """Count one less of what is counted."""
    if counter[key] > 1:
        counter[key] -= 1
    else:
        counter.pop(key, None)
