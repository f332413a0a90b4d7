"""What DMARC refuses behind us is offered once more: nobody is told, nothing is lost, and it is done in one step."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count

import pytest

from forwarder.delivery.settlement import Settlement, SettlementSettings
from forwarder.model.letter import Kind, Letter, Part, Progress, State
from forwarder.model.message import Delivery, Outgoing
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.model.ruling import Fate, Ruling, Scope
from tests.delivery.loop import rest, running
from tests.delivery.memory_spool import MemorySpool
from tests.delivery.post import DEFERRED, DELIVERED, REFUSED, RUNNING, delivery, letter, settings
from tests.fakes import FakeClock

NEW_HEAD = b"From: ours\r\n"


def refused(name: str = "dmarc", verdict: Verdict = Verdict.REFUSED) -> Outcome:
    ruling = Ruling(name, Scope.MESSAGE, Fate.RETURN)
    return Outcome(verdict, Reply(550, "5.7.26", "DMARC"), "mx.a.test[192.0.2.1]:25", remote=True, ruling=ruling)


class Reworking:
    """Gives every delivery another head, once, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[int]]] = []
        self.refuses = False

    def __call__(self, one: Letter, numbers: Sequence[int]) -> Outgoing | None:
        self.asked.append((one.message.id, list(numbers)))
        chosen = [one.message.deliveries[n] for n in numbers]
        if self.refuses or chosen[0].head == NEW_HEAD:
            return None
        made = tuple(replace(each, head=NEW_HEAD) for each in chosen)
        return replace(one.message, id=f"{one.message.id}-again{len(self.asked)}", deliveries=made)


def settlement(rework: Reworking) -> Settlement:
    numbers = count(1)
    chosen = settings(rework=rework, delay_after=50.0)
    return Settlement(chosen, FakeClock(), random.Random(1), lambda: f"dsn{next(numbers)}")


# Settling


@pytest.mark.parametrize("name", ["dmarc", "alignment"])
def test_it_goes_on_as_a_letter_of_its_own_and_nobody_is_told(name: str) -> None:
    one = replace(
        letter(delivery("a@a.test", "SUCCESS")),
        author="Writer",
        message_id="<1@x>",
        progress=(Progress(State.QUEUED, attempts=7, waited=600.0, noticed=1),),
    )
    settled = settlement(Reworking()).settle(one, {0: refused(name)}, {0: 60.0})
    (change,) = settled.changes
    assert (change.progress.state, change.progress.due, change.progress.attempts) == (State.REPLACED, None, 8)
    assert change.progress.reply == "550 5.7.26 DMARC"
    assert change.progress.state.final
    (made,) = settled.letters
    assert made.progress == (Progress(State.QUEUED, FakeClock().now(), waited=660.0, noticed=1),)
    assert (made.message.id, made.message.deliveries[0].head) == ("id1-again1", NEW_HEAD)
    assert made.message.deliveries[0].options == one.message.deliveries[0].options
    kept = ("kind", "received", "author", "message_id", "bounceable")
    assert [getattr(made, each) for each in kept] == [getattr(one, each) for each in kept]
    (event,) = settled.events
    assert (event.name, event.fields["id"], event.fields["again"]) == ("rewritten", "id1", "id1-again1")
    assert settled.again == {}


def test_where_it_cannot_be_the_sender_is_told() -> None:
    rework = Reworking()
    rework.refuses = True
    settled = settlement(rework).settle(letter(), {0: refused()}, {0: 60.0})
    assert [change.progress.state for change in settled.changes] == [State.BOUNCED]
    assert [each.kind for each in settled.letters] == [Kind.BOUNCE]


@pytest.mark.parametrize(
    "outcome", [REFUSED, DEFERRED, DELIVERED, refused(verdict=Verdict.DEFERRED), refused("made up")]
)
def test_nothing_else_is_offered_once_more(outcome: Outcome) -> None:
    rework = Reworking()
    settlement(rework).settle(letter(), {0: outcome}, {0: 60.0})
    assert rework.asked == []


@pytest.mark.parametrize("kind", [Kind.BOUNCE, Kind.NOTICE])
def test_messages_of_ours_are_not(kind: Kind) -> None:
    rework = Reworking()
    settlement(rework).settle(letter(kind=kind, sender=None), {0: refused()}, {0: 60.0})
    assert rework.asked == []


