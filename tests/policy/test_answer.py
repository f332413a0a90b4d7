"""The table of what the sender is told."""

import pytest

from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.model.ruling import Fate, Ruling, Scope
from forwarder.policy.answer import answer

TAKEN = Outcome(Verdict.DELIVERED, Reply(250, "2.0.0", "queued as X"), "a.example[192.0.2.1]:25", remote=True)
DISCARDED = Outcome(Verdict.DELIVERED, Reply(250, "2.0.0", "Discarded by a rule"))
UNKNOWN = Outcome(Verdict.REFUSED, Reply(550, "5.1.1", "no such user"), "b.example[192.0.2.2]:25", remote=True)
FULL = Outcome(Verdict.REFUSED, Reply(552, "5.2.2", "over quota"), "c.example[192.0.2.3]:25", remote=True)
BUSY = Outcome(Verdict.DEFERRED, Reply(421, "4.7.28", "slow down"), "d.example[192.0.2.4]:25", remote=True)
DOWN = Outcome(Verdict.DEFERRED, Reply(451, "4.4.1", "No next hop of e.example could be reached"))
RUNNING = Outcome(Verdict.RUNNING, Reply(451, "4.4.1", "still running"))
UNTRIED = Outcome(Verdict.UNTRIED, Reply(451, "4.4.0", "not tried yet"))
OURS = Outcome(Verdict.DEFERRED, Reply(550, "5.7.25", "no PTR"), "g.example[192.0.2.5]:25", remote=True)
LOOP = Outcome(Verdict.REFUSED, Reply(554, "5.4.6", "Mail loop"))
SPAMMY = Outcome(
    Verdict.DEFERRED,
    Reply(421, "4.7.0", "the nature of the content"),
    "g.example[192.0.2.8]:25",
    remote=True,
    ruling=Ruling("content", Scope.MESSAGE, Fate.NEVER_QUEUE),
)


@pytest.mark.parametrize(
    ("outcomes", "code", "enhanced", "said"),
    [
        ([], 250, "2.0.0", ["Accepted, id ID"]),
        ([DISCARDED], 250, "2.0.0", ["Accepted, id ID"]),
        ([DISCARDED, TAKEN], 250, "2.0.0", ["Forwarded, id ID"]),
        ([TAKEN], 250, "2.0.0", ["Forwarded, id ID"]),
        ([TAKEN, TAKEN], 250, "2.0.0", ["Forwarded, id ID"]),
        ([UNKNOWN], 550, "5.1.1", ["Refused, id ID", "b.example[192.0.2.2]:25 said: 550 5.1.1 no such user"]),
        ([UNKNOWN, FULL], 554, "5.0.0", ["no such user", "552 5.2.2 over quota"]),
        ([UNKNOWN, UNKNOWN], 550, "5.1.1", ["no such user"]),
        ([LOOP], 554, "5.4.6", ["Mail loop"]),
        ([BUSY], 451, "4.7.28", ["id ID", "d.example[192.0.2.4]:25 said: 421 4.7.28 slow down"]),
        ([DOWN], 451, "4.4.1", ["No next hop of e.example could be reached"]),
        ([RUNNING], 451, "4.4.1", ["The next hop has not answered in time"]),
        ([UNKNOWN, DOWN], 451, "4.4.1", ["could be reached"]),
        ([DISCARDED, DOWN], 451, "4.4.1", ["could be reached"]),
        ([DISCARDED, UNKNOWN], 550, "5.1.1", ["no such user"]),
        ([SPAMMY], 451, "4.7.0", ["the nature of the content"]),
    ],
)
def test_what_strangers_are_told(outcomes: list[Outcome], code: int, enhanced: str, said: list[str]) -> None:
    told = answer(outcomes, "ID")
    assert (told.reply.code, told.reply.enhanced, told.keep) == (code, enhanced, False)
    for text in said:
        assert text in told.reply.text


@pytest.mark.parametrize("outcomes", [[TAKEN, BUSY], [TAKEN, RUNNING], [TAKEN, UNKNOWN], [TAKEN, UNKNOWN, DOWN]])
@pytest.mark.parametrize("authenticated", [True, False])
def test_the_rest_of_what_was_delivered_in_part_is_kept(outcomes: list[Outcome], authenticated: bool) -> None:
    told = answer(outcomes, "ID", authenticated=authenticated)
    assert (told.reply.code, told.keep) == (250, True)


@pytest.mark.parametrize("outcomes", [[BUSY], [DOWN], [RUNNING], [UNTRIED], [UNKNOWN, DOWN], [DISCARDED, BUSY], [OURS]])
def test_what_is_open_is_kept_for_an_authenticated_sender(outcomes: list[Outcome]) -> None:
    told = answer(outcomes, "ID", authenticated=True)
    assert (told.reply.code, told.keep) == (250, True)
    assert "ID" in told.reply.text
    assert answer(outcomes, "ID").reply.code == 451


@pytest.mark.parametrize(
    "outcomes", [[UNKNOWN], [UNKNOWN, FULL], [LOOP], [DISCARDED, UNKNOWN], [SPAMMY], [SPAMMY, BUSY]]
)
def test_what_an_authenticated_sender_is_told_like_anyone_else(outcomes: list[Outcome]) -> None:
    assert answer(outcomes, "ID", authenticated=True) == answer(outcomes, "ID")
    assert not answer(outcomes, "ID").keep


def test_a_refusal_without_an_enhanced_code_gets_one_of_its_class() -> None:
    old = Outcome(Verdict.REFUSED, Reply(550, "", "go away"), "old.example[192.0.2.9]:25", remote=True)
    assert answer([old], "ID").reply.enhanced == "5.0.0"


def test_a_permanent_reply_that_counts_as_temporary_is_not_passed_on_as_permanent() -> None:
    reply = answer([OURS], "ID").reply
    assert (reply.code, reply.enhanced) == (451, "4.4.0")
    assert "550 5.7.25 no PTR" in reply.text


def test_a_refusal_of_ours_with_an_odd_code_stays_permanent() -> None:
    odd = Outcome(Verdict.REFUSED, Reply(450, "4.2.1", "odd"), "h.example[192.0.2.6]:25", remote=True)
    assert answer([odd], "ID").reply.code == 554


def test_quotes_are_bounded() -> None:
    assert answer([UNKNOWN] * 100, "ID").reply.text.count("no such user") == 4
