"""A delivery loop against receivers that throttle at rates it does not know: no sockets, a virtual clock, seeds.

The receivers are token buckets (or count connections), and answer as the big ones do. Asserted are the promises: at
least 85 % of what a receiver bears gets through, few attempts meet a throttle, nobody else is slowed down, nobody
starves.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

import pytest

from forwarder.delivery.pacing import Pacing
from forwarder.delivery.providers import PacingSettings
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.model.ruling import Fate, Ruling, Scope
from forwarder.ports import Load, Turn

FINE = Outcome(Verdict.DELIVERED, Reply(250, "2.0.0", "OK"), remote=True)
BUSY = Outcome(Verdict.DEFERRED, Reply(421, "4.4.5", "Too many connections, try again later"), remote=True)
SENDERS = 20
WORDS = "Our system has detected an unusual rate of mail originating from your IP address"


def throttled(pause: float) -> Outcome:
    ruling = Ruling("throttled", Scope.ADDRESS, Fate.RETRY, "too fast", pause, 16 * pause)
    return Outcome(Verdict.DEFERRED, Reply(421, "4.7.28", WORDS), remote=True, ruling=ruling)


class Receiver:
    """What a provider does: takes `latency` seconds for a message and answers."""

    def __init__(self, latency: tuple[float, float] = (0.02, 0.06)) -> None:
        self.latency = latency
        self.accepted = list[float]()
        self.refused = list[float]()
        self.now_open = 0

    def answer(self, now: float) -> Sequence[Outcome]:
        self.accepted.append(now)
        return [FINE]


class Bucket(Receiver):
    """Bears `rate` messages a second, and `burst` of them at once; each refusal is the next of `refusals`."""

    def __init__(self, rate: float, burst: float, refuse: Callable[[], Outcome]) -> None:
        super().__init__()
        self.rate, self.burst, self.refuse = rate, burst, refuse
        self.level, self.seen = burst, 0.0

    def answer(self, now: float) -> Sequence[Outcome]:
        self.level = min(self.burst, self.level + (now - self.seen) * self.rate)
        self.seen = now
        if self.level < 1:
            self.refused.append(now)
            return [self.refuse()]
        self.level -= 1
        return super().answer(now)


class Few(Receiver):
    """Bears only so many connections at once."""

    def __init__(self, most: int) -> None:
        super().__init__((0.1, 0.4))
        self.most = most

    def answer(self, now: float) -> Sequence[Outcome]:
        if self.now_open > self.most:
            self.refused.append(now)
            return [BUSY]
        return super().answer(now)


class Dead(Receiver):
    """Never answers; the connection times out."""

    def __init__(self) -> None:
        super().__init__((30.0, 30.0))

    def answer(self, now: float) -> Sequence[Outcome]:
        self.refused.append(now)
        return []


@dataclass
class World:
    """A loop with a backlog for each receiver without end, of which up to `ahead` messages ask for turns at a time."""

    seed: int
    receivers: dict[str, Receiver]
    settings: PacingSettings = field(default_factory=lambda: PacingSettings(per_destination=30))
    ahead: int = 40
    until: float = 900.0
    load_for: Callable[[str, int], Load] = lambda host, number: Load(
        host, "", "d", f"s{number % SENDERS}", (f"m{number}@d",)
    )

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.core = self.fresh()
        self.now = 1000.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.counted = 0
        self.asked: dict[object, tuple[str, float, Load]] = {}
        self.begun: dict[str, list[tuple[float, float, Load]]] = {host: [] for host in self.receivers}
        self.loads: Counter[str] = Counter()
        for host in self.receivers:
            for _ in range(self.ahead):
                self.at(self.now + self.random.random(), self.asker(host))

    def fresh(self) -> Pacing:
        return Pacing(self.settings, lambda host: host)

    def asker(self, host: str) -> Callable[[], None]:
        return lambda: self.ask(host)

    def at(self, when: float, what: Callable[[], None]) -> None:
        self.counted += 1
        heappush(self.events, (when, self.counted, what))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            when = min(self.events[0][0] if self.events else end, self.core.due)
            if when >= end:
                break
            self.now = max(self.now, when)
            if self.events and self.events[0][0] <= self.now:
                heappop(self.events)[2]()
            self.deliver()
        self.now = end

    def ask(self, host: str, load: Load | None = None, since: float | None = None) -> None:
        if load is None:
            self.loads[host] += 1
            load = self.load_for(host, self.loads[host])
        since = self.now if since is None else since
        got = self.core.ask(load, self.now + self.until, self.now)
        if isinstance(got, Turn):
            self.go(host, since, load, got)
        else:
            self.asked[got] = (host, since, load)

    def deliver(self) -> None:
        for waiter, turn in self.core.ready(self.now):
            self.go(*self.asked.pop(waiter), turn)

    def go(self, host: str, since: float, load: Load, turn: Turn) -> None:
        if not turn.number:
            later = max(hold.seconds for hold in turn.held.values())
            self.at(self.now + max(later, 1.0), lambda: self.ask(host, load, since))
            return
        receiver = self.receivers[host]
        receiver.now_open += 1
        self.begun[host].append((self.now, since, load))
        core = self.core
        takes = self.random.uniform(*receiver.latency)

        def end() -> None:
            outcomes = receiver.answer(self.now)
            receiver.now_open -= 1
            core.done(turn, outcomes, self.now)
            if any(outcome is FINE for outcome in outcomes):
                self.ask(host)
            else:
                self.at(self.now + 60, lambda: self.ask(host, load, since))

        self.at(self.now + takes, end)

    def restart(self) -> None:
        """Go on with what was remembered; whoever waited asks again, what was under way ends unheard."""
        octets = self.core.dump(self.now)
        self.core = self.fresh()
        self.core.load(octets, self.now)
        waiting, self.asked = list(self.asked.values()), {}
        for host, since, load in waiting:
            self.ask(host, load, since)


def between(times: Sequence[float], start: float, end: float) -> int:
    return sum(start <= time < end for time in times)


@dataclass
class Trial:
    """A bucket of unknown rate, and how long a `patience` of the control law is there, in seconds.

    `settled` and `measured` are patiences: to find the rate in, and to be judged in.
    """

    seed: int

    def __post_init__(self) -> None:
        chance = random.Random(self.seed)
        self.rate = {0: 200.0, 1: 0.5}.get(self.seed, 0.5 * 400 ** (chance.random() ** 3))
        self.pause = 600.0 if self.seed == 1 else 0.0 if self.seed % 3 == 0 else 20 / self.rate
        self.changes = [1.0] if self.seed < 2 else [1.0, chance.choice([0.3, 0.5, 0.8, 1.3, 2.0])]
        self.until = 900.0 if self.seed < 2 else chance.choice([5.0, 900.0])
        refusals = [BUSY] if not self.pause else [throttled(self.pause)] * 4 + [BUSY]
        burst = max(1.0, self.rate * chance.uniform(0.2, 5))
        self.bucket = Bucket(self.rate, burst, lambda: chance.choice(refusals))
        self.settled, self.measured = (4, 3) if 1 < self.rate < 30 else (3, 2)
        self.patience = max(30, 12 * self.pause, 120 / self.rate)


@pytest.mark.parametrize("seed", range(22))
def test_an_unknown_rate_is_found_and_used_and_rarely_met(seed: int) -> None:
    trial = Trial(seed)
    world = World(seed, {"slow.example": trial.bucket}, ahead=20, until=trial.until)
    for change in trial.changes:
        trial.bucket.rate = trial.rate * change
        world.run(trial.settled * trial.patience)
        start, first = world.now, len(world.begun["slow.example"])
        world.run(trial.measured * trial.patience)
        accepted = between(trial.bucket.accepted, start, world.now)
        refused = between(trial.bucket.refused, start, world.now)
        assert accepted >= 0.85 * trial.bucket.rate * (world.now - start)
        assert refused <= 0.015 * accepted
        # Nobody starves: what is ahead of a message, what it is paused for, a refusal or two, and no more.
        longest = 4 * world.ahead / trial.bucket.rate + 2 * trial.pause + 2 * 60 + 20
        if trial.until < 900:  # who does not wait loses its place
            longest *= 3
        begun = world.begun["slow.example"][first:]
        assert max(now - since for now, since, _ in begun) <= longest
        senders = Counter(load.sender for _, _, load in begun)
        assert max(senders.values()) - min(senders[f"s{n}"] for n in range(SENDERS)) <= 6 + 0.1 * len(begun) / SENDERS


@pytest.mark.parametrize("most", [2, 3, 8])
@pytest.mark.parametrize("seed", range(3))
def test_few_connections_are_found_too(seed: int, most: int) -> None:
    few = Few(most)
    world = World(seed, {"few.example": few}, PacingSettings(per_destination=10), ahead=20)
    world.run(1000)
    start = world.now
    world.run(1000)
    accepted, refused = between(few.accepted, start, world.now), between(few.refused, start, world.now)
    assert refused <= 0.01 * accepted
    assert accepted >= 0.85 * most / 0.25 * 1000


@pytest.mark.parametrize("seed", range(3))
def test_nobody_else_is_slowed_down(seed: int) -> None:
    def healthy() -> dict[str, Receiver]:
        return {"a.example": Receiver((0.2, 0.6)), "b.example": Receiver((1.0, 2.0))}

    trouble = {"slow.example": Bucket(3, 6, lambda: throttled(30)), "dead.example": Dead()}
    settings = PacingSettings(per_destination=5)
    alone, among = World(seed, healthy(), settings), World(seed, {**healthy(), **trouble}, settings)
    alone.run(400)
    among.run(400)
    for host, receiver in alone.receivers.items():
        assert len(among.receivers[host].accepted) >= 0.97 * len(receiver.accepted) > 0
        waits = [now - since for now, since, _ in among.begun[host]]
        assert max(waits) <= 1.3 * max(now - since for now, since, _ in alone.begun[host])
    assert trouble["slow.example"].accepted
    assert len(trouble["dead.example"].refused) <= 30  # one at a time


def to_gmail(_: str, number: int) -> Load:
    return Load("google", "", "d", "s", (f"m{number % 2}@gmail.com",), trusted=number % 3 == 0)


@pytest.mark.parametrize("seed", range(3))
def test_a_mailbox_at_gmail_never_gets_more_than_fifty_a_minute(seed: int) -> None:
    world = World(seed, {"google": Receiver()}, PacingSettings(), load_for=to_gmail)
    world.run(600)
    times: dict[str, list[float]] = {}
    for now, _, load in world.begun["google"]:
        times.setdefault(load.mailboxes[0], []).append(now)
    for begun in times.values():
        assert len(begun) >= 0.95 * 500  # and it is made use of
        assert all(later - earlier >= 60 - 1e-6 for earlier, later in zip(begun, begun[50:], strict=False))
    assert max(now - since for now, since, _ in world.begun["google"]) <= 60 * (2 + world.ahead / 50)


class Once(Receiver):
    """Refuses one message, the hundredth, and notes how many there are at once."""

    def __init__(self) -> None:
        super().__init__((1.0, 1.0))
        self.at_once = list[tuple[float, int]]()

    def answer(self, now: float) -> Sequence[Outcome]:
        self.at_once.append((now, self.now_open))
        return [throttled(600)] if len(self.at_once) == 100 else super().answer(now)


@pytest.mark.parametrize("restarted", [False, True])
def test_after_a_pause_one_connection_then_one_more_each_round(restarted: bool) -> None:
    receiver = Once()
    world = World(1, {"x": receiver}, PacingSettings(per_destination=5))
    world.run(300 if restarted else 0)
    assert not restarted or world.core.due > world.now + 200  # in the middle of the pause
    if restarted:
        world.restart()
    world.run(1200)
    refused_at = receiver.at_once[99][0]
    after = [(now, at_once) for now, at_once in receiver.at_once if now > refused_at + 2]
    assert after[0][0] >= refused_at + 600
    assert [at_once for _, at_once in after[:6]] == [1, 2, 2, 3, 3, 3]
    assert max(at_once for _, at_once in after) <= 5


@pytest.mark.parametrize("seed", [5, 7, 10])
def test_a_restart_in_the_middle_of_it_all_changes_nothing_essential(seed: int) -> None:
    trial = Trial(seed)
    world = World(seed, {"slow.example": trial.bucket, "fine.example": Receiver((5, 10))}, ahead=20)
    world.run(trial.settled * trial.patience)
    start = world.now
    for _ in range(4):
        world.run(trial.patience)
        world.restart()
    accepted, refused = (
        between(trial.bucket.accepted, start, world.now),
        between(trial.bucket.refused, start, world.now),
    )
    assert accepted >= 0.85 * trial.bucket.rate * (world.now - start)
    assert refused <= 0.02 * accepted
