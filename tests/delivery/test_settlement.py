"""What becomes of each part: exactly one state, and never a DSN to somebody who may not get one."""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.delivery.intervals import Intervals
from forwarder.delivery.settlement import Settled, Settlement, bare
from forwarder.model.address import parse_mailbox
from forwarder.model.destination import Destination
from forwarder.model.letter import Kind, Letter, Part, Progress, State
from forwarder.model.outcome import Outcome
from forwarder.model.reply import Reply
from forwarder.model.ruling import Fate
from tests.delivery.post import (
    DEFERRED,
    DELIVERED,
    REFUSED,
    RUNNING,
    UNTRIED,
    delivery,
    letter,
    ruled,
    settings,
)
from tests.fakes import FakeClock

OLD = Progress(State.QUEUED, attempts=50, waited=431_000.0)


def settlement(**more: object) -> Settlement:
    numbers = count(1)
    return Settlement(settings(**more), FakeClock(), random.Random(1), lambda: f"dsn{next(numbers)}")


def settle(one: Letter, *outcomes: Outcome, waited: float = 60.0, **more: object) -> Settled:
    return settlement(**more).settle(one, dict(enumerate(outcomes)), dict.fromkeys(range(len(outcomes)), waited))


def names(settled: Settled) -> list[str]:
    return [event.name for event in settled.events]


def states(settled: Settled) -> list[State]:
    return [change.progress.state for change in settled.changes]


def octets(one: Letter) -> str:
    return b"".join(one.message.content.chunks()).decode()


def test_a_delivered_part_is_done() -> None:
    settled = settle(letter(), DELIVERED)
    assert states(settled) == [State.DELIVERED]
    assert (settled.letters, settled.again, names(settled)) == ((), {}, ["delivered"])


def test_a_deferred_part_is_queued_again_with_what_was_said() -> None:
    one = settlement()
    settled = one.settle(letter(), {0: DEFERRED}, {0: 61.0})
    progress = settled.changes[0].progress
    assert (progress.state, progress.attempts, progress.waited) == (State.QUEUED, 2, 61.0)
    assert (progress.reply, progress.relay) == ("451 4.3.0 later", DEFERRED.relay)
    seconds = settled.again[Part("id1", 0)]
    assert 270.0 <= seconds <= 330.0
    assert progress.due == FakeClock().now() + timedelta(seconds=seconds)
    assert names(settled) == ["deferred"]
    fields = settled.events[0].fields
    assert (fields["id"], fields["to"], fields["destination"]) == ("id1", "me.a.test@ours.test", "me@a.test")
    assert (fields["code"], fields["attempts"], fields["relay"]) == (451, 2, DEFERRED.relay)


def test_parts_that_fail_together_are_tried_together() -> None:
    settled = settle(letter("a@a.test", "b@a.test"), DEFERRED, DEFERRED)
    assert len(set(settled.again.values())) == 1


@pytest.mark.parametrize(("wait", "low", "high"), [(5.0, 270, 330), (7000.0, 7000, 7000), (1e9, 14_400, 14_400)])
def test_a_next_hop_can_ask_for_a_longer_wait_but_not_for_ever(wait: float, low: float, high: float) -> None:
    settled = settle(letter(), ruled(DEFERRED, Fate.RETRY, wait=wait))
    assert low <= settled.again[Part("id1", 0)] <= high


def test_a_refused_part_is_returned_to_its_sender() -> None:
    settled = settle(letter(), REFUSED)
    assert (states(settled), names(settled)) == ([State.BOUNCED], ["bounced"])
    (dsn,) = settled.letters
    assert (dsn.kind, dsn.message.sender, dsn.message.original_sender) == (Kind.BOUNCE, None, None)
    assert str(dsn.message.deliveries[0].destination.address) == "writer@stranger.test"
    assert dsn.message.deliveries[0].head == b""
    assert dsn.progress == (Progress(State.QUEUED, FakeClock().now()),)
    assert "Action: failed" in octets(dsn) and "nobody here" in octets(dsn) and "Status: 5.1.1" in octets(dsn)
    assert not dsn.bounceable


def test_several_failures_at_once_make_one_dsn() -> None:
    settled = settle(letter("a@a.test", "b@a.test", "c@a.test"), REFUSED, DELIVERED, REFUSED)
    assert states(settled) == [State.BOUNCED, State.DELIVERED, State.BOUNCED]
    (dsn,) = settled.letters
    assert "a.a.test@ours.test" in octets(dsn) and "c.a.test@ours.test" in octets(dsn)
    assert "b.a.test@ours.test" not in octets(dsn)


