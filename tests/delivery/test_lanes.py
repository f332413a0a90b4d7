"""Which lane a delivery goes in, and which outcomes speak of all of it."""

from dataclasses import replace

import pytest

from forwarder.delivery.lanes import lane_of, speaks_of_lane, waiting_of
from forwarder.model.destination import Hop
from forwarder.model.letter import Kind, Part, is_for_bounces
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.model.ruling import Fate, Ruling, Scope
from tests.delivery.post import DEFERRED, DELIVERED, REFUSED, RUNNING, UNREACHABLE, UNTRIED, delivery, letter, ruled


def test_a_lane_is_the_hop_or_else_the_domain() -> None:
    one = delivery("me@a.test")
    assert lane_of(one) == "a.test"
    via = replace(one, destination=replace(one.destination, via=Hop("192.0.2.1", 2525)))
    assert lane_of(via) == "[192.0.2.1]:2525"


def test_what_waits_is_named_by_letter_and_number() -> None:
    waiting = waiting_of(letter("a@a.test", "b@b.test"), 1)
    assert (waiting.part, waiting.lane, waiting.trusted) == (Part("id1", 1), "b.test", True)


def test_bounces_have_lanes_of_their_own() -> None:
    mail, dsn = (waiting_of(letter(kind=kind), 0).lane for kind in (Kind.MAIL, Kind.BOUNCE))
    assert mail != dsn
    assert (is_for_bounces(mail), is_for_bounces(dsn)) == (False, True)


def local(enhanced: str) -> Outcome:
    return Outcome(Verdict.DEFERRED, Reply(451, enhanced, "x"))


SLOW_DOWN = ruled(DEFERRED, Fate.RETRY, Scope.DESTINATION, wait=600.0)


@pytest.mark.parametrize(
    ("outcome", "whole"),
    [
        (DELIVERED, False),
        (REFUSED, False),
        (DEFERRED, False),
        (RUNNING, False),
        (UNTRIED, False),
        (UNREACHABLE, True),
        (local("4.4.3"), True),
        (local("4.4.5"), False),  # too many connections of ours
        (local("4.3.0"), False),  # a fault of ours with this message
        (replace(UNREACHABLE, relay="mx.a.test[192.0.2.1]:25"), False),  # it broke off later: maybe the message's doing
        (SLOW_DOWN, True),
        (replace(SLOW_DOWN, wait=0.0), False),
        (ruled(REFUSED, Fate.OURS, Scope.ADDRESS, wait=600.0), True),
        (ruled(DEFERRED, Fate.RETRY, Scope.MAILBOX, wait=600.0), False),
        (ruled(DEFERRED, Fate.RETRY, Scope.SENDER, wait=600.0), False),
        (replace(SLOW_DOWN, ruling=Ruling("x", Scope.ADDRESS, Fate.RETRY, elsewhere=True)), False),
    ],
)
def test_what_speaks_of_the_whole_lane(outcome: Outcome, whole: bool) -> None:
    assert speaks_of_lane(outcome) is whole
