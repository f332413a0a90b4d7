from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from forwarder.model.address import Address, parse_mailbox
from forwarder.rules.cases import STRANGER
from forwarder.rules.explain import Verdict, explain
from tests.rules.made import TODAY, made

RULES = made(
    "shop from *@shop.com -> s@m.com\nshop -> team@example.org\nteam -> a@m.com, b@m.com until 2027-01-31\n"
    "plain -> p@m.com\nhere -> team@example.org\nn* -> n@m.com\n/n(.*)/ -> \\1@m.com\n* -> all@m.com"
)


def told(local: str, sender: str | None = None, day: date = TODAY) -> list[tuple[int, str, str, str]]:
    who = parse_mailbox(sender) if sender else STRANGER
    explanation = explain(RULES, Address(local, "example.org"), who, day)
    return [
        (step.depth, c.what, c.verdict.name, str(c.rule.place) if c.rule else "")
        for step in explanation.steps
        for c in step.considered
    ]


def test_every_rule_that_was_asked_and_those_that_were_not() -> None:
    assert told("shop+x") == [
        (0, "exactly shop+x", "NONE", ""),
        (0, "shop", "OTHER_SENDER", "t.rules:2"),
        (0, "shop", "TAKEN", "t.rules:3"),
        (0, "2 globs and expressions", "LATER", ""),
        (0, "*", "LATER", "t.rules:9"),
        (1, "team", "TAKEN", "t.rules:4"),
        (1, "2 globs and expressions", "LATER", ""),
        (1, "*", "LATER", "t.rules:9"),
    ]


def test_a_sender_of_its_own() -> None:
    assert told("shop", "a@shop.com")[:2] == [(0, "shop", "TAKEN", "t.rules:2"), (0, "shop", "LATER", "t.rules:3")]


def test_an_expired_rule_is_named() -> None:
    assert (0, "team", "EXPIRED", "t.rules:4") in told("team", day=date(2027, 2, 1))


def test_the_fallback_is_named() -> None:
    assert (0, "postmaster of the configuration", "TAKEN", "postmaster of the configuration") in told("abuse")


def test_domains_that_are_not_ours_have_no_steps() -> None:
    explanation = explain(RULES, Address("a", "x.com"), None, TODAY)
    assert explanation.steps == ()


@given(
    st.sampled_from(["shop", "team", "plain", "PLAIN", "plain+x", "here", "nx", "n", "zzz", "abuse", "+", "shop+"]),
    st.sampled_from([None, STRANGER]),
)
def test_the_explanation_and_the_resolution_agree(local: str, sender: Address | None) -> None:
    address = Address(local, "example.org")
    explanation = explain(RULES, address, sender, TODAY)
    assert explanation.decision == RULES.resolve(address, sender, TODAY)
    taken = [c for step in explanation.steps for c in step.considered if c.verdict is Verdict.TAKEN]
    assert len(taken) == len(explanation.steps)
