"""Who may send what to which provider now, and what is learnt from how that ends. Pure; the shell is `pacer`.

`ask` gives a turn, or an answer that says why there is none, or a `Waiter` of which `ready` will give either. A turn is
given back by `done` with what was heard, or by `abandon` without. After each of these, and at `due`, the caller calls
`ready`. Times are monotonic seconds that only grow.

What counts, all of it learnt per provider (a group of mail hosts that have one operator: `provider_of`):

- turns at once and turns a second from one of our addresses: the control law is in `window`;
- pauses of the provider, of one of our addresses, envelope sender domains or original senders there, and of single
  mailboxes, as rulings ask for them: `pauses`. After a pause of the first two one turn at a time, then one more with
  each round of successes. What could go only after `until` is answered at once, what goes before it waits;
- messages a minute to one mailbox: `quota`;
- how it wants to be sent to (TLS, one recipient in each transaction, IPv4), for a day after it last said so. A ruling
  that teaches this sets no pause if the turn had been taken in another way.

A provider that could not be reached gets one turn at a time until it is. One provider never waits for another.

Nothing here makes a message fail: held means later. Memory is bounded by `PacingSettings.keys` of each kind; the one
unused for longest is forgotten. `dump` and `load` carry pauses, windows, rates and lessons over a restart; the count of
messages a minute starts afresh, and time in which nobody runs does not shorten a pause. Nothing that is passed in makes
a method raise.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from forwarder.delivery.congestion import is_lesson, is_of_connections, throttles
from forwarder.delivery.pacing_state import KeptFlow, KeptPause, KeptPeer, State, decoded, encoded
from forwarder.delivery.pauses import DAY, Pause, held
from forwarder.delivery.providers import PacingSettings, Provider
from forwarder.delivery.restraints import Ended, Restraints
from forwarder.delivery.waiting import Line, Place, Waiter
from forwarder.delivery.window import Rate, Window
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.ruling import Ruling
from forwarder.ports import Held, Load, Turn

_SOON, _LATE = 5.0, 600.0  # seconds, at least and at most, that are told to who found no room
_NEVER = float("inf")
_SPARE = 1000  # timers that may have become idle before they are tidied up


@dataclass(slots=True, eq=False)
class _Peer:
    """A provider; the lessons are times up to which they count."""

    known: Provider
    flows: "dict[str, _Flow]" = field(default_factory=dict)  # by our own few addresses
    secure: float = 0.0
    apart: float = 0.0
    ipv4: float = 0.0

    @property
    def busy(self) -> bool:
        return any(flow.window.used or flow.waiters for flow in self.flows.values())


@dataclass(slots=True, eq=False)
class _Flow:
    """What goes to one provider from one of our addresses. What began before `since` says nothing about its pace."""

    peer: _Peer
    source: str
    window: Window
    rate: Rate = field(default_factory=Rate)
    line: Line = field(default_factory=Line)
    waiters: int = 0
    since: float = 0.0
    alarm: float = _NEVER


@dataclass(slots=True, eq=False)
class _Open:
    """A turn that was given; `beside` counts those at once, itself among them."""

    flow: _Flow
    load: Load
    turn: Turn
    begun: float
    beside: int

    def told(self, outcomes: Sequence[Outcome]) -> Ended:
        """Give it with what was heard."""
        sent = [mailbox for index, mailbox in enumerate(self.load.mailboxes) if index not in self.turn.held]
        return Ended(self.flow.peer.known, self.load, sent, outcomes, self.begun)


class Pacing:
    """The state of all providers."""

    def __init__(self, settings: PacingSettings, provider_of: Callable[[str], str]) -> None:
        self._settings = settings
        self._provider_of = provider_of
        self._names: dict[str, str] = {}
        self._peers: OrderedDict[str, _Peer] = OrderedDict()
        self._restraints = Restraints(settings.keys)
        self._open: dict[int, _Open] = {}
        self._last = 0
        self._waiting: dict[Waiter, _Flow] = {}
        self._came = 0
        self._timers: list[tuple[float, int, Waiter | _Flow]] = []
        self._set = 0
        self._answers: list[tuple[Waiter, Turn]] = []

    # Asking

    def ask(self, load: Load, until: float, now: float) -> Turn | Waiter:
        """Give a turn, or one of number 0 if there is none until then, or a waiter that `ready` will answer."""
        flow = self._flow(load)
        holds, release = self._restraints.holds(flow.peer.known, load, now)
        if release > until:
            return Turn(0, holds)
        if release <= now and not flow.line and flow.window.room and flow.rate.due <= now:
            return self._begin(flow, load, holds, now)
        if until <= now:
            return Turn(0, holds if release > now else self._crowded(flow, load, now))
        return self._wait(flow, load, until, release, now)

    def leave(self, waiter: Waiter) -> None:
        """Stop waiting; nothing happens to who has been answered."""
        if flow := self._waiting.pop(waiter, None):
            flow.waiters -= 1
            waiter.place = Place.GONE

    @property
    def due(self) -> float:
        """When `ready` may have something to give though nothing else happens."""
        return self._timers[0][0] if self._timers else _NEVER

    def ready(self, now: float) -> list[tuple[Waiter, Turn]]:
        """Give the waiters that are answered since the last call, each once, with their turns or refusals."""
        while self._timers and self._timers[0][0] <= now:
            _, _, subject = heappop(self._timers)
            if isinstance(subject, Waiter):
                self._look_after(subject, now)
            else:
                subject.alarm = _NEVER
                self._serve(subject, now)
        answers, self._answers = self._answers, []
        return answers

    # Giving back

    def done(self, turn: Turn, outcomes: Sequence[Outcome], now: float) -> None:
        """End a turn with what was heard; without outcomes the provider was not reached."""
        if ended := self._open.pop(turn.number, None):
            ended.flow.window.used -= 1
            self._learn(ended, outcomes, now)
            if ended.flow.line:
                self._serve(ended.flow, now)

    def abandon(self, numbers: Iterable[int], now: float) -> None:
        """End turns of which nobody knows what came of them."""
        for number in numbers:
            if ended := self._open.pop(number, None):
                ended.flow.window.used -= 1
                self._serve(ended.flow, now)

    def reconfigure(self, settings: PacingSettings, now: float) -> None:
        """Use other settings; what was learnt stays. `keys` stays as it is."""
        self._settings = settings
        for peer in self._peers.values():
            peer.known = settings.provider(peer.known.name)
            for flow in peer.flows.values():
                first, flow.window.most = settings.window(peer.known.name)
                wanted = flow.window.width if flow.window.peak else max(flow.window.width, float(first))
                flow.window.width = min(wanted, float(flow.window.most))
                self._serve(flow, now)

    # Over a restart

    def dump(self, now: float) -> bytes:
        """Give what must survive a restart."""
        peers = [kept for peer in self._peers.values() if (kept := _kept(peer, now))]
        pauses = [
            KeptPause(scope, list(key), pause.until - now, pause.length, pause.why, pause.said)
            for scope, key, pause in self._restraints.items()
            if pause.until + DAY > now
        ]
        return encoded(State(peers, pauses))

    def load(self, octets: bytes, now: float) -> None:
        """Take over what `dump` gave, at the start; octets that are anything else change nothing."""
        state = decoded(octets)
        for kept in state.peers[-self._settings.keys :]:
            self._take_over(kept, now)
        for pause in state.pauses:
            self._restraints.put(
                pause.scope, tuple(pause.key), Pause(now + pause.left, pause.length, pause.why, pause.said)
            )

    def _take_over(self, kept: KeptPeer, now: float) -> None:
        peer = self._peer(kept.name)
        peer.secure, peer.apart, peer.ipv4 = now + kept.secure, now + kept.apart, now + kept.ipv4
        for flow in kept.flows:
            window = self._source(peer, flow.source).window
            window.width, window.peak = min(flow.width, float(window.most)), flow.peak
            if flow.ceiling:
                peer.flows[flow.source].rate = Rate(flow.ceiling, flow.floor, flow.patience, flow.spent, now - flow.age)

    # What is known of whom

    def _flow(self, load: Load) -> _Flow:
        name = self._names.get(load.host)
        if name is None:
            if len(self._names) >= self._settings.keys:
                self._names.clear()  # only a shortcut
            name = self._names[load.host] = self._provider_of(load.host)
        peer = self._peers.get(name)
        if peer is None:
            peer = self._peer(name)
        else:
            self._peers.move_to_end(name)
        return peer.flows.get(load.source) or self._source(peer, load.source)

    def _peer(self, name: str) -> _Peer:
        if name not in self._peers:
            self._peers[name] = _Peer(self._settings.provider(name))
            self._forget_one()
        return self._peers[name]

    def _forget_one(self) -> None:
        """Forget the provider unused for longest when there are too many; those in use count as used."""
        while len(self._peers) > self._settings.keys:
            name, peer = self._peers.popitem(last=False)
            if not peer.busy:
                return
            self._peers[name] = peer
            if all(peer.busy for peer in self._peers.values()):
                return

    def _source(self, peer: _Peer, source: str) -> _Flow:
        if source not in peer.flows:
            first, most = self._settings.window(peer.known.name)
            peer.flows[source] = _Flow(peer, source, Window(float(first), most))
        return peer.flows[source]

    def _crowded(self, flow: _Flow, load: Load, now: float) -> Mapping[int, Held]:
        """Say that there was no room in time."""
        if flow.rate.ceiling:
            why = f"{flow.peer.known.title} has asked us to slow down"
            seconds = max(flow.rate.due - now, flow.waiters / flow.rate.value())
        else:
            why, seconds = f"as many messages as {flow.peer.known.title} takes at once are on their way to it", 0.0
        return dict.fromkeys(range(len(load.mailboxes)), held(why, min(max(seconds, _SOON), _LATE)))

    # Turns

    def _begin(self, flow: _Flow, load: Load, holds: Mapping[int, Held], now: float) -> Turn:
        flow.window.used += 1
        flow.rate.begin(now)
        peer = flow.peer
        self._restraints.count(peer.known, load, holds, now)
        self._last += 1
        turn = Turn(self._last, holds, peer.known.messages, peer.secure > now, peer.apart > now, peer.ipv4 > now)
        self._open[self._last] = _Open(flow, load, turn, now, flow.window.used)
        return turn

    def _wait(self, flow: _Flow, load: Load, until: float, release: float, now: float) -> Waiter:
        self._came += 1
        waiter = Waiter(load, until, self._came)
        self._waiting[waiter] = flow
        flow.waiters += 1
        if until < _NEVER:
            self._set_timer(until, waiter)
        if release > now:
            self._send_away(waiter, release)
        else:
            flow.line.put(waiter)
            self._serve(flow, now)
        return waiter

    def _send_away(self, waiter: Waiter, release: float) -> None:
        waiter.place = Place.AWAY
        self._set_timer(release, waiter)

    def _serve(self, flow: _Flow, now: float) -> None:
        """Answer who is first in line as long as there is room, or a hold."""
        if not (self._restraints.any or flow.window.room):
            return
        while waiter := flow.line.next():
            holds, release = self._restraints.holds(flow.peer.known, waiter.load, now)
            if release > now:
                flow.line.take(waiter, served=False)
                if release > waiter.until:
                    self._answer(waiter, Turn(0, holds))
                else:
                    self._send_away(waiter, release)
            elif not flow.window.room:
                return
            elif flow.rate.due > now:
                self._set_alarm(flow)
                return
            else:
                flow.line.take(waiter, served=True)
                self._answer(waiter, self._begin(flow, waiter.load, holds, now))

    def _look_after(self, waiter: Waiter, now: float) -> None:
        """Do what is due for a waiter: its time is up, or it comes back into the line."""
        flow = self._waiting.get(waiter)
        if flow is None:
            return
        if waiter.until <= now:
            holds, release = self._restraints.holds(flow.peer.known, waiter.load, now)
            self._answer(waiter, Turn(0, holds if release > now else self._crowded(flow, waiter.load, now)))
        elif waiter.place is Place.AWAY:
            flow.line.put(waiter)
            self._serve(flow, now)

    def _answer(self, waiter: Waiter, turn: Turn) -> None:
        self.leave(waiter)
        self._answers.append((waiter, turn))

    def _set_alarm(self, flow: _Flow) -> None:
        if flow.alarm != flow.rate.due:
            flow.alarm = flow.rate.due
            self._set_timer(flow.alarm, flow)

    def _set_timer(self, when: float, subject: Waiter | _Flow) -> None:
        self._set += 1
        heappush(self._timers, (when, self._set, subject))
        if len(self._timers) > _SPARE + 4 * len(self._waiting):
            self._timers = [timer for timer in self._timers if timer[2] in self._waiting or isinstance(timer[2], _Flow)]
            heapify(self._timers)

    # Learning

    def _learn(self, ended: _Open, outcomes: Sequence[Outcome], now: float) -> None:
        flow = ended.flow
        if not outcomes:
            flow.window.begin_again()
            return
        smooth = all(outcome.verdict is Verdict.DELIVERED for outcome in outcomes)
        pause = None if smooth else self._obey(ended, outcomes, now)
        if ended.begun >= flow.since:
            if pause is not None:
                self._slow_down(ended, outcomes, pause, now)
            elif any(outcome.remote for outcome in outcomes):
                flow.window.succeeded()
        if self._restraints.any:
            self._restraints.succeeded(ended.told(outcomes))
            self._narrow(flow.peer, now)

    def _slow_down(self, ended: _Open, outcomes: Sequence[Outcome], pause: float, now: float) -> None:
        """Send less at once, and unless it is only that which is too much, more slowly."""
        flow = ended.flow
        beside = max(ended.beside, flow.window.used + 1)
        of_connections = all(is_of_connections(outcome) for outcome in outcomes if throttles(outcome))
        limited = pause or flow.rate.known(now)
        if limited or not of_connections or not flow.window.crowded(beside):
            flow.window.throttled(beside)
            flow.rate.throttled(now, pause)
        else:
            flow.rate.measure_anew()
        flow.since = now

    def _obey(self, ended: _Open, outcomes: Sequence[Outcome], now: float) -> float | None:
        """Do as the rulings say; where we were throttled give the pause for it in seconds, 0 if there is none."""
        told, throttled, longest = ended.told(outcomes), False, 0.0
        for outcome in outcomes:
            if outcome.ruling and outcome.remote and _learn_way(ended, outcome.ruling, now):
                continue
            throttled = throttled or throttles(outcome)
            longest = max(longest, self._restraints.refused(told, outcome, now))
        return longest if throttled else None

    def _narrow(self, peer: _Peer, now: float) -> None:
        """Where the provider or our address is paused, go on with one at a time afterwards."""
        for flow in list(peer.flows.values()):
            until = self._restraints.wide(peer.known, flow.source, now)
            if until > flow.since:
                flow.window.begin_again()
                flow.since = until
                self._serve(flow, now)


def _learn_way(ended: _Open, ruling: Ruling, now: float) -> bool:
    """Note how a provider wants to be sent to; say whether the turn had been taken in another way."""
    peer, turn = ended.flow.peer, ended.turn
    if ruling.secure:
        peer.secure = now + DAY
    if ruling.split:
        peer.apart = now + DAY
    if ruling.elsewhere:
        peer.ipv4 = now + DAY
    return is_lesson(ruling, secure=turn.secure, apart=turn.apart, ipv4=turn.ipv4)


def _kept(peer: _Peer, now: float) -> KeptPeer | None:
    """Give what is worth keeping of a provider: nothing if it never made trouble."""
    flows = [
        KeptFlow(
            flow.source,
            flow.window.width,
            flow.window.peak,
            flow.rate.ceiling,
            flow.rate.floor,
            flow.rate.patience,
            flow.rate.spent,
            max(0.0, now - flow.rate.cut) if flow.rate.ceiling else 0.0,
        )
        for flow in peer.flows.values()
        if flow.rate.ceiling or flow.window.peak or flow.window.width == 1.0
    ]
    lessons = [max(0.0, until - now) for until in (peer.secure, peer.apart, peer.ipv4)]
    return KeptPeer(peer.known.name, lessons[0], lessons[1], lessons[2], flows) if flows or any(lessons) else None