def test_an_address_that_leads_to_two_destinations_is_told_of_once() -> None:
    both = (delivery("a@a.test", alias="x@ours.test"), delivery("b@b.test", alias="X@ours.test"))
    one = settlement()
    first = one.settle(letter(*both), {0: REFUSED}, {0: 0.0})
    second = one.settle(first.letter, {1: REFUSED}, {1: 0.0})
    assert len(first.letters) == 1 and second.letters == ()
    assert states(second) == [State.BOUNCED]


@pytest.mark.parametrize(
    "one",
    [
        letter(sender=None),
        letter(bounceable=False),
        letter(delivery("me@a.test", "NEVER")),
        letter(delivery("me@a.test", "SUCCESS", "DELAY")),
        letter(kind=Kind.BOUNCE),
    ],
    ids=["null sender", "not bounceable", "NOTIFY=NEVER", "NOTIFY without FAILURE", "a DSN"],
)
@pytest.mark.parametrize("outcome", [REFUSED, DEFERRED])
def test_where_the_sender_may_not_be_told_the_owner_is(one: Letter, outcome: Outcome) -> None:
    settled = settle(replace(one, progress=(OLD,)), outcome, waited=3600.0)
    assert (states(settled), settled.letters) == ([State.HELD], ())
    assert settled.changes[0].progress.untold
    assert names(settled)[-1] == "held"


def test_a_sender_that_leads_nowhere_is_not_told() -> None:
    settled = settle(letter(), REFUSED, where=lambda address: ())
    assert (states(settled), settled.letters) == ([State.HELD], ())


def test_a_sender_of_ours_is_told_where_its_mail_goes() -> None:
    places = (Destination(parse_mailbox("one@a.test")), Destination(parse_mailbox("two@b.test")))
    (dsn,) = settle(letter(), REFUSED, where=lambda address: places).letters
    assert tuple(d.destination for d in dsn.message.deliveries) == places
    assert len(dsn.progress) == 2


def test_a_dsn_to_an_address_beyond_ascii_says_so() -> None:
    (dsn,) = settle(letter(sender="jürgen@stranger.test"), REFUSED).letters
    assert dsn.message.options.smtputf8


def test_a_notice_that_fails_is_held_and_told_to_nobody() -> None:
    settled = settle(letter(kind=Kind.NOTICE, sender=None), REFUSED)
    assert states(settled) == [State.HELD]
    assert not settled.changes[0].progress.untold


def test_a_dead_destination_is_held() -> None:
    settled = settle(letter(), ruled(REFUSED, Fate.HOLD))
    assert (states(settled), settled.letters) == ([State.HELD], ())
    assert settled.changes[0].progress.untold


def test_a_dead_destination_is_told_to_a_sender_who_has_just_been() -> None:
    settled = settlement().take(letter(), [ruled(REFUSED, Fate.HOLD)])
    assert states(settled) == [State.BOUNCED]
    assert len(settled.letters) == 1
    settled = settlement().take(letter(bounceable=False), [ruled(REFUSED, Fate.HOLD)])
    assert (states(settled), settled.letters) == ([State.HELD], ())


class TestTheOperatorGivesUp:
    REASON = Reply(550, "5.7.1", "the administrator has given it up")

    def test_the_sender_is_told_of_the_parts_that_were_chosen(self) -> None:
        one = letter("a@a.test", "b@b.test", progress=(OLD, replace(OLD, state=State.HELD, untold=True)))
        letters, changes = settlement().bounce(one, [1], self.REASON)
        assert [(change.part.number, change.progress.state) for change in changes] == [(1, State.BOUNCED)]
        (dsn,) = letters
        assert "given it up" in octets(dsn)
        assert dsn.kind is Kind.BOUNCE

    @pytest.mark.parametrize("one", [letter(bounceable=False), letter(sender=None), letter(kind=Kind.BOUNCE)])
    def test_where_nobody_may_be_told_it_is_held_and_the_owner_knows(self, one: Letter) -> None:
        letters, (change,) = settlement().bounce(one, [0], self.REASON)
        assert letters == ()
        assert (change.progress.state, change.progress.untold) == (State.HELD, False)


def test_a_fault_of_ours_is_queued_and_held_at_its_end_but_never_bounced() -> None:
    settled = settle(letter(), ruled(REFUSED, Fate.OURS))
    assert states(settled) == [State.QUEUED]
    settled = settle(letter(progress=(OLD,)), ruled(REFUSED, Fate.OURS), waited=3600.0)
    assert (states(settled), settled.letters, names(settled)) == ([State.HELD], (), ["expired", "held"])


def test_unwelcome_content_in_custody_is_refused_after_three_attempts() -> None:
    unwelcome = ruled(DEFERRED, Fate.NEVER_QUEUE)
    assert states(settle(letter(), unwelcome)) == [State.QUEUED]
    assert states(settle(letter(progress=(Progress(State.QUEUED, attempts=2),)), unwelcome)) == [State.BOUNCED]