def test_what_the_session_offered_has_been_offered_again_there() -> None:
    rework = Reworking()
    settled = settlement(rework).take(letter("a@a.test", "b@b.test"), [refused(), DEFERRED])
    assert rework.asked == []
    assert settled.letter.progress[0].state is State.BOUNCED


@pytest.mark.parametrize("state", [State.HELD, State.DELETED, State.REPLACED])
def test_what_is_out_of_the_queue_stays_so(state: State) -> None:
    rework = Reworking()
    settled = settlement(rework).settle(letter(progress=[Progress(state)]), {0: refused()}, {0: 60.0})
    assert (rework.asked, settled.changes, settled.letters) == ([], (), ())


def test_the_destinations_of_one_address_go_on_together() -> None:
    rework = Reworking()
    to = [delivery(f"{n}@a.test", alias=alias) for n, alias in enumerate(("x@o.test", "y@o.test", "x@o.test"))]
    settled = settlement(rework).settle(letter(*to), dict.fromkeys(range(3), refused()), {})
    assert rework.asked == [("id1", [0, 2]), ("id1", [1])]
    assert [[str(d.destination.address) for d in each.message.deliveries] for each in settled.letters] == [
        ["0@a.test", "2@a.test"],
        ["1@a.test"],
    ]
    assert [event.fields["again"] for event in settled.events] == ["id1-again1", "id1-again2", "id1-again1"]


def test_another_refusal_is_told_without_it() -> None:
    settled = settlement(Reworking()).settle(letter("a@a.test", "b@b.test"), {0: refused(), 1: REFUSED}, {})
    assert [change.progress.state for change in settled.changes] == [State.REPLACED, State.BOUNCED]
    made, dsn = settled.letters
    assert (made.kind, dsn.kind) == (Kind.MAIL, Kind.BOUNCE)
    octets = b"".join(dsn.message.content.chunks())
    assert b"b.b.test@ours.test" in octets and b"a.a.test@ours.test" not in octets


def test_a_success_is_told_once_by_the_letter_that_went_on() -> None:
    settling = settlement(Reworking())
    to = [delivery(f"{n}@a.test", "SUCCESS", alias="x@o.test") for n in range(2)]
    first = settling.settle(letter(*to), {0: DELIVERED, 1: refused()}, {})
    (made,) = first.letters
    second = settling.settle(made, {0: DELIVERED}, {})
    assert [each.kind for each in second.letters] == [Kind.BOUNCE]
    assert b"Action: relayed" in b"".join(second.letters[0].message.content.chunks())


def test_a_delay_is_told_once_whichever_letter_goes_on() -> None:
    settling = settlement(Reworking())
    to = [delivery(f"{n}@a.test", "DELAY", alias="x@o.test") for n in range(2)]
    late = settling.settle(letter(*to), {0: DEFERRED}, {0: 60.0})
    assert [each.kind for each in late.letters] == [Kind.BOUNCE]
    (made,) = settling.settle(late.letter, {1: refused()}, {1: 60.0}).letters
    assert settling.settle(made, {0: DEFERRED}, {0: 60.0}).letters == ()


# In the loop


def by_head(answer: Outcome) -> Callable[[Delivery], Outcome]:
    return lambda each: answer if each.head == NEW_HEAD else refused()


def chosen(rework: Reworking) -> SettlementSettings:
    return settings(rework=rework)


async def test_after_a_deferral_it_is_refused_and_offered_once_more() -> None:
    async with running(chosen=chosen(Reworking())) as loop:
        loop.carrier.answer = by_head(DELIVERED)
        await loop.runner.keep(letter(), [DEFERRED])
        await loop.pass_time(70)
        assert loop.carrier.ids == ["id1", "id1-again1"]
        assert loop.spool.letters == {}
        assert [name for name, _ in loop.log.events] == ["queued", "rewritten", "queued", "delivered"]
        assert loop.log.named("queued")[1]["regarding"] == "id1"


async def test_an_attempt_that_ran_on_is_like_any_other() -> None:
    async with running(chosen=chosen(Reworking())) as loop:
        loop.carrier.answer = by_head(DELIVERED)
        await loop.runner.keep(letter(), [RUNNING])
        loop.runner.settled(Part("id1", 0), refused())
        await rest()
        assert loop.carrier.ids == ["id1-again1"]
        assert loop.spool.letters == {}


