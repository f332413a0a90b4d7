"""Why mail for one recipient goes where it goes: every rule that was asked, in order, and what it answered."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import Enum

from forwarder.model.address import Address
from forwarder.rules.decision import Decision
from forwarder.rules.match import Level, Table
from forwarder.rules.names import Name, name_of
from forwarder.rules.resolve import walk
from forwarder.rules.rule import Kind, Rule
from forwarder.rules.ruleset import RuleSet


class Verdict(Enum):
    """What a rule, or a whole level of the precedence, answered."""

    TAKEN = "taken"
    EXPIRED = "taken, but it has expired"
    OTHER_SENDER = "from does not match"
    NONE = "no rule"
    LATER = "not reached"


@dataclass(frozen=True, slots=True)
class Considered:
    """One answer. `rule` is None where a whole level has none; `what` says in words what was looked for."""

    level: Level
    what: str
    verdict: Verdict
    rule: Rule | None


@dataclass(frozen=True, slots=True)
class Step:
    """One address that was looked up; `depth` is 0 for the recipient, 1 for what its rule names, and so on."""

    depth: int
    address: Address
    considered: tuple[Considered, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision that `RuleSet.resolve` gives, with the steps that led to it; no steps if the domain is not ours."""

    decision: Decision
    steps: tuple[Step, ...]


def explain(rules: RuleSet, recipient: Address, sender: Address | None, today: date) -> Explanation:
    """Resolve, and tell the way."""
    done, decision = walk(rules.tables, rules.postmaster, recipient, sender, today)
    visits = done.visits if done is not None else []
    return Explanation(
        decision,
        tuple(
            Step(
                visit.depth,
                visit.address,
                tuple(_considered(rules.tables[visit.address.domain], visit.address, visit.rule, sender, today)),
            )
            for visit in visits
        ),
    )


def _considered(
    table: Table, address: Address, taken: Rule | None, sender: Address | None, today: date
) -> Iterator[Considered]:
    name = name_of(address.local)
    found = False
    for level, rules in table.levels(name):
        if not rules:
            yield Considered(level, _sought(level, name, table), Verdict.LATER if found else Verdict.NONE, None)
        for rule in rules:
            if found:
                verdict = Verdict.LATER
            elif rule.senders is not None and not rule.senders.matches(sender):
                verdict = Verdict.OTHER_SENDER
            else:
                found = True
                expired = rule.until is not None and today > rule.until
                verdict = Verdict.EXPIRED if expired else Verdict.TAKEN
                assert taken is not None and taken == rule, "explained as resolved"
            yield Considered(level, rule.pattern if rule.kind is not Kind.FALLBACK else level.value, verdict, rule)


def _sought(level: Level, name: Name, table: Table) -> str:
    sought = {Level.WHOLE: f"exactly {name.folded}", Level.BASE: f"{name.base}, the name without its tag"}
    if level is Level.PATTERN:
        count = len(table.patterns)
        return "1 glob or expression" if count == 1 else f"{count} globs and expressions"
    return sought.get(level, str(level.value))