def test_what_expires_is_returned_with_the_last_reply() -> None:
    settled = settle(letter(progress=(OLD,)), DEFERRED, waited=1000.0)
    assert (states(settled), names(settled)) == ([State.BOUNCED], ["expired", "bounced"])
    (dsn,) = settled.letters
    assert "Status: 4.4.7" in octets(dsn) and "451 4.3.0 later" in octets(dsn)


def test_nothing_expires_without_enough_attempts() -> None:
    few = Progress(State.QUEUED, attempts=4, waited=1e9)
    assert states(settle(letter(progress=(few,)), DEFERRED)) == [State.QUEUED]
    assert not settlement().expiring(few, 0.0)
    assert settlement().expiring(replace(few, attempts=5), 0.0)


@pytest.mark.parametrize("jump", [timedelta(days=3650), timedelta(days=-1)])
def test_a_clock_that_jumps_bounces_nothing(jump: timedelta) -> None:
    clock = FakeClock()
    one = Settlement(settings(), clock, random.Random(1), lambda: "id")
    clock.time += jump
    settled = one.settle(letter(), {0: DEFERRED}, {0: 60.0})
    assert states(settled) == [State.QUEUED]
    assert settled.again[Part("id1", 0)] <= 330.0


def test_success_is_told_where_it_was_asked_for_and_the_next_hop_does_not() -> None:
    asked = letter(delivery("me@a.test", "SUCCESS"))
    (dsn,) = settle(asked, DELIVERED).letters
    assert "Action: relayed" in octets(dsn)
    assert settle(asked, replace(DELIVERED, notifies=True)).letters == ()
    assert settle(replace(asked, bounceable=False), DELIVERED).letters == ()
    assert settle(letter(), DELIVERED).letters == ()


def test_success_is_told_when_all_destinations_of_an_address_have_it() -> None:
    both = [delivery(to, "SUCCESS", "FAILURE", alias="x@ours.test") for to in ("a@a.test", "b@b.test")]
    one = settlement()
    first = one.settle(letter(*both), {0: DELIVERED}, {0: 0.0})
    assert first.letters == ()
    assert len(one.settle(first.letter, {1: DELIVERED}, {1: 0.0}).letters) == 1
    assert "Action: failed" in octets(one.settle(first.letter, {1: REFUSED}, {1: 0.0}).letters[0])


def test_delays_are_told_once_and_only_if_configured() -> None:
    late = letter(progress=(Progress(State.QUEUED, attempts=9, waited=20_000.0),))
    assert settle(late, DEFERRED).letters == ()
    settled = settle(late, DEFERRED, delay_after=14_400.0)
    (dsn,) = settled.letters
    assert "Action: delayed" in octets(dsn) and "Will-Retry-Until" in octets(dsn)
    assert (settled.changes[0].progress.noticed, states(settled)) == (1, [State.QUEUED])
    assert settle(settled.letter, DEFERRED, delay_after=14_400.0).letters == ()
    assert settle(late, DEFERRED, delay_after=30_000.0).letters == ()
    unwanted = replace(late, message=replace(late.message, deliveries=(delivery("me@a.test", "FAILURE"),)))
    assert settle(unwanted, DEFERRED, delay_after=14_400.0).letters == ()


def test_letters_of_ours_are_finished_before_they_go() -> None:
    (dsn,) = settle(letter(), REFUSED, prepare=lambda message: replace(message, id="signed")).letters
    assert dsn.message.id == "signed"


def test_what_comes_into_custody() -> None:
    to = ("a@a.test", "b@a.test", "c@a.test", "d@a.test", "e@a.test")
    settled = settlement().take(letter(*to, progress=[OLD] * 5), [DELIVERED, DEFERRED, RUNNING, UNTRIED, REFUSED])
    queued = State.QUEUED
    assert states(settled) == [State.DELIVERED, queued, queued, queued, State.BOUNCED]
    assert [change.progress.attempts for change in settled.changes] == [1, 1, 0, 0, 1]
    assert settled.again[Part("id1", 3)] == 0.0
    assert 54.0 <= settled.again[Part("id1", 1)] == settled.again[Part("id1", 2)] <= 66.0
    assert names(settled) == ["queued", "queued", "queued", "bounced"], "the courier has told of what was delivered"
    assert settled.letter.progress == tuple(change.progress for change in settled.changes)


def test_the_end_of_what_was_running_is_its_first_attempt() -> None:
    one = settlement()
    kept = one.take(letter(), [RUNNING]).letter
    assert one.settle(kept, {0: DEFERRED}, {0: 30.0}).changes[0].progress.attempts == 1


def test_what_was_not_tried_again_is_not_counted() -> None:
    settled = settle(letter(), UNTRIED)
    assert settled.changes[0].progress.attempts == 1
    assert settled.again[Part("id1", 0)] >= 54.0


