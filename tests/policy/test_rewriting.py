"""What is done about mail that would fail DMARC behind us."""

from dataclasses import replace
from itertools import product

import pytest

from forwarder.model.reply import Reply
from forwarder.policy.rewriting import Action, Course, Foreseen, Otherwise, Rewriting, Wishes, decide

LOST = "only SPF passed here, and SPF does not survive forwarding"
FAILS = Foreseen("fail", "reject", passed_here=True, author="example.org", reason=LOST)
NEVER, NEEDED, ALWAYS = Rewriting
FORWARD, REJECT = Otherwise


@pytest.mark.parametrize(
    ("rewriting", "otherwise", "none", "quarantine", "reject"),
    [
        (NEVER, FORWARD, "forward", "forward", "forward"),
        (NEVER, REJECT, "forward", "refuse", "refuse"),
        (NEEDED, FORWARD, "forward", "rewrite", "rewrite"),
        (NEEDED, REJECT, "forward", "rewrite", "rewrite"),
        (ALWAYS, FORWARD, "rewrite", "rewrite", "rewrite"),
        (ALWAYS, REJECT, "rewrite", "rewrite", "rewrite"),
    ],
)
def test_the_table(rewriting: Rewriting, otherwise: Otherwise, none: str, quarantine: str, reject: str) -> None:
    for policy, action in (("none", none), ("quarantine", quarantine), ("reject", reject)):
        course = decide(Wishes(rewriting, otherwise), replace(FAILS, policy=policy))
        assert (course.action, course.reason) == (Action(action), LOST)


@pytest.mark.parametrize(
    ("rewriting", "otherwise", "none", "reject"),
    [
        (NEVER, FORWARD, "forward", "forward"),
        (NEEDED, FORWARD, "forward", "forward"),
        (NEEDED, REJECT, "forward", "refuse"),
        (ALWAYS, FORWARD, "forward", "forward"),
        (ALWAYS, REJECT, "forward", "refuse"),
    ],
)
def test_what_cannot_be_rewritten(rewriting: Rewriting, otherwise: Otherwise, none: str, reject: str) -> None:
    wishes = Wishes(rewriting, otherwise)
    for policy, action in (("none", none), ("reject", reject)):
        course = decide(wishes, replace(FAILS, policy=policy), "we have no key for ours.example")
        assert course.action is Action(action)
        said = rewriting is ALWAYS or (rewriting is NEEDED and policy == "reject")
        assert ("; From is not rewritten: we have no key for ours.example" in course.reason) == said


@pytest.mark.parametrize(
    "foreseen",
    [replace(FAILS, expected="pass"), replace(FAILS, expected="none"), replace(FAILS, passed_here=False)],
)
def test_what_needs_nothing_is_never_touched(foreseen: Foreseen) -> None:
    for rewriting, otherwise, policy in product(Rewriting, Otherwise, ("none", "quarantine", "reject")):
        assert decide(Wishes(rewriting, otherwise), replace(foreseen, policy=policy)) == Course(Action.FORWARD)


def test_the_refusal_says_what_to_do() -> None:
    course = decide(Wishes(NEVER, REJECT), FAILS)
    assert course.reply == Reply(
        550,
        "5.7.1",
        "Forwarded, this would fail the DMARC policy of example.org (reject)\n"
        "Only SPF passed here, and SPF does not survive forwarding\n"
        "Sign your mail with DKIM for example.org",
    )


def test_the_default_is_that_mail_arrives() -> None:
    assert decide(Wishes(), FAILS).action is Action.REWRITE
    assert decide(Wishes(), FAILS, "it cannot be read").action is Action.FORWARD
