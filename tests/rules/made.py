"""Rules made from text, in few words."""

from datetime import date

import pytest

from forwarder.model.address import Address, parse_mailbox
from forwarder.rules import Decision, RulesError, RuleSet, parse
from forwarder.rules.cases import STRANGER, in_words, sender_of

POSTMASTER = Address("master", "elsewhere.example")
TODAY = date(2026, 11, 22)


def made(text: str, header: str = "[example.org]\n") -> RuleSet:
    """Parse rules for example.org, which must be sound."""
    return parse([("t.rules", header + text)], POSTMASTER)


def decided(rules: RuleSet | str, local: str, sender: str | None = None, day: date = TODAY) -> Decision:
    """Resolve a local part at example.org, or a whole address."""
    address = local if "@" in local else f"{local}@example.org"
    rules = made(rules) if isinstance(rules, str) else rules
    return rules.resolve(parse_mailbox(address), STRANGER if sender is None else sender_of(sender), day)


def said(rules: RuleSet | str, local: str, sender: str | None = None, day: date = TODAY) -> str:
    """Resolve, and say it as a case would."""
    return in_words(decided(rules, local, sender, day))


def problems(text: str, header: str = "[example.org]\n", postmaster: Address = POSTMASTER) -> list[str]:
    """Parse rules that must be wrong; give `line:column: reason` of each problem."""
    with pytest.raises(RulesError) as caught:
        parse([("t.rules", header + text)], postmaster)
    return [str(problem).removeprefix("t.rules:") for problem in caught.value.problems]