@pytest.mark.parametrize("state", [State.DELIVERED, State.BOUNCED, State.DELETED, State.HELD])
def test_what_is_not_queued_any_more_stays_as_it_is(state: State) -> None:
    settled = settle(letter(progress=(Progress(state),)), REFUSED)
    assert (settled.changes, settled.letters, settled.events) == ((), (), ())


def test_a_delivery_counts_though_the_part_was_held_meanwhile() -> None:
    assert states(settle(letter(progress=(Progress(State.HELD, untold=True),)), DELIVERED)) == [State.DELIVERED]


def test_when_settling_fails_what_was_delivered_is_delivered_and_the_rest_is_held() -> None:
    settled = bare(letter("a@a.test", "b@a.test"), {0: DELIVERED, 1: REFUSED})
    assert states(settled) == [State.DELIVERED, State.HELD]
    assert [change.progress.untold for change in settled.changes] == [False, True]


# Whatever happens, in whatever order


FATES = [None, *Fate]
ANY_OUTCOME = st.tuples(
    st.sampled_from([DELIVERED, DEFERRED, REFUSED, RUNNING, UNTRIED]),
    st.sampled_from(FATES),
    st.sampled_from([0.0, 5.0, 1e7]),
).map(lambda given: ruled(given[0], given[1], wait=given[2]) if given[1] else given[0])
ALIASES = st.sampled_from(["x@ours.test", "y@ours.test"])
NOTIFY = st.sampled_from([(), ("NEVER",), ("FAILURE",), ("SUCCESS",), ("SUCCESS", "FAILURE", "DELAY"), ("DELAY",)])


@st.composite
def letters(draw: st.DrawFn) -> Letter:
    notify = {alias: draw(NOTIFY) for alias in ("x@ours.test", "y@ours.test")}
    aliases = draw(st.lists(ALIASES, min_size=1, max_size=4))
    to = [delivery(f"d{n}@a.test", *notify[alias], alias=alias) for n, alias in enumerate(aliases)]
    sender = draw(st.sampled_from([None, "writer@stranger.test"]))
    kind = draw(st.sampled_from([Kind.MAIL, Kind.MAIL, Kind.MAIL, Kind.BOUNCE, Kind.NOTICE]))
    return letter(*to, sender=sender, bounceable=draw(st.booleans()), kind=kind)


def told_of(dsn: Letter, alias: str) -> bool:
    return f"Final-Recipient: rfc822; {alias}" in octets(dsn)


def life(one: Letter, settling: Settlement, data: st.DataObject) -> Iterator[Settled]:
    outcomes = [data.draw(ANY_OUTCOME) for _ in one.progress]
    settled = settling.take(one, outcomes)
    yield settled
    for _ in range(data.draw(st.integers(0, 12))):
        tried = data.draw(st.dictionaries(st.integers(0, len(one.progress) - 1), ANY_OUTCOME))
        settled = settling.settle(settled.letter, tried, dict.fromkeys(tried, data.draw(st.sampled_from([60.0, 9e4]))))
        yield settled


@given(letters(), st.data())
def test_over_any_life_a_sender_is_told_of_an_address_once_and_only_if_it_may_be(
    one: Letter, data: st.DataObject
) -> None:
    settling = settlement(intervals=Intervals(expire=2e5))
    dsns: list[Letter] = []
    for settled in life(one, settling, data):
        dsns += settled.letters
        queued = {
            Part("id1", n)
            for n, progress in enumerate(settled.letter.progress)
            if progress.state is State.QUEUED and any(change.part.number == n for change in settled.changes)
        }
        assert queued == settled.again.keys(), "what is queued has a time, and nothing else"
        assert all(0 <= seconds <= 14_400 for seconds in settled.again.values())
        numbers = [change.part.number for change in settled.changes]
        assert len(set(numbers)) == len(numbers), "one state for each part"
        for progress in settled.letter.progress:
            assert not progress.untold or (progress.state is State.HELD and one.kind is not Kind.NOTICE)
            assert (progress.due is not None) == (progress.state is State.QUEUED)
    for alias in ("x@ours.test", "y@ours.test"):
        assert sum(told_of(dsn, alias) for dsn in dsns) <= 1
    may = one.kind is Kind.MAIL and one.bounceable and one.message.original_sender is not None
    for dsn in dsns:
        assert may and dsn.kind is Kind.BOUNCE and dsn.message.sender is None
        for d in one.message.deliveries:
            assert "NEVER" not in d.options.notify or not told_of(dsn, str(d.recipient))
    for number, progress in enumerate(settled.letter.progress):
        if progress.state is State.BOUNCED:
            alias = str(one.message.deliveries[number].recipient)
            assert any(told_of(dsn, alias) for dsn in dsns), "whoever is given up on is told"
