"""The delivery loop: what was taken into custody is tried, recorded and told, whatever fails meanwhile."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from forwarder.delivery.intervals import Intervals
from forwarder.delivery.lanes import waiting_of
from forwarder.delivery.schedule import Bounds
from forwarder.model.letter import Change, Kind, Letter, Part, Progress, State
from forwarder.model.message import Delivery
from forwarder.model.outcome import Outcome
from forwarder.model.reply import Reply
from forwarder.model.ruling import Fate, Scope
from forwarder.ports import NotKept, SpoolError, SpoolFull
from tests.delivery.loop import Loop, Ticking, make, rest, running
from tests.delivery.memory_spool import MemorySpool
from tests.delivery.post import (
    DEFERRED,
    DELIVERED,
    REFUSED,
    RUNNING,
    UNREACHABLE,
    UNTRIED,
    delivery,
    letter,
    ruled,
    settings,
)

DAY = 86_400.0


def always(outcome: Outcome) -> Callable[[Delivery], Outcome]:
    return lambda delivery: outcome


def octets(one: Letter) -> bytes:
    return b"".join(one.message.content.chunks())


# Custody


async def test_what_was_deferred_is_tried_after_the_interval_and_delivered() -> None:
    async with running() as loop:
        await loop.runner.keep(letter(), [DEFERRED])
        assert loop.spool.state("id1") is State.QUEUED
        await loop.pass_time(50)
        assert loop.carrier.offered == []
        await loop.pass_time(20)
        assert loop.carrier.ids == ["id1"]
        assert loop.spool.state("id1") is State.DELIVERED
        assert loop.spool.letters == {}
        assert [name for name, _ in loop.log.events] == ["queued", "delivered"]


async def test_what_was_not_tried_is_tried_at_once() -> None:
    async with running() as loop:
        await loop.runner.keep(letter("a@a.test", "b@b.test"), [UNTRIED, UNTRIED])
        await rest()
        assert loop.carrier.to("a.test") == loop.carrier.to("b.test") == 1


async def test_only_what_is_tried_now_is_offered() -> None:
    async with running() as loop:
        await loop.runner.keep(letter("a@a.test", "b@a.test", "c@a.test"), [DELIVERED, UNTRIED, DEFERRED])
        await rest()
        assert [str(d.destination.address) for d in loop.carrier.offered[0].deliveries] == ["b@a.test"]


async def test_what_goes_to_one_lane_goes_in_one_offer_unless_its_head_differs() -> None:
    async with running() as loop:
        other = delivery("c@a.test", head=b"Delivered-To: other\r\n")
        await loop.runner.keep(letter("a@a.test", "b@a.test", other), [UNTRIED] * 3)
        await rest()
        assert sorted(len(message.deliveries) for message in loop.carrier.offered) == [1, 2]
        assert loop.spool.calls.count("fetch") == 1


async def test_a_letter_with_nothing_left_to_do_is_shown_to_the_spool_so_that_its_file_goes() -> None:
    loop = make()
    await loop.runner.keep(letter(), [DELIVERED])
    assert (list(loop.spool.letters), list(loop.spool.past)) == ([], ["id1"])


async def test_a_refusal_in_a_kept_letter_makes_its_dsn_in_the_same_step() -> None:
    loop = make()
    await loop.runner.keep(letter("a@a.test", "b@b.test"), [REFUSED, DEFERRED])
    ((letters, _),) = loop.spool.stores
    assert [one.kind for one in letters] == [Kind.MAIL, Kind.BOUNCE]


async def test_a_dsn_is_sent_at_once() -> None:
    async with running() as loop:
        await loop.runner.keep(letter(), [REFUSED])
        await rest()
        (dsn,) = loop.carrier.offered
        assert dsn.sender is None and str(dsn.deliveries[0].destination.address) == "writer@stranger.test"


@pytest.mark.parametrize(
    ("error", "reply"), [(SpoolFull("a table is full"), "452 4.3.1"), (SpoolError("broken"), "451 4.3.0")]
)
async def test_what_cannot_be_stored_is_not_kept(error: Exception, reply: str) -> None:
    async with running() as loop:
        loop.spool.fail("store", error)
        with pytest.raises(NotKept) as caught:
            await loop.runner.keep(letter(), [UNTRIED])
        assert str(caught.value.reply).startswith(reply)
        assert str(error) not in str(caught.value.reply)
        await loop.pass_time(DAY)
        assert loop.carrier.offered == []


async def test_whether_there_is_room_is_asked_elsewhere() -> None:
    loop = make()
    assert loop.runner.refusal() is None
    full = Reply(452, "4.3.1", "full")
    loop.runner.reconfigure(replace(loop.runner._settings, refusal=lambda: full))
    assert loop.runner.refusal() is full


# What still runs at the courier


async def test_what_runs_is_not_tried_until_its_end_is_known() -> None:
    async with running() as loop:
        await loop.runner.keep(letter("a@a.test", "b@a.test"), [RUNNING, DELIVERED])
        assert loop.spool.leased == {Part("id1", 0)}
        await loop.pass_time(DAY)
        assert loop.carrier.offered == [] and loop.spool.calls.count("lease") == 1
        loop.runner.settled(Part("id1", 0), DELIVERED)
        await rest()
        assert loop.spool.state("id1") is State.DELIVERED
        await loop.pass_time(DAY)
        assert loop.carrier.offered == []


async def test_what_ran_and_failed_is_tried_again_by_the_schedule() -> None:
    async with running() as loop:
        await loop.runner.keep(letter(), [RUNNING])
        await loop.pass_time(600)
        loop.runner.settled(Part("id1", 0), DEFERRED)
        await rest()
        progress = loop.spool.letters["id1"].progress[0]
        assert (progress.attempts, progress.waited) == (1, 600.0)
        await loop.pass_time(67)
        assert loop.carrier.ids == ["id1"]


async def test_the_end_of_what_ran_is_recorded_when_the_disk_works_again() -> None:
    async with running() as loop:
        await loop.runner.keep(letter(), [RUNNING])
        loop.spool.fail("fetch")
        loop.runner.settled(Part("id1", 0), DELIVERED)
        await loop.pass_time(1000)
        loop.spool.heal()
        await loop.pass_time(61)
        assert loop.spool.state("id1") is State.DELIVERED


async def test_a_failure_that_is_told_twice_is_no_news() -> None:
    async with running() as loop:
        await loop.runner.keep(letter(), [RUNNING])
        loop.runner.settled(Part("id1", 0), DEFERRED)
        loop.runner.settled(Part("id1", 0), DEFERRED)
        await rest()
        assert loop.spool.letters["id1"].progress[0].attempts == 1


# The schedule


async def test_attempts_follow_the_schedule_until_the_letter_expires() -> None:
    async with running() as loop:
        loop.carrier.answer = always(DEFERRED)
        begun = loop.clock.ticks
        await loop.runner.keep(letter(bounceable=False), [DEFERRED])
        await loop.pass_time(66 + 330 + 990 + 1980)
        assert loop.carrier.to("a.test") == 4
        await loop.pass_time(5 * DAY)
        assert loop.spool.state("id1") is State.HELD
        expired = loop.log.named("expired")
        assert len(expired) == 1 and 110 < loop.carrier.to("a.test") < 135
        assert loop.spool.letters["id1"].progress[0].waited >= 5 * DAY
        assert loop.clock.ticks - begun < 5.1 * DAY


async def test_a_restart_goes_on_where_it_was() -> None:
    spool = MemorySpool()
    async with running(spool) as first:
        await first.runner.keep(letter(), [DEFERRED])
        await first.pass_time(30)
    clock = Ticking()
    clock.time = first.clock.time
    async with running(spool, clock=clock) as second:
        await second.pass_time(20)
        assert second.carrier.offered == []
        await second.pass_time(20)
        assert spool.state("id1") is State.DELIVERED


@pytest.mark.parametrize("jump", [timedelta(days=3650), timedelta(days=-1)])
@pytest.mark.parametrize("restart", [False, True])
async def test_a_clock_that_jumps_makes_no_bounce_and_no_stall(jump: timedelta, restart: bool) -> None:
    spool, clock = MemorySpool(), Ticking()
    async with running(spool, clock=clock) as loop:
        loop.carrier.answer = always(DEFERRED)
        await loop.runner.keep(letter(), [DEFERRED])
        clock.time += jump
        if not restart:
            await loop.pass_time(66 + 330)
            assert len(loop.carrier.offered) == 2
    loop = make(spool, clock=clock)
    loop.carrier.answer = always(DEFERRED)
    await loop.start()
    await loop.pass_time(1000)
    assert loop.carrier.offered
    assert spool.state("id1") is State.QUEUED
    loop.carrier.answer = always(DELIVERED)
    await loop.pass_time(4000)
    assert spool.state("id1") is State.DELIVERED
    await loop.stop()


async def test_one_stuck_lane_delays_no_other() -> None:
    async with running(bounds=Bounds(per_lane=2, in_all=4)) as loop:
        loop.carrier.gates["slow.test"] = asyncio.Event()
        for n in range(50):
            await loop.runner.keep(letter("x@slow.test", id=f"slow{n}"), [UNTRIED])
        for n in range(5):
            await loop.runner.keep(letter("x@fast.test", id=f"fast{n}"), [UNTRIED])
        await rest()
        assert loop.carrier.to("fast.test") == 5
        assert loop.carrier.to("slow.test") == 2
        loop.carrier.gates["slow.test"].set()
        await rest()
        assert loop.spool.letters == {}
        assert loop.carrier.most <= 4


async def test_many_stuck_lanes_delay_no_other() -> None:
    """As many domains of one provider that is slow: nobody knows beforehand that they are one."""
    async with running() as loop:
        await loop.runner.keep(letter("x@fast.test"), [UNTRIED])
        await rest()
        gates = {f"slow{n}.test": asyncio.Event() for n in range(300)}
        loop.carrier.gates |= gates
        for domain in gates:
            await loop.runner.keep(letter(f"x@{domain}", id=domain), [UNTRIED])
        await rest()
        await loop.runner.keep(letter("x@fast.test", id="a"), [UNTRIED])
        await rest()
        assert loop.spool.state("a") is State.DELIVERED
        loop.carrier.answer = always(DEFERRED)  # nobody had a turn
        await loop.pass_time(30)
        for gate in gates.values():
            gate.set()
            gate.clear()
        await loop.pass_time(200)  # they are tried again, and hang again
        assert loop.carrier.at_once == 150
        for gate in gates.values():
            gate.set()
            gate.clear()
        await loop.pass_time(1000)
        loop.carrier.answer = always(DELIVERED)
        assert loop.carrier.at_once == 100
        await loop.runner.keep(letter("x@new.test", id="b"), [UNTRIED])
        await rest()
        assert loop.spool.state("b") is State.DELIVERED


async def test_bounces_to_tarpits_delay_no_mail() -> None:
    """Whoever owns many domains can have us send DSNs to all of them."""
    async with running() as loop:
        gates = {f"tarpit{n}.test": asyncio.Event() for n in range(300)}
        loop.carrier.gates |= gates
        for n, domain in enumerate(gates):
            await loop.runner.keep(letter(id=f"x{n}", sender=f"evil@{domain}"), [REFUSED])
        await rest()
        assert loop.carrier.at_once == 50
        await loop.runner.keep(letter("x@new.test", id="a"), [UNTRIED])
        await rest()
        assert loop.spool.state("a") is State.DELIVERED


async def test_a_paused_destination_is_left_alone_until_its_time() -> None:
    async with running() as loop:
        loop.carrier.answer = always(ruled(DEFERRED, Fate.RETRY, Scope.DESTINATION, wait=7200.0))
        await loop.runner.keep(letter(id="first"), [UNTRIED])
        await rest()
        await loop.runner.keep(letter(id="second"), [DEFERRED])
        await loop.runner.keep(letter("x@b.test", id="other"), [UNTRIED])
        await loop.pass_time(7100)
        assert loop.carrier.ids == ["first", "other"]
        loop.carrier.answer = always(DELIVERED)
        await loop.pass_time(200)
        assert loop.spool.state("second") is State.DELIVERED


async def test_a_dead_destination_is_probed_and_the_rest_shares_what_comes_of_it() -> None:
    async with running() as loop:
        loop.carrier.answer = always(UNREACHABLE)
        for n in range(300):
            await loop.runner.keep(letter(id=f"x{n}"), [UNREACHABLE])
        await loop.pass_time(130)
        assert len(loop.carrier.offered) <= 10, "a connection for each would be 300"
        assert {one.progress[0].attempts for one in loop.spool.letters.values()} <= {2, 3}, "but each counts as tried"
        assert loop.spool.leased == set()
        await loop.pass_time(3 * 3600)
        assert len(loop.carrier.offered) < 200
        assert {one.progress[0].attempts for one in loop.spool.letters.values()} <= {6, 7, 8}
        loop.carrier.answer = always(DELIVERED)
        await loop.pass_time(4000)
        assert loop.spool.letters == {}


async def test_what_shares_a_failure_expires_with_it_and_is_told_of() -> None:
    async with running(chosen=settings(intervals=Intervals(expire=3000.0))) as loop:
        loop.carrier.answer = lambda d: UNREACHABLE if d.destination.address.domain == "a.test" else DELIVERED
        for n in range(150):
            await loop.runner.keep(letter(id=f"x{n}"), [UNREACHABLE])
        await loop.pass_time(DAY)
        assert len(loop.log.named("bounced")) == len(loop.log.named("expired")) == 150
        assert loop.carrier.to("stranger.test") == 150
        assert loop.spool.letters == {}


async def test_a_probe_that_hangs_does_not_hold_the_others_for_ever() -> None:
    async with running() as loop:
        loop.carrier.answer = always(UNREACHABLE)
        await loop.runner.keep(letter(id="x0"), [UNTRIED])
        await rest()
        loop.carrier.gates["a.test"] = asyncio.Event()
        for n in range(1, 4):
            await loop.runner.keep(letter(id=f"x{n}"), [UNTRIED])
        await loop.pass_time(50)
        assert loop.carrier.at_once == 1
        await loop.pass_time(20)
        assert loop.carrier.at_once >= 3
        loop.carrier.gates["a.test"].set()
        await rest()


async def test_several_transactions_are_recorded_as_they_end() -> None:
    async with running() as loop:
        slow = delivery("a@a.test", head=b"X: slow\r\n")
        gate = asyncio.Event()
        carry = loop.carrier.carry

        async def sometimes_slow(message: object) -> object:
            if message.deliveries[0].head == slow.head:  # type: ignore[attr-defined]
                await gate.wait()
            return await carry(message)  # type: ignore[arg-type]

        loop.carrier.carry = sometimes_slow  # type: ignore[method-assign,assignment]
        await loop.runner.keep(letter(slow, "b@a.test"), [UNTRIED, UNTRIED])
        await rest()
        assert [p.state for p in loop.spool.letters["id1"].progress] == [State.QUEUED, State.DELIVERED]
        gate.set()
        await rest()
        assert loop.spool.letters == {}


async def test_two_destinations_of_one_address_that_fail_at_once_make_one_dsn() -> None:
    async with running() as loop:
        loop.carrier.gates = {"a.test": asyncio.Event(), "b.test": asyncio.Event()}
        loop.carrier.answer = lambda d: REFUSED if d.head else DELIVERED
        both = [delivery(to, alias="x@ours.test") for to in ("a@a.test", "b@b.test")]
        await loop.runner.keep(letter(*both), [UNTRIED, UNTRIED])
        await rest()
        for gate in loop.carrier.gates.values():
            gate.set()
        await rest()
        assert loop.spool.state("id1", 0) is loop.spool.state("id1", 1) is State.BOUNCED
        assert loop.carrier.to("stranger.test") == 1


# What goes wrong


async def test_an_outcome_that_cannot_be_recorded_is_kept_and_nothing_is_sent_twice() -> None:
    async with running() as loop:
        await loop.runner.keep(letter(), [UNTRIED])
        loop.spool.fail("store", SpoolFull("a table is full"))
        await loop.pass_time(2 * DAY)
        assert loop.carrier.ids == ["id1"]
        assert len(loop.log.named("alert")) == 1
        assert loop.spool.calls.count("store") > 1000
        loop.spool.heal()
        await loop.pass_time(61)
        assert loop.spool.state("id1") is State.DELIVERED
        assert loop.carrier.ids == ["id1"]


async def test_while_nothing_can_be_recorded_hardly_anything_is_started() -> None:
    async with running() as loop:
        await loop.runner.keep(letter(id="x0"), [UNTRIED])
        for n in range(1, 200):
            await loop.runner.keep(letter(f"x@{n}.test", id=f"x{n}"), [DEFERRED])
        loop.spool.fail("store")
        await loop.pass_time(600)
        assert len(loop.carrier.offered) < 15
        loop.spool.heal()
        await loop.pass_time(200)
        assert loop.spool.letters == {}
        assert len(loop.carrier.offered) == 200


async def test_a_letter_that_can_never_be_recorded_does_not_stop_the_others() -> None:
    async with running() as loop:
        store = loop.spool.store

        async def poisoned(letters: Sequence[Letter], changes: Sequence[Change] = ()) -> None:
            if any(change.part.id == "bad" for change in changes):
                raise SpoolError("always")
            await store(letters, changes)

        loop.spool.store = poisoned  # type: ignore[method-assign]
        await loop.runner.keep(letter(id="bad"), [UNTRIED])
        await loop.pass_time(3600)
        for n in range(5):
            loop.spool.letters[f"x{n}"] = letter(id=f"x{n}")
            loop.runner.changed([waiting_of(loop.spool.letters[f"x{n}"], 0)])
        await loop.pass_time(120)
        assert list(loop.spool.letters) == ["bad"]
        assert loop.carrier.ids.count("bad") == 1


@pytest.mark.parametrize("method", ["lease", "fetch"])
async def test_a_spool_that_fails_before_the_attempt_is_asked_again(method: str) -> None:
    async with running() as loop:
        await loop.runner.keep(letter(), [UNTRIED])
        loop.spool.fail(method, times=3)
        await loop.pass_time(600)
        assert loop.carrier.ids == ["id1"]
        assert loop.spool.state("id1") is State.DELIVERED
        assert loop.spool.leased == set()


async def test_a_letter_that_goes_to_quarantine_while_a_part_is_tried_is_given_up() -> None:
    """What became of the part has no place any more: the operator is told, and nothing is tried without end."""
    async with running() as loop:
        gate = loop.carrier.gates["b.test"] = asyncio.Event()
        loop.carrier.answer = lambda each: DELIVERED if each.destination.address.domain == "b.test" else DEFERRED
        await loop.runner.keep(letter("a@a.test", "b@b.test"), [UNTRIED, UNTRIED])
        await rest()
        loop.spool.damaged.add("id1")
        await loop.pass_time(100)  # the other part is due again
        assert list(loop.spool.quarantine) == ["id1"]
        gate.set()
        await loop.pass_time(7200)
        assert "b@b.test" in {str(each.destination.address) for m in loop.carrier.offered for each in m.deliveries}
        told = [str(fields.get("text")) for fields in loop.log.named("alert")]
        assert told[-1].endswith("what became of part 1 cannot be recorded: delivered")
        assert loop.spool.leased == set()
        assert (loop.runner._attempts.recorder.waiting, loop.runner._attempts.underway.parts) == (0, [])


async def test_one_that_is_in_quarantine_keeps_no_other_from_sharing_an_outcome() -> None:
    async with running(bounds=Bounds(per_lane=1)) as loop:
        gate = loop.carrier.gates["a.test"] = asyncio.Event()
        loop.carrier.answer = lambda each: UNREACHABLE
        for n in range(4):
            await loop.runner.keep(letter(id=f"x{n}"), [UNTRIED])
        await rest()
        store = loop.spool.store

        async def meanwhile(letters: Sequence[Letter], changes: Sequence[Change] = ()) -> None:
            if len(changes) > 1 and "x3" in loop.spool.letters:
                loop.spool.quarantine["x3"] = loop.spool.letters.pop("x3")
            await store(letters, changes)

        loop.spool.store = meanwhile  # type: ignore[method-assign]
        gate.set()
        await loop.pass_time(600)
        loop.carrier.answer = lambda each: DELIVERED
        await loop.pass_time(7200)
        assert (list(loop.spool.quarantine), loop.spool.letters, loop.spool.leased) == (["x3"], {}, set())
        assert loop.log.named("alert") == []  # the spool is not in trouble


async def test_a_damaged_letter_is_dropped_and_the_others_go() -> None:
    async with running() as loop:
        loop.spool.damaged.add("bad")
        await loop.runner.keep(letter(id="bad"), [UNTRIED])
        await loop.runner.keep(letter(id="good"), [UNTRIED])
        await loop.pass_time(DAY)
        assert loop.carrier.ids == ["good"]
        assert "bad" in str(loop.log.named("alert"))
        assert loop.spool.calls.count("fetch") == 2


async def test_a_carrier_with_a_fault_is_a_failed_attempt() -> None:
    async with running() as loop:

        def fault(delivery: Delivery) -> Outcome:
            raise RuntimeError("a fault")

        loop.carrier.answer = fault
        await loop.runner.keep(letter(), [UNTRIED])
        await rest()
        assert loop.spool.letters["id1"].progress[0].attempts == 1
        assert loop.log.named("alert")
        loop.carrier.answer = always(DELIVERED)
        await loop.pass_time(70)
        assert loop.spool.state("id1") is State.DELIVERED


async def test_a_settlement_with_a_fault_loses_no_delivery_and_no_message() -> None:
    async with running() as loop:
        await loop.runner.keep(letter("a@a.test", "b@a.test"), [UNTRIED, UNTRIED])
        loop.carrier.answer = lambda d: DELIVERED if d.destination.address.local == "a" else REFUSED

        def broken(message: object) -> object:
            raise OSError("the key is gone")

        loop.settlement.settings = replace(loop.settlement.settings, prepare=broken)  # type: ignore[arg-type]
        await rest()
        assert [p.state for p in loop.spool.letters["id1"].progress] == [State.DELIVERED, State.HELD]
        await loop.pass_time(200)
        assert loop.carrier.ids == ["id1"]


async def test_a_part_that_is_gone_from_the_spool_is_forgotten() -> None:
    async with running() as loop:
        await loop.runner.keep(letter(), [DEFERRED])
        loop.spool.letters.clear()
        await loop.pass_time(DAY)
        assert loop.carrier.offered == []
        assert loop.spool.calls.count("lease") == 1


async def test_a_part_that_somebody_else_works_on_is_asked_for_again() -> None:
    async with running() as loop:
        await loop.runner.keep(letter(), [DEFERRED])
        loop.spool.leased.add(Part("id1", 0))
        await loop.pass_time(600)
        assert loop.carrier.offered == [] and loop.spool.calls.count("lease") > 3
        loop.spool.leased.clear()
        await loop.pass_time(70)
        assert loop.spool.state("id1") is State.DELIVERED


# The operator


async def test_the_operator_can_have_a_part_tried_now() -> None:
    async with running() as loop:
        await loop.runner.keep(letter(), [ruled(DEFERRED, Fate.RETRY, wait=14_000.0)])
        one = loop.spool.letters["id1"]
        now = replace(one.progress[0], due=loop.clock.now())
        loop.runner.changed([replace(waiting_of(one, 0), progress=now)])
        await rest()
        assert loop.spool.state("id1") is State.DELIVERED


async def test_what_the_operator_wants_tried_waits_for_no_lane_that_was_found_dead() -> None:
    async with running() as loop:
        loop.carrier.answer = always(UNREACHABLE)
        for n in range(2):
            await loop.runner.keep(letter(id=f"x{n}"), [UNREACHABLE])
        await loop.pass_time(70)
        assert len(loop.carrier.offered) == 2, "the second was a probe, and now the lane is left alone"
        loop.carrier.answer = always(DELIVERED)
        now = [replace(one.progress[0], due=loop.clock.now()) for one in loop.spool.letters.values()]
        waitings = [waiting_of(one, 0) for one in loop.spool.letters.values()]
        loop.runner.changed([replace(one, progress=due) for one, due in zip(waitings, now, strict=True)])
        await rest()
        assert loop.spool.letters == {}


async def test_what_the_operator_took_away_is_not_tried() -> None:
    async with running() as loop:
        await loop.runner.keep(letter(), [DEFERRED])
        loop.runner.gone([Part("id1", 0), Part("unknown", 0)])
        await loop.pass_time(DAY)
        assert loop.carrier.offered == []


@pytest.mark.parametrize(
    ("outcome", "state"), [(DELIVERED, State.DELIVERED), (DEFERRED, State.HELD), (REFUSED, State.HELD)]
)
async def test_what_the_operator_holds_during_an_attempt_stays_held_unless_delivered(
    outcome: Outcome, state: State
) -> None:
    async with running() as loop:
        await attempt_then_hold(loop, outcome)
        assert loop.spool.state("id1") is state
        assert loop.spool.leased == set()
        await loop.pass_time(200)
        assert loop.carrier.ids == ["id1"], "neither tried again nor answered"


async def attempt_then_hold(loop: Loop, outcome: Outcome) -> None:
    gate = loop.carrier.gates["a.test"] = asyncio.Event()
    loop.carrier.answer = always(outcome)
    await loop.runner.keep(letter(), [UNTRIED])
    await rest()
    one = loop.spool.letters["id1"]
    loop.spool.letters["id1"] = replace(one, progress=(Progress(State.HELD),))
    loop.runner.gone([Part("id1", 0)])
    gate.set()
    await rest()


async def test_what_the_operator_takes_away_while_it_is_recorded_is_not_tried_again() -> None:
    async with running() as loop:
        store = loop.spool.store

        async def meanwhile(letters: Sequence[Letter], changes: Sequence[Change] = ()) -> None:
            await store(letters, changes)
            if changes:
                loop.runner.gone([changes[0].part])

        loop.spool.store = meanwhile  # type: ignore[method-assign]
        loop.carrier.answer = always(DEFERRED)
        await loop.runner.keep(letter(), [UNTRIED])
        await loop.pass_time(DAY)
        assert loop.spool.calls.count("lease") == 1


async def test_what_is_released_during_an_attempt_goes_on_by_the_schedule() -> None:
    async with running() as loop:
        gate = loop.carrier.gates["a.test"] = asyncio.Event()
        loop.carrier.answer = always(DEFERRED)
        await loop.runner.keep(letter(), [UNTRIED])
        await rest()
        loop.runner.gone([Part("id1", 0)])
        loop.runner.changed([waiting_of(loop.spool.letters["id1"], 0)])
        gate.set()
        await loop.pass_time(70)
        assert len(loop.carrier.offered) == 2, "once then, and once by the schedule"


# The owner


async def test_a_thousand_failures_make_one_mail() -> None:
    async with running() as loop:
        loop.carrier.answer = lambda d: DELIVERED if d.destination.address.domain == "home.test" else REFUSED
        for n in range(1000):
            await loop.runner.keep(letter(id=f"x{n}", bounceable=False), [REFUSED])
        await loop.pass_time(290)
        assert loop.carrier.offered == []
        await loop.pass_time(20)
        (notice,) = loop.carrier.offered
        assert notice.sender is None
        assert b"1000 deliveries are held" in b"".join(notice.content.chunks())
        held = [one.progress[0] for one in loop.spool.letters.values()]
        assert len(held) == 1000 and not any(progress.untold for progress in held)
        assert sum(len(changes) == 1000 for _, changes in loop.spool.stores) == 1
        await loop.pass_time(DAY)
        assert len(loop.carrier.offered) == 1


async def test_there_is_at_most_one_notice_an_hour() -> None:
    async with running() as loop:
        for n in range(30):
            await loop.runner.keep(letter(id=f"x{n}", bounceable=False), [REFUSED])
            await loop.pass_time(240)
        await loop.pass_time(3600)
        assert len(loop.carrier.offered) == 3


async def test_what_is_untold_survives_a_restart() -> None:
    spool = MemorySpool()
    await make(spool).runner.keep(letter(bounceable=False), [REFUSED])
    async with running(spool) as loop:
        await loop.pass_time(310)
        assert len(loop.carrier.offered) == 1
    async with running(spool) as loop:
        await loop.pass_time(DAY)
        assert loop.carrier.offered == []


@pytest.mark.parametrize("method", ["find", "store"])
async def test_a_notice_that_cannot_be_made_is_made_later(method: str) -> None:
    async with running() as loop:
        await loop.runner.keep(letter(bounceable=False), [REFUSED])
        loop.spool.fail(method, times=2)
        await loop.pass_time(1000)
        assert len(loop.carrier.offered) == 1
        assert not loop.spool.letters["id1"].progress[0].untold


async def test_a_notice_that_cannot_be_delivered_is_held_with_an_alert_and_no_other_notice() -> None:
    async with running() as loop:
        loop.carrier.answer = always(REFUSED)
        await loop.runner.keep(letter(bounceable=False), [REFUSED])
        await loop.pass_time(DAY)
        assert len(loop.carrier.offered) == 1
        assert sorted(one.kind.value for one in loop.spool.letters.values()) == ["mail", "notice"]
        assert len(loop.log.named("alert")) == 1


async def test_a_dsn_that_cannot_be_delivered_is_told_to_the_owner() -> None:
    async with running() as loop:
        loop.carrier.answer = lambda d: DELIVERED if d.destination.address.domain == "home.test" else REFUSED
        await loop.runner.keep(letter(), [UNTRIED])
        await loop.pass_time(310)
        assert [m.deliveries[0].destination.address.domain for m in loop.carrier.offered] == [
            "a.test",
            "stranger.test",
            "home.test",
        ]


# The end


async def test_a_drain_lets_what_is_under_way_end() -> None:
    loop = make()
    await loop.start()
    gate = loop.carrier.gates["a.test"] = asyncio.Event()
    await loop.runner.keep(letter(id="one"), [UNTRIED])
    await rest()
    draining = asyncio.create_task(loop.runner.drain(60))
    await rest()
    await loop.runner.keep(letter("x@b.test", id="two"), [UNTRIED])
    gate.set()
    await draining
    assert loop.spool.state("one") is State.DELIVERED
    assert loop.carrier.ids == ["one"], "nothing new is begun, though it is still taken"
    assert loop.spool.state("two") is State.QUEUED
    await loop.tasks[0]


async def test_a_drain_gives_back_what_does_not_end() -> None:
    loop = make()
    await loop.start()
    loop.carrier.gates["a.test"] = asyncio.Event()
    await loop.runner.keep(letter(id="one"), [UNTRIED])
    await loop.runner.keep(letter("x@b.test", id="two"), [RUNNING])
    await rest()
    assert len(loop.spool.leased) == 2
    await loop.stop()
    assert loop.spool.leased == set()
    assert loop.spool.state("one") is State.QUEUED
    again = make(loop.spool)
    await again.start()
    await again.pass_time(70)
    assert loop.spool.letters == {}
    await again.stop()


async def test_what_was_not_begun_is_given_back_as_it_was() -> None:
    one = make()
    one.carrier.answer = lambda delivery: UNTRIED
    await one.spool.store([letter("a@a.test")])
    before = await one.spool.waiting()
    await one.start()
    await one.stop()
    assert one.carrier.ids == ["id1"]
    assert await one.spool.waiting() == before
    assert await one.spool.lease([waiting.part for waiting in before]) == [waiting.part for waiting in before]


async def test_a_drain_says_what_could_not_be_recorded() -> None:
    loop = make()
    await loop.start()
    await loop.runner.keep(letter(), [UNTRIED])
    loop.spool.fail("store")
    await rest()
    await loop.stop()
    assert "could not be recorded" in str(loop.log.named("alert")[-1])


async def test_other_settings_count_from_then_on() -> None:
    async with running(bounds=Bounds(per_lane=1)) as loop:
        loop.carrier.gates["a.test"] = asyncio.Event()
        for n in range(5):
            await loop.runner.keep(letter(id=f"x{n}"), [UNTRIED])
        await rest()
        assert loop.carrier.at_once == 1
        loop.runner.reconfigure(replace(loop.runner._settings, bounds=Bounds(per_lane=3)))
        await loop.runner.keep(letter(id="more"), [UNTRIED])
        await rest()
        assert loop.carrier.at_once == 3
        loop.carrier.gates["a.test"].set()
        await rest()


async def test_the_loop_never_sleeps_longer_than_half_a_minute() -> None:
    async with running() as loop:
        assert [at - loop.clock.ticks for at, waker in loop.clock.sleepers if not waker.done()] == [30.0]