async def test_the_old_part_and_the_new_letter_are_one_step() -> None:
    """So a crash leaves the part to be tried again, or the letter that carries it on; never both, never neither."""
    async with running(chosen=chosen(Reworking())) as loop:
        loop.carrier.answer = by_head(DEFERRED)
        await loop.runner.keep(letter(), [DEFERRED])
        await loop.pass_time(70)
        steps = [
            ([each.message.id for each in letters], [(c.part, c.progress.state) for c in changes])
            for letters, changes in loop.spool.stores
        ]
        assert (["id1-again1"], [(Part("id1", 0), State.REPLACED)]) in steps


async def test_it_is_tried_once_and_then_its_sender_is_told() -> None:
    async with running(chosen=chosen(Reworking())) as loop:
        loop.carrier.answer = lambda each: (
            DELIVERED if each.destination.address.domain == "stranger.test" else refused()
        )
        await loop.runner.keep(letter(), [DEFERRED])
        await loop.pass_time(70)
        assert loop.carrier.ids == ["id1", "id1-again1", "own0"]
        assert len(loop.log.named("bounced")) == len(loop.log.named("rewritten")) == 1


async def test_after_a_restart_it_goes_on_as_what_it_became() -> None:
    spool = MemorySpool()
    rework = Reworking()
    async with running(spool, chosen=chosen(rework)) as first:
        first.carrier.answer = by_head(DEFERRED)
        await first.runner.keep(letter(), [DEFERRED])
        await first.pass_time(70)
    async with running(spool, chosen=chosen(rework)) as second:
        await second.pass_time(400)
        assert second.carrier.ids == ["id1-again1"]
    assert len(rework.asked) == 1
    assert spool.letters == {}


# One address of ours with two destinations: its sender is told once, by one of the two letters


def both(*notify: str) -> Letter:
    return letter(*(delivery(to, *notify, alias="x@ours.test") for to in ("a@a.test", "b@b.test")))


def dsns(*found: Sequence[Letter]) -> list[Letter]:
    return [one for letters in found for one in letters if one.kind is Kind.BOUNCE]


@pytest.mark.parametrize("last", [REFUSED, refused()])
def test_who_was_told_of_the_first_is_not_told_of_the_second(last: Outcome) -> None:
    decide = settlement(Reworking())
    first = decide.settle(both(), {0: REFUSED}, {0: 0.0})
    second = decide.settle(first.letter, {1: refused()}, {1: 0.0})
    (again,) = second.letters
    third = decide.settle(again, {0: last}, {0: 0.0})
    assert len(dsns(first.letters, second.letters, third.letters)) == 1
    assert (third.letter.progress[0].state, third.letter.progress[0].untold) == (State.HELD, True)


@pytest.mark.parametrize("at_once", [False, True])
def test_what_is_left_behind_is_the_owners_to_know(at_once: bool) -> None:
    decide = settlement(Reworking())
    if at_once:
        first = last = decide.settle(both(), {0: refused(), 1: REFUSED}, {0: 0.0, 1: 0.0})
    else:
        first = decide.settle(both(), {0: refused()}, {0: 0.0})
        last = decide.settle(first.letter, {1: REFUSED}, {1: 0.0})
    assert (last.letter.progress[1].state, last.letter.progress[1].untold) == (State.HELD, True)
    assert dsns(first.letters, last.letters) == []
    third = decide.settle(first.letters[0], {0: REFUSED}, {0: 0.0})
    assert len(dsns(third.letters)) == 1


def test_a_success_is_told_by_the_new_letter_alone() -> None:
    decide = settlement(Reworking())
    first = decide.settle(both("SUCCESS", "FAILURE"), {0: refused()}, {0: 0.0})
    left = decide.settle(first.letter, {1: DELIVERED}, {1: 0.0})
    again = decide.settle(first.letters[0], {0: DELIVERED}, {0: 0.0})
    assert (len(dsns(left.letters)), len(dsns(again.letters))) == (0, 1)


def test_of_what_is_late_only_the_new_letter_tells() -> None:
    decide = settlement(Reworking())
    first = decide.settle(both(), {0: refused()}, {0: 0.0})
    left = decide.settle(first.letter, {1: DEFERRED}, {1: 60.0})
    again = decide.settle(first.letters[0], {0: DEFERRED}, {0: 60.0})
    assert (len(dsns(left.letters)), len(dsns(again.letters))) == (0, 1)
