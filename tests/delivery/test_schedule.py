"""The order of attempts: fair over lanes, nothing lost, nothing twice, whatever the clock does."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from forwarder.delivery.intervals import Intervals
from forwarder.delivery.schedule import Batch, Bounds, Schedule, Standing
from forwarder.model.letter import Part, Progress, State, Waiting

WALL = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def waiting(
    id: str, number: int = 0, lane: str = "a.test", *, trusted: bool = False, attempts: int = 1, due: float = 0.0
) -> Waiting:
    progress = Progress(State.QUEUED, WALL + timedelta(seconds=due), attempts)
    return Waiting(Part(id, number), lane, progress, trusted)


def schedule(per_lane: int = 20, in_all: int = 200, patience: float = 60.0) -> Schedule:
    return Schedule(Intervals(), Bounds(per_lane, in_all, patience))


def put(one: Schedule, *parts: Waiting, at: float = 0.0) -> None:
    for part in parts:
        one.put(part, 0.0, at)


def names(batch: Batch | None) -> list[str]:
    return [f"{due.waiting.part.id}{due.waiting.part.number}" for due in batch.parts] if batch else []


def popped(one: Schedule, now: float = 0.0) -> list[Batch]:
    found = []
    while batch := one.pop(now):
        found.append(batch)
    return found


def test_nothing_goes_before_it_is_due() -> None:
    one = schedule()
    put(one, waiting("x"), at=60.0)
    assert one.pop(59.9) is None
    assert one.next_at(10.0) == 60.0
    assert names(one.pop(60.0)) == ["x0"]
    assert one.next_at(61.0) is None
    assert len(one) == 0


def test_what_is_due_first_goes_first() -> None:
    one = schedule()
    put(one, waiting("late"), at=3.0)
    put(one, waiting("early"), at=1.0)
    put(one, waiting("middle"), at=2.0)
    assert [names(batch) for batch in popped(one, 5.0)] == [["early0"], ["middle0"], ["late0"]]


def test_parts_of_one_letter_that_are_due_together_go_together() -> None:
    one = schedule()
    put(one, waiting("x", 2), waiting("y"), waiting("x", 0), waiting("x", 1, "b.test"))
    put(one, waiting("x", 3), at=9.0)
    assert [names(batch) for batch in popped(one)] == [["x0", "x2"], ["x1"], ["y0"]]


def test_lanes_take_turns_however_much_one_has() -> None:
    one = schedule()
    put(one, *(waiting(f"big{n}") for n in range(1000)), waiting("b", lane="b.test"), waiting("c", lane="c.test"))
    assert [batch.lane for batch in popped(one)][:4] == ["a.test", "b.test", "c.test", "a.test"]


def test_a_lane_has_a_bound_of_its_own() -> None:
    one = schedule(per_lane=2)
    put(one, *(waiting(f"x{n}") for n in range(5)), waiting("b", lane="b.test"))
    batches = popped(one)
    assert sorted(batch.lane for batch in batches) == ["a.test", "a.test", "b.test"]
    assert one.next_at(0.0) is None
    one.done(next(batch for batch in batches if batch.lane == "a.test"), 1.0)
    assert one.next_at(1.0) == 1.0
    assert [batch.lane for batch in popped(one, 1.0)] == ["a.test"]


def test_there_is_a_bound_in_all() -> None:
    one = schedule(in_all=3)
    put(one, *(waiting(f"x{n}", lane=f"{n}.test") for n in range(5)))
    batches = popped(one)
    assert len(batches) == 3
    assert one.next_at(0.0) is None
    one.done(batches[0], 0.0)
    assert len(popped(one)) == 1


def proven(one: Schedule, lane: str, seconds: float) -> None:
    """Let one batch of a lane take that long."""
    put(one, waiting(f"proof of {lane}", lane=lane))
    batch = one.pop(0.0)
    assert batch and batch.lane == lane
    one.done(batch, seconds)


def crowd(one: Schedule, name: str, count: int = 300, now: float = 0.0) -> int:
    """Let a letter be due in each of many lanes; say how many go."""
    for n in range(count):
        one.put(waiting(f"{name}{n}", lane=f"{name}{n}.test"), now, now)
    return len(popped(one, now))


def test_a_prompt_lane_finds_room_beside_any_number_of_new_ones() -> None:
    one = schedule()
    proven(one, "prompt.test", 5.0)
    assert crowd(one, "new", now=5.0) == 150
    put(one, *(waiting(f"x{n}", lane="prompt.test") for n in range(3)))
    assert [batch.lane for batch in popped(one, 5.0)] == ["prompt.test"] * 3


@pytest.mark.parametrize("trouble", [False, True])
def test_a_new_lane_finds_room_beside_any_number_of_slow_ones(trouble: bool) -> None:
    one = schedule()
    for n in range(300):
        proven(one, f"slow{n}.test", 0.0 if trouble else 5.1)
    put(one, *(waiting(f"x{n}", lane=f"slow{n}.test") for n in range(300)), at=10.0)
    for n in range(300 if trouble else 0):
        one.trouble(f"slow{n}.test", 9.0)
    assert len(popped(one, 10.0)) == 100
    assert one.next_at(10.0) is None
    put(one, waiting("y", lane="new.test"))
    assert one.next_at(10.0) == 10.0
    assert [batch.lane for batch in popped(one, 10.0)] == ["new.test"]


def test_mail_finds_room_beside_any_number_of_bounces() -> None:
    one = schedule()
    assert crowd(one, "bounces to ") == 50
    put(one, waiting("x", lane="slow.test"))
    assert [batch.lane for batch in popped(one)] == ["slow.test"]


def test_who_waits_for_room_has_it_when_a_batch_of_its_own_standing_ends() -> None:
    one = schedule()
    put(one, *(waiting(f"x{n}", lane=f"bounces to {n}.test") for n in range(51)))
    batches = popped(one)
    assert len(batches) == 50 and one.next_at(0.0) is None
    one.done(batches[0], 0.0)
    assert [batch.lane for batch in popped(one)] == ["bounces to 50.test"]


def test_a_lane_that_turns_out_to_be_prompt_waits_for_nobody_else() -> None:
    one = schedule(in_all=4)
    put(one, waiting("first"))
    first = one.pop(0.0)
    assert first and crowd(one, "new", 5) == 2
    put(one, waiting("second"))
    assert one.pop(0.0) is None
    one.done(first, 1.0)
    assert sorted(batch.lane for batch in popped(one, 1.0)) == ["a.test", "new2.test"]


def test_where_there_is_room_lanes_take_turns_whatever_their_standing() -> None:
    one = schedule()
    proven(one, "prompt.test", 0.0)
    proven(one, "slow.test", 9.0)
    for lane in ("bounces to x.test", "prompt.test", "new.test", "slow.test"):
        put(one, waiting(f"1 {lane}", lane=lane), waiting(f"2 {lane}", lane=lane))
    order = ["bounces to x.test", "prompt.test", "new.test", "slow.test"]
    assert [batch.lane for batch in popped(one, 9.0)] == order * 2


def test_a_slow_lane_has_less_at_once_until_it_is_prompt_again() -> None:
    one = schedule()
    proven(one, "a.test", 9.0)
    put(one, *(waiting(f"x{n}") for n in range(30)))
    batches = popped(one, 9.0)
    assert len(batches) == 5
    one.done(batches[0], 10.0)
    assert len(popped(one, 10.0)) == 16


def test_what_is_known_of_lanes_is_bounded() -> None:
    one = schedule()
    for n in range(10_050):
        proven(one, f"{n}.test", 0.0)
    assert len(one._took_long) == 10_000 and not one._lanes


def test_trusted_letters_go_first_but_not_alone() -> None:
    one = schedule()
    put(one, *(waiting(f"o{n}") for n in range(3)), *(waiting(f"t{n}", trusted=True) for n in range(7)))
    order = "".join(names(batch)[0][0] for batch in popped(one))
    assert order == "tttotttoto"


def test_a_held_lane_waits_and_delays_no_other() -> None:
    one = schedule()
    put(one, waiting("x"), waiting("b", lane="b.test"))
    one.hold_lane("a.test", 0.0, 100.0)
    assert [batch.lane for batch in popped(one)] == ["b.test"]
    assert one.next_at(0.0) == 100.0
    put(one, waiting("y"))  # what comes later waits too
    assert one.pop(99.0) is None
    assert len(popped(one, 100.0)) == 2


def test_a_lane_in_trouble_sends_a_probe_and_waits_for_it() -> None:
    one = schedule()
    put(one, *(waiting(f"x{n}") for n in range(5)))
    first = one.pop(0.0)
    assert first and not first.probe
    one.trouble("a.test", 0.0)
    one.done(first, 0.0)
    probe = one.pop(0.0)
    assert probe and probe.probe
    assert one.pop(59.0) is None
    assert one.next_at(0.0) == 60.0
    one.clear("a.test", 30.0)
    one.done(probe, 30.0)
    assert len(popped(one, 30.0)) == 3


def test_the_others_do_not_wait_longer_than_patience_for_a_probe() -> None:
    one = schedule(patience=60.0)
    put(one, *(waiting(f"x{n}") for n in range(5)))
    first = one.pop(0.0)
    assert first
    one.trouble("a.test", 0.0)
    one.done(first, 0.0)
    assert one.pop(0.0)
    assert one.pop(60.0)


def test_what_is_due_can_share_the_fate_of_the_probe() -> None:
    one = schedule()
    put(one, *(waiting(f"x{n}") for n in range(3000)))
    put(one, waiting("later"), at=10.0)
    probe = one.pop(1.0)
    assert probe
    one.trouble("a.test", 1.0)
    assert len(one.take_due("a.test", 1.0)) == 2999
    assert one.take_due("unknown.test", 1.0) == []
    one.done(probe, 1.0)
    assert len(one) == 1
    assert names(one.pop(10.0)) == ["later0"]


def test_a_part_that_is_put_again_is_there_once() -> None:
    one = schedule()
    put(one, waiting("x"), at=100.0)
    put(one, waiting("x", lane="b.test"), at=5.0)
    assert len(one) == 1
    assert [batch.lane for batch in popped(one, 1000.0)] == ["b.test"]


def test_a_removed_part_never_goes() -> None:
    one = schedule()
    put(one, waiting("due"), waiting("due", 1))
    put(one, waiting("later"), at=50.0)
    assert one.remove(Part("due", 0))
    assert one.remove(Part("later", 0))
    assert one.remove(Part("later", 0)) is None
    assert [names(batch) for batch in popped(one, 100.0)] == [["due1"]]
    assert one.next_at(100.0) is None


def test_what_is_taken_out_again_and_again_leaves_nothing_behind() -> None:
    one = schedule()
    for round in range(100):
        put(one, *(waiting(f"x{n}") for n in range(50)), at=1000.0 + round)
    assert sum(len(lane.future) for lane in one._lanes.values()) < 400
    for n in range(50):
        one.remove(Part(f"x{n}", 0))
    assert not one._lanes


# The spool's time of day


@pytest.mark.parametrize(
    ("attempts", "due", "at"),
    [
        (1, 40.0, 40.0),
        (1, -5.0, 0.0),  # it was due while we were away
        (1, 10 * 365 * 86_400.0, 66.0),  # the clock went back: never more than the interval
        (4, 86_400.0, 1980.0),
        (4, -10 * 365 * 86_400.0, 0.0),  # the clock went ahead
        (0, 0.0, 0.0),
    ],
)
def test_after_a_restart_what_is_left_of_the_interval_is_waited(attempts: int, due: float, at: float) -> None:
    one = schedule()
    one.place(waiting("x", attempts=attempts, due=due), 500.0, WALL)
    assert one.next_at(500.0) == pytest.approx(500.0 + at)


def test_a_part_without_a_time_is_due_at_once() -> None:
    one = schedule()
    one.place(Waiting(Part("x", 0), "a.test", Progress(State.QUEUED)), 500.0, WALL)
    assert names(one.pop(500.0)) == ["x0"]


@given(st.floats(-4e9, 4e9), st.integers(0, 50))
def test_a_restart_stalls_nothing_and_counts_no_time_that_nobody_saw(due: float, attempts: int) -> None:
    one = schedule()
    one.place(waiting("x", attempts=attempts, due=due), 1000.0, WALL)
    batch = one.pop(1000.0 + Intervals().longest(attempts))
    assert batch, "nothing stalls"
    assert batch.parts[0].since == 1000.0


def test_a_part_that_is_placed_again_has_waited_for_as_long_as_it_did() -> None:
    """Who asks for a retry every minute neither brings the end of a part nearer nor puts it off."""
    one = schedule()
    one.put(waiting("x", attempts=3, due=900.0), 500.0, 1400.0)
    for now in range(560, 1160, 60):
        one.place(waiting("x", attempts=3, due=0.0), float(now), WALL)
    batch = one.pop(1160.0)
    assert batch and [due.since for due in batch.parts] == [500.0]


@pytest.mark.bench
def test_a_hundred_thousand_parts_are_placed_within_a_second() -> None:
    one = schedule(per_lane=1_000_000, in_all=1_000_000)
    parts = [waiting(f"x{n}", lane=f"{n % 50}.test", due=float(n % 60)) for n in range(100_000)]
    begun = time.process_time()
    for part in parts:
        one.place(part, 0.0, WALL)
    assert time.process_time() - begun < 1.0
    assert len(popped(one, 60.0)) == 100_000


@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 30))
def test_with_k_lanes_due_each_has_its_turn_within_k(lanes: int, letters: int, before: int) -> None:
    one = schedule(per_lane=1000, in_all=10_000)
    put(one, *(waiting(f"x{n}.{lane}", lane=f"{lane}.test") for lane in range(lanes) for n in range(letters)))
    for _ in range(before):
        one.pop(0.0)
    behind = {batch.lane for batch in (one.pop(0.0) for _ in range(lanes)) if batch}
    assert behind >= {entry.waiting.lane for entry in one._entries.values()}


def lane_name(number: int) -> str:
    return f"{number}.test" if number else "bounces to 0.test"


class Everything(RuleBasedStateMachine):
    """No part is lost, none is out twice, bounds hold, and in the end everything goes. Lane 0 is for bounces."""

    def __init__(self) -> None:
        super().__init__()
        self.one = schedule(per_lane=2, in_all=4, patience=30.0)
        self.now = 0.0
        self.inside: set[Part] = set()
        self.flying: list[Batch] = []

    @property
    def outside(self) -> set[Part]:
        return {due.waiting.part for batch in self.flying for due in batch.parts}

    @rule(letter=st.integers(0, 8), number=st.integers(0, 2), lane=st.integers(0, 3), at=st.floats(0, 100))
    def put(self, letter: int, number: int, lane: int, at: float) -> None:
        part = Part(f"x{letter}", number)
        if part not in self.outside:
            one = Waiting(part, lane_name(lane), Progress(State.QUEUED), trusted=bool(letter % 2))
            self.one.put(one, self.now, self.now + at)
            self.inside.add(part)

    @rule(letter=st.integers(0, 8), number=st.integers(0, 2), due=st.floats(-1e9, 1e9), attempts=st.integers(0, 9))
    def place(self, letter: int, number: int, due: float, attempts: int) -> None:
        part = Part(f"x{letter}", number)
        if part not in self.outside:
            self.one.place(waiting(part.id, number, lane_name(letter % 4), attempts=attempts, due=due), self.now, WALL)
            self.inside.add(part)

    @rule(letter=st.integers(0, 8), number=st.integers(0, 2))
    def remove(self, letter: int, number: int) -> None:
        part = Part(f"x{letter}", number)
        assert (self.one.remove(part) is not None) == (part in self.inside)
        self.inside.discard(part)

    @rule()
    def pop(self) -> None:
        may = self.one.next_at(self.now)
        if batch := self.one.pop(self.now):
            assert may == self.now, "next_at never sleeps over what is due"
            parts = {due.waiting.part for due in batch.parts}
            assert len({part.id for part in parts}) == 1 and parts <= self.inside
            assert {due.waiting.lane for due in batch.parts} == {batch.lane}
            self.inside -= parts
            self.flying.append(batch)
        elif may == self.now:
            assert self.one.next_at(self.now) != self.now, "an empty turn is not offered again"

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 100), again=st.booleans())
    def done(self, which: int, again: bool) -> None:
        batch = self.flying.pop(which % len(self.flying))
        for due in batch.parts if again else ():
            self.one.put_back(due, self.now, self.now + 5)
            self.inside.add(due.waiting.part)
        self.one.done(batch, self.now)

    @rule(lane=st.integers(0, 3), seconds=st.floats(0, 50))
    def hold(self, lane: int, seconds: float) -> None:
        self.one.hold_lane(lane_name(lane), self.now, self.now + seconds)

    @rule(lane=st.integers(0, 3))
    def trouble(self, lane: int) -> None:
        self.one.trouble(lane_name(lane), self.now)

    @rule(lane=st.integers(0, 3))
    def clear(self, lane: int) -> None:
        self.one.clear(lane_name(lane), self.now)

    @rule(lane=st.integers(0, 3))
    def take_due(self, lane: int) -> None:
        taken = [due.waiting.part for due in self.one.take_due(lane_name(lane), self.now)]
        assert len(set(taken)) == len(taken) and set(taken) <= self.inside
        self.inside -= set(taken)

    @rule(seconds=st.floats(0, 100))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def counts(self) -> None:
        assert set(self.one._entries) == self.inside
        for standing in Standing:  # of four in all, each standing leaves one to each better one
            assert sum(batch.standing <= standing for batch in self.flying) <= standing
        assert all(sum(batch.lane == one.lane for batch in self.flying) <= 2 for one in self.flying)

    def teardown(self) -> None:
        while self.flying:
            self.done(0, False)
        while self.inside:
            at = self.one.next_at(self.now)
            assert at is not None, "nothing waits for ever"
            self.now = at
            self.pop()
            while self.flying:
                self.done(0, False)


TestEverything = Everything.TestCase
